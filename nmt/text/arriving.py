"""Lines that come from somewhere else at a pace of their own: read ahead, to be taken as they have come."""

import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Condition, Thread
from typing import NamedTuple

from nmt.errors import DataError
from nmt.processes import Shard
from nmt.text.lines import read_lines
from nmt.text.opening import BUFFER, opened

AHEAD = 2048  # lines that are read before they are asked for, and the most that are given at once


class Arriving:
    """Lines that a thread reads ahead, `AHEAD` of them at most.

    Whoever takes what has come, and no more, never waits for a line while the sender waits for an answer to those
    before it.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        """Begins to read. What reading raises is raised once all lines before have been taken."""
        self._come = deque[str]()
        self._change = Condition()
        self._ended = False
        self._fault: BaseException | None = None
        # A daemon: nobody can wake a thread that waits for a line, so the process must be able to end without it.
        Thread(target=self._read, args=(lines,), daemon=True).start()

    def take(self, most: int = AHEAD, wait: bool = True) -> list[str]:
        """The lines that have come, `most` of them at most.

        Waits for one where there is none, so that only the end gives none; unless told not to.
        """
        with self._change:
            while wait and not self._come and not self._ended:
                self._change.wait()
            if wait and not self._come and self._fault:
                raise self._fault
            taken = [self._come.popleft() for _ in range(min(most, len(self._come)))]
            self._change.notify()
            return taken

    def __iter__(self) -> Iterator[str]:
        while taken := self.take(1):
            yield from taken

    def _read(self, lines: Iterable[str]) -> None:
        try:
            for line in lines:
                with self._change:
                    while len(self._come) >= AHEAD:
                        self._change.wait()
                    self._come.append(line)
                    self._change.notify()
        except BaseException as fault:  # told to whoever takes the lines
            self._fault = fault
        with self._change:
            self._ended = True
            self._change.notify()


def lines_of(paths: Iterable[str | Path], note: Callable[[str], object] = lambda line: None) -> Iterable[str]:
    """The lines of these files, one after another, as `read_lines` gives them; `Arriving` unless all are there already.

    That is so of regular files. A terminal, a pipe or a socket gives lines when it likes. `note` is told of each line
    when it has been read.
    """
    paths = list(paths)
    lines = _noted(paths, note)
    return lines if all(map(_is_there, paths)) else Arriving(lines)


def _noted(paths: Iterable[str | Path], note: Callable[[str], object]) -> Iterator[str]:
    for path in paths:
        for line in read_lines(path):
            note(line)
            yield line


def count_lines(paths: Iterable[str | Path]) -> int | None:
    """How many lines `lines_of` gives; None where they are still to come. Raises `DataError`."""
    paths = list(paths)
    return sum(map(_count, paths)) if all(map(_is_there, paths)) else None


class Share(NamedTuple):
    """Some lines of a text: the place of the first one in the whole, from 0, and how many they are, if known."""

    lines: Iterable[str]
    first: int
    total: int | None


def share_of(paths: Sequence[str | Path], shard: Shard, unit: int) -> Share:
    """The share of a shard in the lines of these files: so many in a row, cut only after whole multiples of `unit`.

    Raises `DataError` for text whose length cannot be known before it is read.
    """
    total = count_lines(paths) if "-" not in map(str, paths) else None
    if total is None:
        raise DataError("only files can be shared out, whose lines can be counted first: name a file, not a pipe")
    share = shard.share(-(-total // unit))
    first, end = share.start * unit, min(share.stop * unit, total)
    return Share(islice(lines_of(paths), first, end), first, end - first)


def _is_there(path: str | Path) -> bool:
    """Whether a file has all its bytes already; one that cannot be looked at will tell when it is read."""
    try:
        return stat.S_ISREG((os.fstat(sys.stdin.fileno()) if str(path) == "-" else os.stat(path)).st_mode)
    except (OSError, ValueError, AttributeError):
        return True


def _count(path: str | Path) -> int:
    count, last = 0, b"\n"
    with _place_kept(path), opened(path) as stream:
        while block := stream.read(BUFFER):
            count, last = count + block.count(b"\n"), block[-1:]
    return count + (last != b"\n")


@contextmanager
def _place_kept(path: str | Path) -> Iterator[None]:
    """Standard input is where it was when the block ends."""
    descriptor = sys.stdin.fileno() if str(path) == "-" else None
    place = os.lseek(descriptor, 0, os.SEEK_CUR) if descriptor is not None else 0
    yield
    if descriptor is not None:
        os.lseek(descriptor, place, os.SEEK_SET)
