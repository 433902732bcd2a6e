"""Views: which query sees which key, and how a packed stream is laid out so that equation 1 can be computed.

Only here is it known how a stream is cut.

Axes: T tokens (Tq of the queries, Tk of the keys), S sentences, N sentences times heads, B queries of a sentence in one
step of decoding, L length of the longest sentence, H heads, K width of a head's queries and keys, V of its values,
W width of a block, C blocks.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import Tensor

from nmt.kernels import gradients
from nmt.model.attention import DotProduct, View
from nmt.model.device import has_bf16
from nmt.model.streams import Cut, sent
from nmt.recipe import Model


def self_view(config: Model, cut: Cut, causal: bool = False) -> View:
    """How the sentences of a stream see themselves; `causal` hides what comes after the query."""
    reach = config.window // 2
    if config.window and cut.longest > reach + 1:
        return Banded(cut, reach, causal)
    return Packed(cut, cut, causal)


@dataclass(frozen=True, eq=False)
class Packed:
    """Both sides are packed streams of the same number of sentences; `causal` hides what comes after the query."""

    queries: Cut
    keys: Cut
    causal: bool = False

    @property
    def positions(self) -> Tensor:
        """The place [Tq] of each query in its sentence."""
        return self.queries.positions

    @property
    def longest(self) -> int:
        """Above every place."""
        return self.queries.longest

    def __call__(self, core: DotProduct, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [Tq, H, K], k [Tk, H, K], v [Tk, H, V]; gives [Tq, H, V]."""
        if _kernel_takes(core, q, v):
            return _varlen(q, k, v, self.queries, self.keys, (-1, 0) if self.causal else (-1, -1))
        if core.bare and gradients.takes_heads(q, v):
            return gradients.attention(q, k, v, self.queries.offsets, self.keys.offsets, self.causal)
        heads = q.shape[1]
        queries, keys = self.queries.grid(heads), self.keys.grid(heads)
        mask = _for_heads(self._mask, heads, q.dtype)
        return queries.unpad(core(queries.pad(q), keys.pad(k), keys.pad(v), mask, 0))

    @cached_property
    def _mask(self) -> Tensor:
        """[1, L, L] when causal (the padding lies in the future), else [S, 1, Lk]; 0 where seen, -inf where not."""
        if self.causal:
            size = self.queries.longest
            return _hidden(torch.ones(1, size, size, dtype=torch.bool, device=self.queries.offsets.device).triu(1))
        return _hidden(~self.keys.filled[:, None, :])


