"""Lines in, what is found for each out, in order: windows of lines as they come, sorted by length, in batches.

Nothing here knows what is done with a batch, nor by how many processes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from nmt.processes import Work
from nmt.text import Arriving

WINDOW = 32  # batches of lines read ahead and sorted by length
LONG = 128  # tokens a line, from which on fewer lines make a batch, so that its memory stays what it was

Item = TypeVar("Item")
Found = TypeVar("Found")

Batch = list[Item]
"""What goes through the search together."""


class Window(Generic[Item, Found]):
    """Items that came together, in batches of about equal size; and what is known of each so far."""

    def __init__(
        self, items: Sequence[Item], sizes: Sequence[int], blank: Found, most: int, lines: int | None = None
    ) -> None:
        """`sizes` are tokens. For an item without any `blank` is found; the others make batches of at most `most`.

        The items are so many `lines`, or pieces of these.
        """
        self._items = items
        order = sorted((i for i, size in enumerate(sizes) if size), key=lambda i: sizes[i])
        batches = list(cut(order, sizes, most))
        # The longest go first, so that at the end no worker is long at work alone. Where all are blank there is an
        # empty batch nevertheless: the turn of its window.
        self._places = batches[::-1] or [[]]
        self._due = deque(self._places)
        self._found: list[Found | None] = [None if size else blank for size in sizes]
        self._given = 0
        # How many more are done than will be told of: blank ones, less what lines in pieces are told of too often.
        self.done = (len(items) if lines is None else lines) - len(order)

    def __len__(self) -> int:
        """How many batches have not come back yet."""
        return len(self._due)

    def __iter__(self) -> Iterator[Batch[Item]]:
        for places in self._places:
            yield [self._items[i] for i in places]

    def put(self, found: Iterable[Found]) -> Iterator[Found]:
        """Takes what was found for the next batch; gives what is now known of items whose turn has come."""
        for place, one in zip(self._due.popleft(), found, strict=True):
            self._found[place] = one
        while self._given < len(self._found) and (known := self._found[self._given]) is not None:
            yield known
            self._given += 1


def cut(order: Sequence[int], lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """The lines of `order`, sorted by length, in batches of at most `size`; of fewer where lines are very long."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) == size or (len(batch) + 1) * lengths[i] > size * LONG):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def windows(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """The lines, `size` at a time; of those that are `Arriving`, as many as have come.

    An empty window says that the next may be long in coming: what is under way is to be finished first. What reading
    raises is raised after all lines before it.
    """
    if not isinstance(lines, Arriving):
        yield from _full_windows(lines, size)
        return
    while window := lines.take(size):
        while window:
            yield window
            window = lines.take(size, wait=False)
        yield []


def _full_windows(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    window: list[str] = []
    try:
        for line in lines:
            window.append(line)
            if len(window) == size:
                yield window
                window = []
    except Exception:
        if window:
            yield window
        raise
    if window:
        yield window


class Flow(Generic[Item, Found]):
    """The way of windows through work, and what is found for each line out of it, in order."""

    def __init__(self, windows: Iterable[Window[Item, Found] | None], done: Callable[[int], object]) -> None:
        """A window that is None stands for the empty one of `windows`.

        `done` is told how many more lines are done as soon as they are, whether their turn has come or not.
        """
        self._windows, self._tell = windows, done
        self._under_way = deque[Window[Item, Found]]()

    @property
    def waiting(self) -> int:
        """How many batches have come that nothing has been found for yet."""
        return sum(map(len, self._under_way))

    def through(self, work: Work[Batch[Item], list[Found]]) -> Iterator[Found]:
        """What `work` finds for each line."""
        for batch, found in work(self._batches()):
            self._tell(len(batch))
            window = self._under_way[0]  # batches come back in their order
            yield from window.put(found)
            if not len(window):
                self._under_way.popleft()

    def _batches(self) -> Iterator[Batch[Item] | None]:
        try:
            for window in self._windows:
                if window is None:
                    yield None
                else:
                    self._under_way.append(window)
                    self._tell(window.done)
                    yield from window
        except Exception:
            yield None  # the lines before a fault are not lost
            raise
