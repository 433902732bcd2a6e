"""Whether an exported model says what ours says: both translate a sample, and what they say is compared."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nmt.data.batches import pack_sources
from nmt.ids import EOS, NEVER, SPECIALS
from nmt.interop.weights import require
from nmt.model.cache import Decoding
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.search import Hypothesis, Settings, Steps, beam_search
from nmt.text import Tokenizers
from nmt.translation.alignment import force

TOLERANCE = 1e-3  # nats, by which the score of a token in fp32 may differ
BATCH = 16
CPU = torch.device("cpu")

Ids = Sequence[int]
Watched = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Gives back what it is given, so many of them, and shows how far that is, with a word for what is being done."""


class Said(NamedTuple):
    """What our greedy search says of a source, if it may have at most `limit` tokens, EOS not counted."""

    source: Ids
    limit: int
    best: Hypothesis

    @property
    def ended(self) -> bool:
        """Whether it ended by itself."""
        return len(self.best.ids) < self.limit

    @property
    def tokens(self) -> list[int]:
        """What was said of free will: with EOS, unless that was forced."""
        return [*self.best.ids, EOS] if self.ended else self.best.ids


class Agreement(NamedTuple):
    """How far two engines agree on a sample, greedily."""

    outputs: int
    tokens: int
    """Of all outputs together, EOS among them."""
    gap: float
    """The largest difference of two scores of one output, in nats a token."""
    different: list[tuple[Said, list[int]]]
    """The outputs that are not the same, and what they are instead; two tokens that are as likely count as one."""

    @property
    def whole(self) -> bool:
        """Whether they say the same and score it the same."""
        return not self.different and self.gap <= TOLERANCE

    @property
    def same(self) -> int:
        """How many outputs are the same."""
        return self.outputs - len(self.different)


def say(model: Transformer, sources: Sequence[Ids], extra: int, watched: Watched) -> list[list[Said]]:
    """What greedy search in fp32 says of sources, in batches of one limit: `extra` tokens more than the longest has.

    The probabilities leave out what is never said, as those of the export do.
    """
    ordered = sorted(sources, key=len)
    batches = [ordered[begin : begin + BATCH] for begin in range(0, len(ordered), BATCH)]
    return [_say(model, batch, extra) for batch in watched(batches, len(batches), "translating the sample")]


def _say(model: Transformer, sources: Sequence[Ids], extra: int) -> list[Said]:
    limit = min(len(sources[-1]) + extra, model.longest_output)
    found = search(model, sources, limit, Settings(beam=1), _Renormalised)
    return [Said(source, limit, best) for source, best in zip(sources, found, strict=True)]


def search(
    model: Transformer,
    sources: Sequence[Ids],
    limit: int,
    settings: Settings,
    wrapped: Callable[[Steps], Steps] = lambda steps: steps,
) -> list[Hypothesis]:
    """The best output of each source, of at most `limit` tokens."""
    stream, lengths = pack_sources(sources)
    with torch.inference_mode():
        steps = wrapped(Decoding(model, torch.from_numpy(stream), Cut.of(lengths)))
        return [best for best, *_ in beam_search(steps, [limit] * len(sources), settings)]


class _Renormalised:
    """Steps whose probabilities leave out what is never said, and sum to 1 without it."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def step(self, tokens: Tensor) -> Tensor:
        """As `Steps.step`."""
        logits = self._steps.step(tokens)
        logits[:, list(NEVER)] = -torch.inf
        return logits

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
        """As `Steps.select`."""
        self._steps.select(rows, sentences)


class Theirs:
    """The model in an exported folder, as CTranslate2 runs it here; ids in, ids out."""

    def __init__(self, folder: Path, tokenizers: Tokenizers, kind: str) -> None:
        """`kind` is what its weights are kept in."""
        self.kind = kind
        self._sides = tokenizers
        target = tokenizers.target
        self._ids = {piece: id for id, piece in enumerate(target.pieces(range(target.vocab_size)))}
        self._ids |= {piece: id for id, piece in enumerate(tokenizers.source.pieces(range(SPECIALS)))}
        with _quiet():  # of types that this processor lacks, and computes in others for
            self._translator = require().Translator(
                str(folder), device="cpu", compute_type="default", intra_threads=torch.get_num_threads()
            )

    def translate(self, sources: Sequence[Ids], limit: int, **options: Any) -> list[tuple[list[int], float]]:
        """The best output of each source, EOS among its at most `limit` + 1 tokens, and its score."""
        found = self._translator.translate_batch(
            [self._sides.source.pieces(source) for source in sources],
            return_scores=True,
            return_end_token=True,
            max_decoding_length=limit + 1,
            **{"min_decoding_length": 0, "max_input_length": 0, **options},
        )
        return [([self._ids[piece] for piece in best.hypotheses[0]], best.scores[0]) for best in found]

    def log_p(self, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[float]:
        """The log-probability of each target, its EOS with it, in nats."""
        pieces = (
            [side.pieces(ids) for ids in some] for side, some in zip(self._sides, (sources, targets), strict=True)
        )
        return [sum(scored.log_probs) for scored in self._translator.score_batch(*pieces, max_input_length=0)]


def compare(model: Transformer, theirs: Theirs, batches: Sequence[Sequence[Said]], watched: Watched) -> Agreement:
    """How far the exported model agrees with what ours has said, which comes in batches of one limit."""
    outputs, tokens, gap, different = 0, 0, 0.0, []
    for batch in watched(batches, len(batches), "comparing"):
        sources = [said.source for said in batch]
        found = theirs.translate(sources, batch[0].limit, beam_size=1, length_penalty=1)
        forced = theirs.log_p(sources, [said.best.ids for said in batch])
        for said, (ids, score), log_p in zip(batch, found, forced, strict=True):
            length = len(said.best.ids) + 1
            gap = _worse(gap, abs(log_p - said.best.log_p) / length)
            if said.ended and ids == said.tokens:
                gap = _worse(gap, abs(score - said.best.log_p / length))
            if not _agrees(model, said, ids):
                different.append((said, ids))
            outputs, tokens = outputs + 1, tokens + length
    return Agreement(outputs, tokens, gap, different)


def _worse(gap: float, other: float) -> float:
    """The larger of two; what is no number is infinite."""
    return max(gap, math.inf if math.isnan(other) else other)


def _agrees(model: Transformer, said: Said, ids: list[int]) -> bool:
    """Whether an output is what ours says; or would be, had it taken one of two tokens that are as likely."""
    ours, theirs = said.tokens, ids[: said.limit + said.ended]
    if ours == theirs:
        return True
    first = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if first is None:
        return False
    with torch.inference_mode():
        logits = model.logits(force(model, [said.source], [ours[:first]], CPU))[-1]
    return bool((logits[ours[first]] - logits[theirs[first]]).abs() <= TOLERANCE)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps CTranslate2 from talking while the block runs."""
    package = require()
    before = package.get_log_level()
    package.set_log_level(logging.ERROR)
    try:
        yield
    finally:
        package.set_log_level(before)
