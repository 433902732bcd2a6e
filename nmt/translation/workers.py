"""Who translates the batches: this process, or several workers; and when it pays to start them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from nmt.errors import NmtError
from nmt.processes import Work, affordable, cores, working, working_here_first
from nmt.translation.batching import Batch, Flow

WORTH = 10.0  # seconds of work, done or known to be waiting, from which on workers make up for what starting them costs

Item = TypeVar("Item")
Found = TypeVar("Found")
Answer = Callable[[Batch[Item]], list[Found]]


class Hands:
    """How many processes share the work, and from when on."""

    def __init__(self, device: torch.device, workers: int | None, threads: int, several: bool) -> None:
        """So many workers with so many threads each, from the first batch on.

        None is as many as there are cores and memory for, once they pay; until then, and where `several` processes
        cannot have the same translator or the device is no CPU, this process works alone. Raises `NmtError` for more
        than one where there can be but one.
        """
        if workers is not None and workers > 1 and device.type != "cpu":
            raise NmtError(f"--workers {workers}: workers share the cores of a CPU; to use several GPUs, see --shard")
        if workers is not None and workers > 1 and not several:
            raise NmtError("workers > 1: each worker loads the model itself: take a translator made by Translator.load")
        alone = device.type != "cpu" or not several
        self._started = workers is not None
        self.workers = workers or (1 if alone else affordable(min(cores(), torch.get_num_threads())))
        self.threads = threads

    def each(self, lines: int, most: int) -> int:
        """The size of batches for so many lines: `most`, or fewer so that every worker has something to do."""
        return min(most, -(-lines // self.workers)) if self._started else most

    @contextmanager
    def at_work(
        self, do: Answer[Item, Found], make: Callable[[], Answer[Item, Found]], flow: Flow[Item, Found]
    ) -> Iterator[Work[Batch[Item], list[Found]]]:
        """Gives what answers batches, by `do` in this process, and by what `make` gives in a worker."""

        def pays(seconds: float, done: int) -> bool:
            left = flow.waiting
            self._started = self._started or (left >= self.workers and seconds / done * (done + left) > WORTH)
            return self._started

        if self.workers == 1 or self._started:
            with working(make if self.workers > 1 else lambda: do, self.workers) as work:
                yield work
        else:
            with working_here_first(do, make, self.workers, pays) as work:
                yield work
