"""Updates that are not finite: what is noted of them, and when leaving them out is not enough.

One is skipped: neither weights nor optimizer see it. After several in a row training rewinds: it takes up the weights
of an earlier checkpoint and goes on with the data from where it is, so that the stretch that broke it is left out
(PaLM, Chowdhery et al. 2022, section 5.1). After several rewinds that led nowhere it ends.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nmt.data.batches import Chunk, Ids
from nmt.errors import TrainingError
from nmt.text import Tokenizer, Tokenizers
from nmt.training.learner import Learner, Sums

IN_A_ROW = 3  # one may be its data's fault, and a second chance; no three random batches have a fault in common
REWINDS = 3  # each leaves other data out, so that what comes a fourth time does not come from the data
PAIRS = 100  # of an update that are written down: a chunk on a GPU holds thousands
SHOWN = 2  # of them that are told at once
WIDTH = 40  # characters of a text that is told at once


class Health(NamedTuple):
    """What has gone wrong with a training so far.

    row: updates skipped in a row, up to now. skips: updates skipped in all. rewinds: since training last got past
    update `broke`, where the first of them was called for.
    """

    row: int = 0
    skips: int = 0
    rewinds: int = 0
    broke: int = 0

    def taken(self, step: int) -> "Health":
        """After update `step` went well."""
        return Health(0, self.skips) if step > self.broke else self._replace(row=0)

    def skipped(self) -> "Health":
        """After one more update was skipped."""
        return self._replace(row=self.row + 1, skips=self.skips + 1)

    def rewound(self, step: int) -> "Health":
        """After a rewind from update `step`."""
        return Health(0, self.skips, self.rewinds + 1, self.broke or step)


class Line(NamedTuple):
    """A pair of an update: its number in the prepared data, counted from 0, and its text."""

    pair: int
    source: str
    target: str


class Fault(NamedTuple):
    """Why an update is skipped.

    what: which of "loss", "gradient" and "weights" are not finite. loss: per target token. gradient_norm: of the whole
    update. lines: the first pairs of those chunks that are not finite by themselves; pairs: how many these have.
    """

    what: list[str]
    loss: float
    gradient_norm: float
    lines: list[Line]
    pairs: int

    def values(self) -> dict[str, Any]:
        """As values for JSON, which has no numbers that are not finite: these are written out, as "nan" or "inf"."""
        loss, norm = (x if math.isfinite(x) else str(x) for x in (self.loss, self.gradient_norm))
        lines = [line._asdict() for line in self.lines]
        return {"not_finite": self.what, "loss": loss, "gradient_norm": norm, "pairs": self.pairs, "lines": lines}

    def describe(self, file: Path) -> str:
        """In a line; `file` is where to read on."""
        if "weights" in self.what:
            return f"skipped, for the weights are not finite: see {file}"
        shown = "; ".join(f"pair {n} ({_short(source)} = {_short(target)})" for n, source, target in self.lines[:SHOWN])
        more = f"; {self.pairs - SHOWN:,} more" if self.pairs > SHOWN else ""
        return f"skipped, with {' and '.join(self.what)} not finite: {shown}{more}: see {file}"


def examine(
    learner: Learner, tokenizers: Tokenizers, step: int, chunks: Mapping[int, Chunk], pairs: Sequence[Ids], sums: Sums
) -> Fault:
    """What is wrong with an update whose `sums` are not finite; its gradients are gone after that.

    `chunks`, by number, are this process's, and `pairs` the numbers of the pairs of each chunk of the update. Where it
    takes all chunks together to break it, all are suspects.
    """
    loss, norm = float(sums.loss) / sums.target_tokens, float(sums.gradient_norm)
    well = {"loss": math.isfinite(loss), "gradient": math.isfinite(norm), "weights": learner.finite()}
    suspects = {*chain(*learner.world.gather(learner.suspects(step, chunks, sums.target_tokens, len(pairs))))}
    mine = [number for number in chunks if number in suspects or not suspects]
    own = [(number, [*_lines(pairs[number], chunks[number], tokenizers)]) for number in mine]
    lines = [line for _, found in sorted(chain(*learner.world.gather(own))) for line in found]
    return Fault([name for name, is_well in well.items() if not is_well], loss, norm, lines[:PAIRS], len(lines))


def hopeless(step: int, skipped: Path) -> TrainingError:
    """What there is to say when rewinding has not helped."""
    return TrainingError(
        f"training broke off at update {step:,}: it was rewound {REWINDS} times, and its numbers stopped being finite "
        "each time. Begin again in a folder of its own (run: …) with a lower train.schedule.scale, a longer "
        "train.schedule.warmup or a train.clip_norm of 1; or, where it is not, go on with train.precision: fp32; "
        f"{skipped} has the updates it stumbled over"
    )


def _lines(pairs: Ids, chunk: Chunk, tokenizers: Tokenizers) -> Iterator[Line]:
    sources = _texts(chunk.source, chunk.source_lengths, tokenizers.source)
    targets = _texts(chunk.labels, chunk.target_lengths, tokenizers.target)
    return (Line(*line) for line in zip(pairs.tolist(), sources, targets, strict=True))


def _texts(stream: Ids, lengths: Ids, tokenizer: Tokenizer) -> list[str]:
    return tokenizer.decode([ids.tolist() for ids in np.split(stream, np.cumsum(lengths)[:-1])])


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
