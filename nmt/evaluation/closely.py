"""A score taken apart: sentence by sentence, and by the length of the sentences."""

from collections.abc import Sequence
from typing import NamedTuple

from sacrebleu.metrics import CHRF

from nmt.evaluation.scoring import check, tokenized

SHARES = 0.1, 0.25, 0.5, 0.75, 0.9  # of all sentences, where one length group ends: the extremes are apart
FEWEST = 10  # sentences of a group


class Sentence(NamedTuple):
    """One translation. bleu: smoothed, and only of the orders it has. chrf: chrF2. tokens: of the reference."""

    bleu: float
    chrf: float
    tokens: int


class Group(NamedTuple):
    """The sentences whose references have from `first` to `last` tokens, as sacreBLEU counts them."""

    first: int
    last: int


class Part(NamedTuple):
    """Corpus BLEU of the sentences of a group; ratio: how long the translations are, beside the references."""

    sentences: int
    bleu: float
    ratio: float


def sentences(
    hypotheses: Sequence[str], references: Sequence[str], tokenize: str | None = None, lowercase: bool = False
) -> list[Sentence]:
    """Each translation by itself. Raises `DataError` and `NmtError` as `score` does."""
    check([list(references)], {"translation": list(hypotheses)})
    bleu = tokenized(tokenize, lowercase, effective_order=True, force=True)
    chrf = CHRF(lowercase=lowercase)
    found = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        one = bleu.sentence_score(hypothesis, [reference])
        found.append(Sentence(one.score, chrf.sentence_score(hypothesis, [reference]).score, one.ref_len))
    return found


def groups(tokens: Sequence[int]) -> list[Group]:
    """Groups of sentences by their tokens: a tenth, 15 %, a quarter, a quarter, 15 %, a tenth of them, or nearly.

    There are fewer where lengths are alike, or sentences few.
    """
    ordered = sorted(tokens)
    found: list[Group] = []
    for end in [*(ordered[int(share * (len(ordered) - 1))] for share in SHARES), ordered[-1]]:
        first = found[-1].last + 1 if found else ordered[0]
        if sum(first <= each <= end for each in ordered) >= FEWEST:
            found.append(Group(first, end))
    if not found:
        return [Group(ordered[0], ordered[-1])]
    return [*found[:-1], found[-1]._replace(last=ordered[-1])]


def by_length(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokens: Sequence[int],
    grouped: Sequence[Group],
    tokenize: str | None = None,
    lowercase: bool = False,
) -> list[Part]:
    """Corpus BLEU within each group; `tokens` are those of each reference."""
    bleu, parts = tokenized(tokenize, lowercase, force=True), []
    for group in grouped:
        places = [place for place, each in enumerate(tokens) if group.first <= each <= group.last]
        said, meant = ([lines[place] for place in places] for lines in (hypotheses, references))
        found = bleu.corpus_score(said, [meant])
        parts.append(Part(len(places), float(found.score), float(found.sys_len / max(1, found.ref_len))))
    return parts
