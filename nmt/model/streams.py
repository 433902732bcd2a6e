"""Packed streams: sentences lie end to end in one stream of tokens, so there is no padding to compute on.

Axes: T tokens of the stream, S sentences, L length of the longest sentence, H heads, K width of a head.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Cut:
    """How a stream of T tokens is cut into S sentences.

    lengths: [S] on the host. offsets: [S+1] int32, where each sentence begins, and T. positions: [T], the place of each
    token in its sentence.
    """

    lengths: NDArray[np.int64]
    offsets: Tensor
    positions: Tensor

    @classmethod
    def of(cls, lengths: NDArray[np.int64], device: torch.device | str = "cpu") -> "Cut":
        """The cut of sentences of these lengths [S], each at least 1, with its tensors on `device`."""
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return cls(lengths, sent(offsets.astype(np.int32), device), sent(positions, device))

    @property
    def sentences(self) -> int:
        """S."""
        return len(self.lengths)

    @cached_property
    def longest(self) -> int:
        """L, in tokens."""
        return int(self.lengths.max())

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        """[T] on the host: the cell of each token in the padded [S, L] grid, counted row by row."""
        starts = np.cumsum(self.lengths) - self.lengths
        shift = np.arange(self.sentences) * self.longest - starts
        return np.asarray(np.arange(int(self.lengths.sum())) + np.repeat(shift, self.lengths))

    @cached_property
    def filled(self) -> Tensor:
        """[S, L] bool: which cells of the padded grid hold a token."""
        return sent(np.arange(self.longest) < self.lengths[:, None], self.offsets.device)

    def grid(self, heads: int) -> "Grid":
        """The padded grid with the heads taken apart; made once, used by every layer."""
        if heads not in self._grids:
            self._grids[heads] = Grid.of(self, heads)
        return self._grids[heads]

    @cached_property
    def _grids(self) -> "dict[int, Grid]":
        return {}


@dataclass(frozen=True, eq=False)
class Grid:
    """The way from a stream [T, H, K] to its padded grid [S·H, L, K] and back, by rows of K numbers.

    to_grid: [S·H·L], the row of the stream for each cell (any row for an empty one). to_stream: [T·H], its inverse.
    empty: the cells that hold no token.
    """

    to_grid: Tensor
    to_stream: Tensor
    empty: Tensor
    heads: int
    length: int

    @classmethod
    def of(cls, cut: Cut, heads: int) -> "Grid":
        """The grid of a cut for this many heads."""
        sentence, place = np.divmod(cut.cells, cut.longest)
        to_stream = ((sentence[:, None] * heads + np.arange(heads)) * cut.longest + place[:, None]).ravel()
        to_grid = np.full(cut.sentences * heads * cut.longest, -1)
        to_grid[to_stream] = np.arange(len(to_stream))
        empty = np.flatnonzero(to_grid < 0)
        to_grid[empty] = 0
        device = cut.offsets.device
        return cls(sent(to_grid, device), sent(to_stream, device), sent(empty, device), heads, cut.longest)

    def pad(self, x: Tensor) -> Tensor:
        """x [T, H, K] as [S·H, L, K], with zeros in the empty cells."""
        out: Tensor = _Pad.apply(x, self)
        return out

    def unpad(self, x: Tensor) -> Tensor:
        """x [S·H, L, K] as the stream [T, H, K]."""
        out: Tensor = _Unpad.apply(x, self)
        return out

    def padded(self, x: Tensor) -> Tensor:
        """`pad`, outside autograd."""
        rows = x.reshape(-1, x.shape[-1]).index_select(0, self.to_grid)
        return rows.index_fill_(0, self.empty, 0).view(-1, self.length, x.shape[-1])

    def unpadded(self, x: Tensor) -> Tensor:
        """`unpad`, outside autograd."""
        rows = x.reshape(-1, x.shape[-1]).index_select(0, self.to_stream)
        return rows.view(-1, self.heads, x.shape[-1])


class _Pad(torch.autograd.Function):
    """Padding and unpadding are each other's transpose: two plain gathers, where autograd would add row by row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Grid) -> Tensor:
        ctx.grid = grid
        return grid.padded(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.grid.unpadded(grad), None


class _Unpad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Grid) -> Tensor:
        ctx.grid = grid
        return grid.unpadded(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.grid.padded(grad), None


def sent(array: NDArray[Any], device: torch.device | str) -> Tensor:
    """The array as a tensor on the device; nobody waits for the way to a GPU, for it goes from pinned memory.

    On a CPU the memory is that of the array.
    """
    tensor = torch.from_numpy(array)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