@dataclass(frozen=True, eq=False)
class Banded:
    """Restricted self-attention: each query sees the keys at most `reach` away (section 4 of the paper).

    Sentences are cut into blocks of `reach` tokens, and a block sees itself and its neighbours: the cost is that of
    T · 3 reach products, not of T · L.
    """

    cut: Cut
    reach: int
    causal: bool = False

    @property
    def positions(self) -> Tensor:
        """The place [T] of each query in its sentence."""
        return self.cut.positions

    @property
    def longest(self) -> int:
        """Above every place."""
        return self.cut.longest

    def __call__(self, core: DotProduct, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q and k [T, H, K], v [T, H, V]; gives [T, H, V]."""
        if _kernel_takes(core, q, v):
            return _varlen(q, k, v, self.cut, self.cut, (self.reach, 0 if self.causal else self.reach))
        heads = q.shape[1]
        grid = self._blocks.grid(heads)
        keys, values = (self._with_neighbours(grid.pad(x), heads) for x in (k, v))
        mask = _for_heads(self._mask, heads, q.dtype)
        return grid.unpad(core(grid.pad(q), keys, values, mask, grid.length))

    @cached_property
    def _blocks(self) -> Cut:
        """The stream cut into blocks, as though they were sentences."""
        width = max(self.reach, 1)
        counts = -(-self.cut.lengths // width)
        lengths = np.full(counts.sum(), width)
        lengths[counts.cumsum() - 1] = self.cut.lengths - (counts - 1) * width
        return Cut.of(lengths, self.cut.offsets.device)

    @cached_property
    def _neighbours(self) -> tuple[Tensor, Tensor]:
        """Of each block the one before, itself and, unless causal, the one after, [C, 2 or 3]; and which there are."""
        counts = -(-self.cut.lengths // max(self.reach, 1))
        block = np.arange(counts.sum())[:, None] + np.arange(-1, 1 if self.causal else 2)
        sentence = np.repeat(np.arange(len(counts)), counts)
        inside = block.clip(0, len(sentence) - 1)
        there = (block == inside) & (sentence[inside] == sentence[:, None])
        device = self.cut.offsets.device
        return sent(inside, device), sent(there, device)

    def _with_neighbours(self, x: Tensor, heads: int) -> Tensor:
        """[C·H, 2 or 3 W, K] for blocks [C·H, W, K]."""
        which, _ = self._neighbours
        apart = x.unflatten(0, (-1, heads)).index_select(0, which.flatten()).unflatten(0, which.shape)
        return apart.transpose(1, 2).flatten(0, 1).flatten(1, 2)

    @cached_property
    def _mask(self) -> Tensor:
        """[C, W, 2 or 3 W]; a query that is none sees itself, for a softmax over nothing would be no number."""
        which, there = self._neighbours
        filled, width = self._blocks.filled, self._blocks.longest
        device = filled.device
        distance = torch.arange(which.shape[1] * width, device=device) - width
        distance = distance - torch.arange(width, device=device)[:, None]
        near = (distance <= 0 if self.causal else distance <= self.reach) & (distance >= -self.reach)
        seen = near & (filled[which] & there[:, :, None]).flatten(1)[:, None]
        return _hidden(~(seen | (distance == 0)))


@dataclass(frozen=True, eq=False)
class Rows:
    """One step of decoding: B queries for each of S rows of keys that lie padded; `mask` [S, 1, Lk] hides the padding.

    Self-attention has one query a row (each hypothesis its own past), the last of its keys, at `place`; cross-attention
    has the beams of a sentence as queries to its one source.
    """

    mask: Tensor | None = None
    place: Tensor | None = None
    longest: int = 0

    @property
    def positions(self) -> Tensor:
        """The place [Tq] of each query in its sentence."""
        assert self.place is not None
        return self.place

    def __call__(self, core: DotProduct, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [S·B, H, K], k [S, H, Lk, K], v [S, H, Lk, V]; gives [S·B, H, V]."""
        n, heads, length, _ = k.shape
        q = q.unflatten(0, (n, -1)).transpose(1, 2).flatten(0, 1)
        mask = None if self.mask is None else _for_heads(self.mask, heads, q.dtype)
        out: Tensor = core(q, k.flatten(0, 1), v.flatten(0, 1), mask, length - 1)
        return out.unflatten(0, (n, heads)).transpose(1, 2).flatten(0, 1)


def _hidden(cells: Tensor) -> Tensor:
    """-inf where `cells` is true, else 0."""
    return torch.zeros(cells.shape, device=cells.device).masked_fill(cells, -math.inf)


def _for_heads(mask: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """A mask of sentences [1 or S, …] as one of sentences times heads [1 or N, …]."""
    mask = mask.to(dtype)
    return mask if len(mask) == 1 else mask.repeat_interleave(heads, 0)


def why_padded(config: Model, device: torch.device, precision: torch.dtype) -> str | None:
    """What keeps training from the variable-length kernel of GPUs, in words; None where nothing does."""
    if device.type != "cuda" or not has_bf16(device):
        return f"{device}, which is no GPU that multiplies bf16"
    if precision != torch.bfloat16:
        return "train.precision: fp32"
    if config.positions in ("alibi", "relative"):
        return f"model.positions: {config.positions}"
    if config.attention_dropout:
        return f"model.attention_dropout: {config.attention_dropout}"
    if config.key_width != config.value_width:
        return f"model.d_k: {config.key_width} and model.d_v: {config.value_width}, which differ"
    if config.key_width % 8 or config.key_width > 256:
        return f"heads of width {config.key_width}, which is no multiple of 8 up to 256"
    return None


def packed_on_cpu(config: Model) -> bool:
    """Whether training on a CPU keeps streams packed in attention too, by our own kernel, where there is a compiler."""
    bare = config.positions not in ("alibi", "relative") and not config.attention_dropout
    alike = config.key_width == config.value_width and config.key_width % gradients.LANES == 0
    return bare and alike and gradients.at_hand()


def _kernel_takes(core: DotProduct, q: Tensor, v: Tensor) -> bool:
    """Whether CUDA's variable-length kernel can do the work for queries [T, H, K] and values [T, H, V]."""
    width = q.shape[-1]
    if not q.is_cuda or q.dtype != torch.bfloat16 or not core.bare:
        return False
    fits = width == v.shape[-1] and width % 8 == 0 and width <= 256
    return fits and has_bf16(q.device)


def _varlen(q: Tensor, k: Tensor, v: Tensor, queries: Cut, keys: Cut, window: tuple[int, int]) -> Tensor:
    """The variable-length kernel of CUDA: no padding at all. `window`: keys seen before and after; -1 is all."""
    from torch.nn.attention.varlen import varlen_attn

    sizes = (queries.offsets, keys.offsets, queries.longest, keys.longest)
    return cast(Tensor, varlen_attn(q, k, v, *sizes, window_size=window))
