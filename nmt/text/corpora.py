"""Parallel corpora: two files of equally many lines, or one of two columns."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from nmt.errors import DataError
from nmt.recipe import Tsv
from nmt.text.lines import read_lines

Pair = tuple[str, str]


@dataclass(frozen=True)
class Corpus:
    """Parallel text on disk: `files` are its source and its target side, or its one file of two columns."""

    name: str
    files: tuple[Path, ...]

    def pairs(self) -> Iterator[Pair]:
        """The (source, target) pairs as they stand in the files, one at a time.

        Raises `DataError` for sides of unequal length, naming both counts, and a line without two columns.
        """
        return _sides(*self.files) if len(self.files) == 2 else _columns(*self.files)


def locate(entry: str | Tsv, source: str, target: str) -> Corpus:
    """The corpus that `entry` of a recipe stands for.

    A prefix stands for PREFIX.source and PREFIX.target, or where there is no such file for the same with .gz.
    Raises `DataError` where a file is missing.
    """
    if isinstance(entry, Tsv):
        return Corpus(entry.tsv, (_existing(Path(entry.tsv)),))
    plain = [Path(f"{entry}.{language}") for language in (source, target)]
    return Corpus(entry, tuple(_existing(path, path.with_name(f"{path.name}.gz")) for path in plain))


def read_pairs(entry: str | Tsv, source: str, target: str) -> Iterator[Pair]:
    """The (source, target) pairs of the corpus that `entry` of a recipe stands for, one at a time.

    Raises `DataError`, as `locate` and `Corpus.pairs` do.
    """
    return locate(entry, source, target).pairs()


def _existing(*candidates: Path) -> Path:
    for path in candidates:
        if os.path.exists(path):  # Path.exists raises where a folder may not be searched
            return path
    others = "".join(f", nor {path}" for path in candidates[1:])
    raise DataError(f"{candidates[0]}: no such file{others}")


def _sides(source: Path, target: Path) -> Iterator[Pair]:
    counts = [0, 0]
    for one, other in zip_longest(read_lines(source), read_lines(target)):
        counts[0] += one is not None
        counts[1] += other is not None
        if one is not None and other is not None:
            yield one, other
    if counts[0] != counts[1]:
        raise DataError(
            f"{source} has {counts[0]:,} lines but {target} has {counts[1]:,}: "
            "each line of one must be the translation of the same line of the other"
        )


def _columns(path: Path) -> Iterator[Pair]:
    for number, line in enumerate(read_lines(path), 1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise DataError(f"{path}:{number}: must be two columns with a tab between, found {len(columns)}")
        yield columns[0], columns[1]
