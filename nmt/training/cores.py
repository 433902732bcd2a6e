"""Training on the cores of a CPU: chunks are computed side by side, and memory is kept for what comes next."""

import copy
import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from nmt.model.device import without_denormals
from nmt.model.transformer import Transformer

# What mallopt of the GNU C library is told; the larger threshold is the largest that it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = (-1, 2**31 - 1), (-3, 32 << 20)

Item = TypeVar("Item")
Found = TypeVar("Found")


class Lanes:
    """Models that share their weights, each with gradients of its own; the first is the one that is trained.

    Most of what lies between the products of a training step keeps one core busy, and threads that share a product wait
    for one another. Here each core goes its own way. Which lane an item takes, and the order in which gradients are
    added up, never change, so their sum is the same to the bit every time.
    """

    def __init__(self, model: Transformer, count: int = 1) -> None:
        self._models = [model, *(_twin(model) for _ in range(count - 1))]
        self._pool = ThreadPoolExecutor(count - 1, "lane") if count > 1 else None
        self._stopped = False

    def __len__(self) -> int:
        return len(self._models)

    def run(self, work: Callable[[Transformer, Item], Found], items: Sequence[Item]) -> list[Found]:
        """What `work` finds for each item with the model of a lane; the first gets the gradients of all.

        What `work` raises is raised here, once no lane is at work any more.
        """
        if not self._pool or len(items) == 1:
            with without_denormals():
                return [work(self._models[0], item) for item in items]
        self._stopped = False
        shares = [items[lane :: len(self)] for lane in range(len(self))]
        with self.apart():
            others = [
                self._pool.submit(self._share, work, model, share)
                for model, share in zip(self._models[1:], shares[1:], strict=True)
            ]
            try:
                found = [self._share(work, self._models[0], shares[0])]
                found += [other.result() for other in others]
            finally:  # a signal or an error may come at any time
                self._stopped = True
                for other in others:
                    other.exception()
            self._add_up()
        return [found[place % len(self)][place // len(self)] for place in range(len(items))]

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within the block torch takes one thread, where there are lanes.

        What is small is done so, too: of threads that share it the first waits, busily, for the one that another
        program has put off its core, and on a busy machine that took twice the time of all else.
        """
        threads = torch.get_num_threads()
        if self._pool:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def _share(
        self, work: Callable[[Transformer, Item], Found], model: Transformer, items: Sequence[Item]
    ) -> list[Found]:
        torch.set_num_threads(1)  # of this thread
        with without_denormals():
            if model is not self._models[0]:
                model.zero_grad()  # of an update that was left half done
            return [work(model, item) for item in items if not self._stopped]

    def _add_up(self) -> None:
        for first, *others in zip(*(model.parameters() for model in self._models), strict=True):
            for other in others:
                if other.grad is not None:
                    first.grad = other.grad if first.grad is None else first.grad.add_(other.grad)
                    other.grad = None


def at_once(device: torch.device) -> int:
    """How many chunks are computed side by side: on a GPU one, on a CPU as many as torch may take threads."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def keep_memory() -> None:
    """Has freed memory kept, where the system's C library can be told to; it is the same that is asked for next.

    Else it goes back to the system and comes again page by page: a twentieth of the time of training on a CPU.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            libc.mallopt(*option)


def _twin(model: Transformer) -> Transformer:
    """The same model, of the same weights in the same memory, for gradients of its own."""
    shared = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, shared).train()
