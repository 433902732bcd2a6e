"""What updates are made of, made before it is asked for: a GPU waits for nobody."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

from nmt.data.batches import Chunk, Cursor, Ids

DEPTH = 2  # updates ahead: one may take longer than another, and on disk sleeps what nobody read yet


class Batch(NamedTuple):
    """What update `step` is made of, when the data goes on from `begin`.

    pairs: those of each chunk, by number. chunks: this process's own. tokens: source and target tokens of all chunks.
    """

    step: int
    begin: Cursor
    end: Cursor
    pairs: list[Ids]
    chunks: dict[int, Chunk]
    tokens: tuple[int, int]


class Ahead:
    """Gives batches, and makes the next `depth` of them in a thread meanwhile; a context manager.

    Only one is made at a time, so `make` need not be safe among threads. What it raises comes with the batch that is
    asked for. With a depth of 0 there is no thread: a CPU has enough to do.
    """

    def __init__(self, make: Callable[[int, Cursor], Batch], depth: int = DEPTH) -> None:
        self._make, self._depth = make, depth
        self._thread = ThreadPoolExecutor(1, "batches") if depth else None
        self._coming: deque[Future[Batch]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._thread:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def take(self, step: int, begin: Cursor) -> Batch:
        """The batch of this update; one that was not foreseen, as at the start and after a rewind, is made now."""
        if not self._thread:
            return self._make(step, begin)
        batch = self._coming.popleft().result() if self._coming else None
        if batch is None or batch[:2] != (step, begin):
            while self._coming:
                self._coming.popleft().cancel()
            batch = self._thread.submit(self._make, step, begin).result()
        while len(self._coming) < self._depth:
            self._coming.append(self._thread.submit(self._after, self._coming[-1] if self._coming else batch))
        return batch

    def _after(self, last: Future[Batch] | Batch) -> Batch:
        """The batch after this one, whose future is done, for there is but one thread."""
        done = last if isinstance(last, Batch) else last.result()
        return self._make(done.step + 1, done.end)
