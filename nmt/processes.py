"""Work that several processes share, collected in its order."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, count
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, NamedTuple, Self, TypeVar

from nmt.errors import NmtError

Piece = TypeVar("Piece")
Done = TypeVar("Done")

Make = Callable[[], Callable[[Piece], Done]]
"""Makes what does the work; each process makes its own, so this has to go through a pipe."""

Work = Callable[[Iterable[Piece | None]], Iterator[tuple[Piece, Done]]]
"""Does pieces of work: gives each with what became of it, in their order.

A piece that is None says that the next one may be long in coming: all that is under way is finished first.
"""

Pays = Callable[[float, int], bool]
"""Is told how many seconds how many pieces have taken; says whether starting workers pays."""


_TORCHRUN = ("RANK", "WORLD_SIZE")
_SRUN = (("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"), ("SLURM_PROCID", "SLURM_NTASKS"))


class Shard(NamedTuple):
    """The share of one of `total` processes, on one machine or many, counted from 1."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The share that "2/8" means; "auto" is that of this process among those of torchrun or srun.

        Raises `NmtError`.
        """
        if text == "auto":
            shard = cls._ranked(_TORCHRUN, *_SRUN)
            if shard is None:
                raise NmtError("--shard auto: torchrun or srun must have started this process: or say which, as in 1/8")
            return shard
        number, _, total = text.partition("/")
        if number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total):
            return cls(int(number), int(total))
        raise NmtError(f"--shard: must be I/N, such as 2/8, with I from 1 to N, found {text}")

    @classmethod
    def of_torchrun(cls) -> Self:
        """The share of this process among those that torchrun has started; the whole where it has not.

        srun is not asked: in a batch script its variables are there for commands too that run only once.
        """
        return cls._ranked(_TORCHRUN) or cls(1, 1)

    @classmethod
    def _ranked(cls, *variables: tuple[str, str]) -> Self | None:
        """The share by the first pair of variables that is set: the rank, counted from 0, and how many there are."""
        for rank, total in variables:
            if os.environ.get(rank, "").isdecimal() and os.environ.get(total, "").isdecimal():
                return cls(int(os.environ[rank]) + 1, int(os.environ[total]))
        return None

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def share(self, chunks: int) -> range:
        """Which of so many chunks are its own: some in a row, so that all shards one after another are the whole."""
        return range(chunks * (self.number - 1) // self.total, chunks * self.number // self.total)

    def named(self, name: str) -> str:
        """What its files are called; in the order of their names they are in the order of the text."""
        return name if self.total == 1 else f"{name}.{self.number:0{len(str(self.total))}}-of-{self.total}"


WHOLE = Shard(1, 1)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def affordable(workers: int) -> int:
    """How many of so many workers, each as large as this process is now, fit into the memory that is free; at least 1.

    What is free Linux tells; elsewhere all are taken to fit.
    """
    try:
        said = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(said["MemAvailable"].split()[0]) * 1024
        ours = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        with suppress(OSError, ValueError):  # in a container; "max" is no limit
            limit, taken = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
            stat = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
            free = min(free, limit - taken + int(stat["inactive_file"]))
    except (OSError, KeyError, ValueError):
        return workers
    return max(1, min(workers, free // ours))


@contextmanager
def working(make: Make[Piece, Done], workers: int) -> Iterator[Work[Piece, Done]]:
    """Gives the function that does pieces of work in so many processes.

    With one worker that is done in this process. A piece is asked for only when a worker is about to be free for it,
    so memory is bounded. What a worker raises as `NmtError` is raised here; so is one when a worker dies.
    """
    if workers == 1:
        do = make()
        yield lambda pieces: ((piece, do(piece)) for piece in pieces if piece is not None)
        return
    with ExitStack() as stack:
        staff = _staff(make, workers, stack)
        yield lambda pieces: _in_order(staff, pieces)


@contextmanager
def working_here_first(
    do: Callable[[Piece], Done], make: Make[Piece, Done], workers: int, pays: Pays
) -> Iterator[Work[Piece, Done]]:
    """Gives the function that does pieces of work as `working` does, but by `do` in this process until workers pay.

    They are started once `pays` says so, and take over when all are ready; until then this process goes on.
    """
    with ExitStack() as stack:

        def work(pieces: Iterable[Piece | None]) -> Iterator[tuple[Piece, Done]]:
            staff: list[_Worker[Piece, Done]] = []
            rest, seconds, done = iter(pieces), 0.0, count(1)
            for piece in rest:
                if piece is None:
                    continue
                if staff and all(worker.begun() for worker in staff):
                    yield from _in_order(staff, chain([piece], rest))
                    return
                start = perf_counter()
                found = do(piece)
                seconds += perf_counter() - start
                yield piece, found
                if pays(seconds, next(done)) and not staff:
                    staff = _staff(make, workers, stack)

        yield work


def _staff(make: Make[Piece, Done], workers: int, stack: ExitStack) -> "list[_Worker[Piece, Done]]":
    """So many workers, which end when the stack does."""
    staff = []
    for _ in range(workers):
        staff.append(_Worker(make))
        stack.callback(staff[-1].stop)
    return staff


def _in_order(staff: "list[_Worker[Piece, Done]]", pieces: Iterable[Piece | None]) -> Iterator[tuple[Piece, Done]]:
    """Pieces are dealt out in turn and collected in turn, so that their order keeps itself."""
    free, busy = deque(staff), deque[_Worker[Piece, Done]]()
    for piece in chain(pieces, [None]):
        if piece is None:
            while busy:
                free.append(busy.popleft())
                yield free[-1].collect()
            continue
        done = None
        if not free:
            free.append(busy.popleft())
            done = free[0].collect()
        busy.append(free.popleft())
        busy[-1].give(piece)
        if done:
            yield done


class _Worker(Generic[Piece, Done]):
    """A process that does one piece of work at a time.

    We talk through a pipe that nobody else holds: when either of us dies, the other reads its end and knows.
    """

    def __init__(self, make: Make[Piece, Done]) -> None:
        # Spawned, not forked: the fork of a process with threads (of a progress bar, of torch) can hang for ever.
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_work, args=(make, end), daemon=True)
        with _deaf_to_ctrl_c():
            self._process.start()
        end.close()
        self._begun = False

    def begun(self, wait: bool = False) -> bool:
        """Whether it is ready to work; for certain, if told to wait."""
        if not self._begun and (wait or self._pipe.poll()):
            self._receive()
            self._begun = True
        return self._begun

    def give(self, piece: Piece) -> None:
        """Hands over a piece; the last one must have been collected."""
        self._piece = piece
        try:
            self._pipe.send(piece)
        except OSError:
            raise self._death() from None

    def collect(self) -> tuple[Piece, Done]:
        """Waits for what became of the piece."""
        self.begun(wait=True)
        return self._piece, self._receive()

    def stop(self) -> None:
        """Ends the process, whatever it is doing."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()

    def _receive(self) -> Any:
        try:
            found = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(found, NmtError):
            raise found
        return found

    def _death(self) -> NmtError:
        self._process.join(timeout=5)
        how = f"a worker process died (exit code {self._process.exitcode}), perhaps for want of memory"
        return NmtError(f"{how}: run it again with fewer workers (a single one works in this process)")


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """A process started in the block does not hear Ctrl-C, not even while it imports; ours hears it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which listens to signals again, and is otherwise started by the first process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(make: Make[Any, Any], pipe: Connection) -> None:
    """The life of a worker: it ends when the pipe does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    with suppress(EOFError, OSError):
        try:
            do = make()
            pipe.send(None)  # ready
            while True:
                pipe.send(do(pipe.recv()))
        except NmtError as error:
            pipe.send(error)
