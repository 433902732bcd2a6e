"""Multi-head attention (Vaswani et al. 2017, section 3.2).

One path serves self, cross, cached and uncached attention: `Attention` projects and is handed the keys and values it
looks at; a *view* says which query may see which key, and only views know how a stream is cut.

Axes: T tokens (Tq of the queries, Tk of the keys), S sentences, B queries of a sentence in one step of decoding,
L length of the longest sentence, H heads, K width of a head, D = d_model.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.model.streams import Cut


class View(Protocol):
    """Which query sees which key."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attends: queries [Tq, H, K], keys and values in the form that the view asks for; gives [Tq, H, K]."""
        ...


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √K + mask) v: equation 1 of the paper, the softmax in fp32.

    q [N, Lq, K], k and v [N, Lk, K], mask [1 or N, 1 or Lq, Lk] of 0 and -inf in q's type; gives [N, Lq, K].
    """
    scale = 1 / math.sqrt(q.shape[-1])
    if mask is None:
        scores = torch.bmm(q, k.transpose(1, 2)) * scale
    else:
        scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1, dtype=torch.float32).to(v.dtype), v)


@dataclass(frozen=True, eq=False)
class Packed:
    """Both sides are packed streams of the same number of sentences; `causal` hides what comes after the query."""

    queries: Cut
    keys: Cut
    causal: bool = False

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [Tq, H, K], k and v [Tk, H, K]; gives [Tq, H, K]."""
        if _kernel_takes(q):
            return self._varlen(q, k, v)
        heads = q.shape[1]
        queries, keys = self.queries.grid(heads), self.keys.grid(heads)
        mask = self._mask.to(q.dtype)
        if len(mask) > 1:
            mask = mask.repeat_interleave(heads, 0)
        return queries.unpad(attend(queries.pad(q), keys.pad(k), keys.pad(v), mask))

    def _varlen(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The variable-length kernel of CUDA: no padding at all."""
        from torch.nn.attention.varlen import varlen_attn

        window = (-1, 0) if self.causal else (-1, -1)
        sizes = (self.queries.offsets, self.keys.offsets, self.queries.longest, self.keys.longest)
        return cast(Tensor, varlen_attn(q, k, v, *sizes, window_size=window))

    @cached_property
    def _mask(self) -> Tensor:
        """[1, L, L] when causal (the padding lies in the future), else [S, 1, Lk]; 0 where seen, -inf where not."""
        if self.causal:
            size = self.queries.longest
            seen = torch.ones(1, size, size, dtype=torch.bool, device=self.queries.offsets.device).tril()
        else:
            seen = self.keys.filled[:, None, :]
        return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, -math.inf)


def _kernel_takes(q: Tensor) -> bool:
    """Whether CUDA's variable-length kernel can work with such queries [T, H, K]; else they go the padded way."""
    if not q.is_cuda or q.dtype != torch.bfloat16:
        return False
    return q.shape[-1] % 8 == 0 and q.shape[-1] <= 256 and torch.cuda.get_device_capability(q.device) >= (8, 0)


@dataclass(frozen=True, eq=False)
class Rows:
    """One step of decoding: B queries for each of N rows of keys that lie padded; `mask` [N, 1, Lk] hides the padding.

    Self-attention has one query a row (each hypothesis its own past); cross-attention has the beams of a sentence as
    queries to its one source.
    """

    mask: Tensor | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [N·B, H, K], k and v [N, H, Lk, K]; gives [N·B, H, K]."""
        n, heads, length, width = k.shape
        q = q.view(n, -1, heads, width).transpose(1, 2).reshape(n * heads, -1, width)
        mask = None if self.mask is None else self.mask.to(q.dtype).repeat_interleave(heads, 0)
        out = attend(q, k.reshape(n * heads, length, width), v.reshape(n * heads, length, width), mask)
        return out.view(n, heads, -1, width).transpose(1, 2).reshape(-1, heads, width)


class Attention(nn.Module):
    """Multi-head attention: project, attend, project back; section 3.2.2.

    The three input projections lie in one matrix [3 D, D], so that self-attention is a single product.
    """

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)
        for matrix in self.inputs.weight.chunk(3):  # each is a projection of its own, and is scaled as one
            nn.init.xavier_uniform_(matrix)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.inputs.bias)
        nn.init.zeros_(self.output.bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [T, H, K] of one stream x [T, D]."""
        q, k, v = self.inputs(x).unflatten(-1, (3, self.heads, -1)).unbind(1)
        return q, k, v

    def queries(self, x: Tensor) -> Tensor:
        """Queries [T, H, K] of the stream x [T, D] that looks."""
        d = x.shape[-1]
        return F.linear(x, self.inputs.weight[:d], self.inputs.bias[:d]).unflatten(-1, (self.heads, -1))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [T, H, K] of the stream x [T, D] that is looked at."""
        d = x.shape[-1]
        both = F.linear(x, self.inputs.weight[d:], self.inputs.bias[d:])
        k, v = both.unflatten(-1, (2, self.heads, -1)).unbind(1)
        return k, v

    def forward(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        """What the queries [Tq, H, K] find, [Tq, D]."""
        out: Tensor = self.output(view(q, k, v).flatten(1))
        return out
