"""BLEU, chrF++ and TER through sacreBLEU: the numbers, intervals and signatures that its command prints."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric, Score
from sacrebleu.significance import PairedTest

from nmt.errors import DataError, NmtError
from nmt.evaluation.report import Report, Row

METRICS = ("bleu", "chrf", "ter")

Systems = dict[str, list[str]]

# sacreBLEU holds every resampled line at once, up to 100 bytes each. To stay within half a gigabyte, beyond
# 5,000 lines we take fewer resamples (the signature says how many), and beyond 50,000 none (a note says so).
RESAMPLES = 1000
FEWEST_RESAMPLES = 100
RESAMPLED_LINES = 5_000_000


def score(
    references: Sequence[str] | Sequence[Sequence[str]],
    systems: dict[str, list[str]],
    *,
    metrics: Sequence[str] = METRICS,
    tokenize: str | None = None,
    lowercase: bool = False,
    confidence: bool = True,
) -> Report:
    """Scores the translations of each of `systems` against one reference, or against several.

    tokenize names sacreBLEU's tokenization for BLEU: "13a" when None, "none" for text already tokenised.
    lowercase concerns BLEU and chrF++; TER never minds case, as its signature says.
    confidence adds 95 % bootstrap intervals and, to every system after the first, the p-value of a paired
    bootstrap against the first. The resamples are seeded: the same files give the same report.

    DataError when there are no lines or the counts differ; NmtError for an unknown metric or tokenization.
    """
    streams = _streams(references)
    check(streams, systems)
    chosen = {name: _metric(name, tokenize, lowercase) for name in metrics}
    if not confidence:
        return Report(tuple(_plain(streams, systems, chosen)))
    resamples = min(RESAMPLES, RESAMPLED_LINES // len(streams[0]))
    if resamples < FEWEST_RESAMPLES:
        note = f"no intervals and no p-values: {len(streams[0])} lines are too many to resample in memory"
        return Report(tuple(_plain(streams, systems, chosen)), (note,))
    return Report(tuple(_tested(streams, systems, chosen, resamples)))


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU of detokenised text, 0 to 100, without its signature: to watch a training by.

    DataError when there are no lines or the counts differ.
    """
    check([list(references)], {"translation": list(hypotheses)})
    return float(BLEU(force=True).corpus_score(hypotheses, [references]).score)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF++, 0 to 100, otherwise as `bleu`."""
    check([list(references)], {"translation": list(hypotheses)})
    return float(CHRF(word_order=2).corpus_score(hypotheses, [references]).score)


def closest(hypotheses: Sequence[str], reference: str, measure: str = "bleu") -> int:
    """Which of these sentences is most like the reference, by sentence BLEU or chrF; the first, if several are.

    BLEU is smoothed, and only of the orders that a short sentence has. NmtError for an unknown measure.
    """
    score = _sentence_score(measure)
    scores = [score(hypothesis, [reference]).score for hypothesis in hypotheses]
    return scores.index(max(scores))


@cache
def _sentence_score(measure: str) -> Callable[[str, Sequence[str]], Score]:
    if measure not in ("bleu", "chrf"):
        raise NmtError(f"there is no measure {measure!r} of a sentence; choose from bleu, chrf")
    return CHRF().sentence_score if measure == "chrf" else BLEU(effective_order=True).sentence_score


def _streams(references: Sequence[str] | Sequence[Sequence[str]]) -> list[list[str]]:
    """References as sacreBLEU wants them: a list of whole references, be it only one."""
    lines = [line for line in references if isinstance(line, str)]
    return [lines] if lines else [list(reference) for reference in references]


def check(streams: list[list[str]], systems: Systems) -> None:
    """Raises `NmtError` where there is nothing to score, `DataError` where there is no reference or counts differ."""
    if not systems:
        raise NmtError("there is no translation to score; name at least one")
    if not streams or not streams[0]:
        raise DataError("the reference has no lines; there is nothing to score against")
    others = {f"reference {number}": lines for number, lines in enumerate(streams[1:], start=2)}
    for name, lines in {**others, **systems}.items():
        if len(lines) != len(streams[0]):
            raise DataError(
                f"{name} has {len(lines)} lines, the reference has {len(streams[0])}; "
                "scoring needs one line of translation for each line of the reference"
            )


def _metric(name: str, tokenize: str | None, lowercase: bool) -> Metric:
    if name == "bleu":
        return tokenized(tokenize, lowercase)
    if name == "chrf":
        return CHRF(word_order=2, lowercase=lowercase)  # two orders of words make it chrF++
    if name == "ter":
        return TER()
    raise NmtError(f"there is no metric {name!r}; choose from {', '.join(METRICS)}")


def tokenized(tokenize: str | None, lowercase: bool, *, force: bool = False, effective_order: bool = False) -> BLEU:
    """sacreBLEU's BLEU with this tokenization. Raises `NmtError` where there is none, or it cannot be had here."""
    if tokenize is not None and tokenize not in BLEU.TOKENIZERS:
        raise NmtError(f"there is no tokenization {tokenize!r}; choose from {', '.join(BLEU.TOKENIZERS)}")
    # sacreBLEU warns when text looks tokenised; who says "none" knows that it is.
    try:
        quiet = force or tokenize == "none"
        return BLEU(lowercase=lowercase, tokenize=tokenize, force=quiet, effective_order=effective_order)
    except (ImportError, OSError, RuntimeError) as error:  # some need a package or a model to be fetched
        why = " ".join(str(error).split())
        raise NmtError(f"the tokenization {tokenize!r} cannot be used here: {why}") from error


def _tested(streams: list[list[str]], systems: Systems, metrics: dict[str, Metric], resamples: int) -> Iterator[Row]:
    """The rows with their intervals and p-values; for one system alone there is nothing to compare with."""
    test = PairedTest(list(systems.items()), metrics, streams, test_type="bs", n_samples=resamples)
    signatures, scores = test()
    table: Mapping[str, Any] = scores  # beside its results sacreBLEU keeps a column of names
    for place, (system, lines) in enumerate(systems.items()):
        for (metric, signature), measure in zip(signatures.items(), metrics.values(), strict=True):
            first, found = table[metric][0], table[metric][place]
            yield Row(
                system,
                metric,
                score=float(found.score),
                signature=str(signature),
                mean=float(found.mean),
                ci=float(found.ci),
                p_value=_p_value(first, found) if place else None,
                anatomy=_anatomy(measure, lines, streams),
            )


def _p_value(first: Any, found: Any) -> float:
    """sacreBLEU's p-value, save for equal scores: it would call a system's distance to itself significant."""
    return 1.0 if found.score == first.score else float(found.p_value)


def _plain(streams: list[list[str]], systems: Systems, metrics: dict[str, Metric]) -> Iterator[Row]:
    """The rows with nothing but their scores."""
    for system, lines in systems.items():
        for measure in metrics.values():
            found = measure.corpus_score(lines, streams)
            yield Row(
                system,
                found.name,
                score=float(found.score),
                signature=str(measure.get_signature()),
                anatomy=_anatomy(measure, lines, streams),
            )


def _anatomy(measure: Metric, lines: list[str], streams: list[list[str]]) -> dict[str, Any] | None:
    """What a BLEU is made of: it tells a short translation from a wrong one. None for other metrics."""
    if not isinstance(measure, BLEU):
        return None
    found = measure.corpus_score(lines, streams)
    return {
        "precisions": [float(precision) for precision in found.precisions],
        "brevity_penalty": float(found.bp),
        "length_ratio": float(found.ratio),
        "tokens": int(found.sys_len),
        "reference_tokens": int(found.ref_len),
    }
