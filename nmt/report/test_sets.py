"""The test sets of runs as the report shows them: scores, BLEU by length, and translations side by side."""

import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from nmt.errors import DataError, NmtError
from nmt.evaluation import Kept, Report, by_length, digest, groups, kept, score, sentences
from nmt.evaluation.closely import Sentence
from nmt.recipe import Corpus
from nmt.report.runs import Run
from nmt.text import read_lines, read_pairs

SHOWN = 8  # sentences of each choice


class Set(NamedTuple):
    """A test set of one run. note: what the reader should know of the scores."""

    pairs: list[tuple[str, str]]
    translations: list[str]
    scores: Kept
    note: str


def test_sets(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each test set that a run has translated, under its name; what is amiss with one is told in its place.

    Runs are compared where their sets of a name have the same sources and references.
    """
    found: list[dict[str, Any]] = []
    names = dict.fromkeys(name for run in runs if run.recipe for name in run.recipe.data.test)
    for name in names:
        sets = {}
        for place, run in enumerate(runs):
            try:
                if one := _set(run, name):
                    sets[place] = one
            except NmtError as error:
                found.append(_without_text(run, place, name, error))
        while sets:
            first = next(iter(sets.values()))
            same = {place: one for place, one in sets.items() if one.pairs == first.pairs}
            sets = {place: one for place, one in sets.items() if place not in same}
            try:
                found.append(_shown(name, same))
            except NmtError as error:  # a tokenization that was there when they were scored
                found += [_without_text(runs[place], place, name, error) for place in same]
    return found


def _without_text(run: Run, place: int, name: str, why: NmtError) -> dict[str, Any]:
    """What can be said of a test set whose text cannot be shown: why, and the scores that were left, if there are."""
    left = None
    with suppress(DataError):
        left = kept(run.layout.scores).get(name)
    told = {"name": name, "notes": [f"{run.name}: {why}"]}
    return told | ({"runs": [place], "scores": [_rows(left.report)]} if left else {})


def _set(run: Run, name: str) -> Set | None:
    """A test set that a run has translated, if it has. Raises `DataError` where its text is gone or has changed."""
    assert run.recipe
    data = run.recipe.data
    corpus: Corpus | None = data.test.get(name)
    if corpus is None:
        return None
    path = run.layout.translations / f"{name}.{data.of(corpus).target}"
    if not path.exists():
        return None
    translations = [*read_lines(str(path))]
    pairs = [*read_pairs(corpus, data.source, data.target)]
    if len(pairs) != len(translations):
        raise DataError(
            f"{path}: {len(translations)} lines, and the test set now has {len(pairs)}: run nmt score again"
        )
    return Set(pairs, translations, *_scores(run.layout.scores, name, translations, pairs))


def _scores(path: Path, name: str, translations: list[str], pairs: list[tuple[str, str]]) -> tuple[Kept, str]:
    """What `nmt score` left, if that is about these translations; else what they score here and now."""
    left = kept(path).get(name)
    if left and left.translations == digest(translations):
        return left, ""
    tokenize, lowercase = (left.tokenize, left.lowercase) if left else (None, False)
    how: dict[str, Any] = {"tokenize": tokenize, "lowercase": lowercase}
    report = score([reference for _, reference in pairs], {name: translations}, confidence=False, **how)
    why = f"{path.name} is about other translations" if left else "nmt score left no figures"
    note = f"{why}: scored for this page, without intervals; nmt score gives them"
    return Kept(report, translations=digest(translations), **how), note


def _shown(name: str, sets: dict[int, Set]) -> dict[str, Any]:
    """The runs that are numbered, on one test set."""
    first = next(iter(sets.values()))
    sources, references = map(list, zip(*first.pairs, strict=True))
    how: dict[str, Any] = {"tokenize": first.scores.tokenize, "lowercase": first.scores.lowercase}
    close = {place: sentences(one.translations, references, **how) for place, one in sets.items()}
    tokens = [sentence.tokens for sentence in close[next(iter(sets))]]
    grouped = groups(tokens)
    lengths = {place: by_length(one.translations, references, tokens, grouped, **how) for place, one in sets.items()}
    chosen = _chosen([*close.values()])
    return {
        "name": name,
        "sentences": len(sources),
        "notes": [*dict.fromkeys(one.note for one in sets.values() if one.note)],
        "runs": [*sets],
        "scores": [_rows(one.scores.report) for one in sets.values()],
        "lengths": {"groups": grouped, "parts": [*lengths.values()]},
        "chosen": chosen,
        "texts": {
            place: {
                "source": sources[place],
                "reference": references[place],
                "outputs": [one.translations[place] for one in sets.values()],
                "scores": [one[place][:2] for one in close.values()],
            }
            for place in sorted({place for places in chosen.values() for place in places})
        },
    }


def _rows(report: Report) -> list[dict[str, Any]]:
    return [{"metric": row.metric, "score": row.score, "ci": row.ci, "signature": row.signature} for row in report.rows]


def _chosen(runs: Sequence[Sequence[Sentence]]) -> dict[str, list[int]]:
    """Which sentences to show: the worst, the best, some by chance, and where the first two runs differ most.

    The worst and the best are so for the first run, by chrF.
    """
    by_score = sorted(range(len(runs[0])), key=lambda place: runs[0][place].chrf)
    best = sorted(by_score, key=lambda place: (-runs[0][place].chrf, place))
    some = sorted(random.Random(1).sample(range(len(by_score)), min(SHOWN, len(by_score))))
    chosen = {"worst": by_score[:SHOWN], "best": best[:SHOWN], "by chance": some}
    if len(runs) > 1:
        gain = [second.chrf - first.chrf for first, second in zip(runs[0], runs[1], strict=True)]
        order = sorted(range(len(gain)), key=gain.__getitem__)
        chosen |= {"better in the second": order[::-1][:SHOWN], "better in the first": order[:SHOWN]}
    return chosen
