"""Work that several processes share, collected in its order."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle
from multiprocessing.connection import Connection
from typing import Any, Generic, NamedTuple, Self, TypeVar

from nmt.errors import NmtError

Piece = TypeVar("Piece")
Done = TypeVar("Done")

Make = Callable[[], Callable[[Piece], Done]]
"""Makes what does the work; each process makes its own, so this has to go through a pipe."""

Work = Callable[[Iterable[Piece]], Iterator[tuple[Piece, Done]]]


class Shard(NamedTuple):
    """The share of one of `total` processes, on one machine or many, counted from 1."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The share that "2/8" means. Raises `NmtError`."""
        number, _, total = text.partition("/")
        if number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total):
            return cls(int(number), int(total))
        raise NmtError(f"--shard: must be I/N, such as 2/8, with I from 1 to N, found {text}")

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def working(make: Make[Piece, Done], workers: int) -> Iterator[Work[Piece, Done]]:
    """Gives the function that does pieces of work: each with what became of it, in their order.

    With one worker that is done in this process. A piece is asked for only when a worker is about to be free for it,
    so memory is bounded. What a worker raises as `NmtError` is raised here; so is one when a worker dies.
    """
    if workers == 1:
        do = make()
        yield lambda pieces: ((piece, do(piece)) for piece in pieces)
        return
    with ExitStack() as stack:
        staff = []
        for _ in range(workers):
            staff.append(_Worker(make))
            stack.callback(staff[-1].stop)
        yield lambda pieces: _in_order(staff, pieces)


def _in_order(staff: "list[_Worker[Piece, Done]]", pieces: Iterable[Piece]) -> Iterator[tuple[Piece, Done]]:
    """Pieces are dealt out in turn and collected in turn, so that their order keeps itself."""
    busy: deque[_Worker[Piece, Done]] = deque()
    for piece, worker in zip(pieces, cycle(staff), strict=False):
        done = busy.popleft().collect() if len(busy) == len(staff) else None
        worker.give(piece)
        busy.append(worker)
        if done:
            yield done
    while busy:
        yield busy.popleft().collect()


class _Worker(Generic[Piece, Done]):
    """A process that does one piece of work at a time.

    We talk through a pipe that nobody else holds: when either of us dies, the other reads its end and knows.
    """

    def __init__(self, make: Make[Piece, Done]) -> None:
        # Spawned, not forked: the fork of a process with threads (of a progress bar, of torch) can hang for ever.
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_work, args=(make, end), daemon=True)
        self._process.start()
        end.close()

    def give(self, piece: Piece) -> None:
        """Hands over a piece; the last one must have been collected."""
        self._piece = piece
        try:
            self._pipe.send(piece)
        except OSError:
            raise self._death() from None

    def collect(self) -> tuple[Piece, Done]:
        """Waits for what became of the piece."""
        try:
            found: Any = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(found, NmtError):
            raise found
        return self._piece, found

    def stop(self) -> None:
        """Ends the process, whatever it is doing."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()

    def _death(self) -> NmtError:
        self._process.join(timeout=5)
        how = f"a worker process died (exit code {self._process.exitcode}), perhaps for want of memory"
        return NmtError(f"{how}: run it again with fewer workers (a single one works in this process)")


def _work(make: Make[Any, Any], pipe: Connection) -> None:
    """The life of a worker: it ends when the pipe does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    with suppress(EOFError, OSError):
        try:
            do = make()
            while True:
                pipe.send(do(pipe.recv()))
        except NmtError as error:
            pipe.send(error)
