"""Several processes that train one model together, as `torchrun` starts them; most often there is but one.

Each has the whole model (or a share of it: `nmt.training.sharding`) and computes some chunks of every update. Their
gradients are summed, once an update, so that all take the same step. Only the first says anything, and writes.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from nmt.errors import LostError

BUCKET = 1 << 24  # numbers that are summed at once: 64 MB, so that little memory is needed beside the gradients


class World(NamedTuple):
    """The processes of one training: how many there are, and which of them this is."""

    size: int = 1
    rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return self.rank == 0

    def share(self, chunks: int) -> range:
        """Which of the chunks of an update are this process's: every `size`-th, for they are sorted by length."""
        return range(self.rank, chunks, self.size)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Puts in the place of each tensor the sum of all processes' own; all must call it with the same shapes.

        Every process gets the same bits. Raises `LostError` where another one is gone.
        """
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            with told():
                dist.all_reduce(flat)
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather(self, value: Any) -> list[Any]:
        """What each process gave, in the order of their ranks. Raises `LostError` where another one is gone."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with told():
            dist.all_gather_object(values, value)
        return values


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The processes that `torchrun` has started, this one among them; one alone where it has not."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # the only one srun lets it see has no number
    with told():
        # The others wait while the first measures the valid corpus; that one is gone is seen long before.
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=30))
    try:
        yield World(dist.get_world_size(), dist.get_rank())
    finally:
        dist.destroy_process_group()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in groups of about `BUCKET` numbers, each of one type."""
    bucket: list[Tensor] = []
    numbers = 0
    for tensor in tensors:
        if bucket and (numbers + tensor.numel() > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, numbers = [], 0
        bucket.append(tensor)
        numbers += tensor.numel()
    if bucket:
        yield bucket


@contextmanager
def told(computing: bool = False) -> Iterator[None]:
    """Says in words that another process is gone, for the engine says it in many lines, and each in its own way.

    `computing`: the block does other things too, whose errors are left as they are.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # DistBackendError and its like are RuntimeErrors
        if computing and not re.search("gloo|nccl", f"{type(error).__name__} {error}", re.IGNORECASE):
            raise
        raise gone(str(error).splitlines()[0][:200] if str(error) else type(error).__name__) from error


def gone(why: str) -> LostError:
    """What is told of another process that is gone."""
    return LostError(
        f"the processes of this training cannot reach one another, or one of them is gone ({why}): "
        "run it again, and it goes on from the last checkpoint"
    )
