"""Distillation: the training text with a teacher's translations as targets, for a smaller or quicker model.

Kim and Rush 2016, "Sequence-Level Knowledge Distillation": the teacher's best hypothesis (3.2), or of its beam the one
closest to the reference, which they call interpolation (3.3).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nmt.errors import NmtError
from nmt.evaluation import closest
from nmt.growing.job import Row
from nmt.growing.translating import Grown, How, grow, lines_of
from nmt.recipe import Data, redecide
from nmt.text import read_pairs
from nmt.translation import Translation


@dataclass(frozen=True)
class _Taught:
    """Pairs of a source with the teacher's translations; or with the one closest to the reference by `measure`."""

    measure: str | None

    def __call__(self, row: Row, translations: list[Translation]) -> list[Row]:
        texts = [one.text for one in translations]
        if self.measure:
            texts = [texts[closest(texts, row[1], self.measure)]]
        return [(row[0], text) for text in texts]


def distill(files: Sequence[str], prefix: str, how: How, data: Data | None = None, measure: str | None = None) -> Grown:
    """Translates source text into a corpus PREFIX.SOURCE and PREFIX.TARGET: that of `files`, or the training text that
    `data` names, by default what the teacher's own recipe does.

    With `measure`, "bleu" or "chrf", it is of n translations the one closest to the reference of the training text.
    Lines are left out, and errors raised, as `backtranslate` does.
    """
    own, data = how.recipe.data, data or how.recipe.data
    if (data.source, data.target) != (own.source, own.target):
        must = f"must translate from {own.source} to {own.target}, as the teacher does"
        raise NmtError(f"--recipe: {must}, found {data.source} to {data.target}")
    if measure and files:
        raise NmtError("--closest: needs references, which text has that a recipe names: leave out the files")
    if measure and how.n_best == 1 and not how.sampling:
        how = replace(how, n_best=redecide(how.recipe.decode, **how.decode).beam)
    if measure and how.n_best == 1:
        raise NmtError("--closest: needs several translations to choose from: widen the beam, or add --n-best N")
    copies, read = lines_of(files, how.shard.named(prefix)) if files else ([], _pairs(data))
    depends = {"command": "distill", "closest": measure}
    grown = grow(prefix, (own.source, own.target), read, _Taught(measure), how, depends)
    for copy in copies:
        Path(copy).unlink(missing_ok=True)
    return grown


def _pairs(data: Data) -> Callable[[], Iterable[Row]]:
    """The training text, to be read more than once."""

    def read() -> Iterator[Row]:
        for entry in data.train:
            yield from read_pairs(entry, data.source, data.target)

    return read
