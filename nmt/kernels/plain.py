"""The kernels in PyTorch: what `decoding.c` has to agree with, and what is used where there is no compiler.

Axes: R rows, W their width, H heads, K width of a head's keys, V of its values, P keys that a query sees.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nmt.kernels.forms import MIDDLE, Eight, Norm, Product, Rows, Seen


class Plain:
    """`Kernels`, a line or two each."""

    few = 0

    def multiply(self, x: Eight, matrix: Tensor, total: Tensor, scale: Tensor) -> Tensor:
        """In fp64, where the sums are exact too."""
        sums = x.values.double() @ matrix.double().T - x.zero * total
        return sums.float() * scale

    def reduce(self, x: Tensor) -> Eight:
        """In 8 bits."""
        return _eight(x)

    def settle(self, product: Product) -> Tensor:
        """y · scale + bias."""
        y, scale, bias = product
        y = y if scale is None else y.mul_(scale[:, None])
        return y if bias is None else y.add_(bias)

    def norm(self, x: Tensor, product: Product | None, norm: Norm, *, pre: bool, eight: bool) -> Rows:
        """The norm of x + product; x becomes the sum if `pre`, else the norm."""
        if product is not None:
            x += self.settle(product)
        if norm.bias is None:
            normed = F.rms_norm(x, x.shape[-1:], norm.gain, norm.epsilon)
        else:
            normed = F.layer_norm(x, x.shape[-1:], norm.gain, norm.bias, norm.epsilon)
        if not pre:
            x.copy_(normed)
        return _in(eight, normed)

    def activate(self, product: Product, kind: str, *, eight: bool) -> Rows:
        """relu, gelu, or silu of the first half times the second."""
        y = self.settle(product)
        if kind == "swiglu":
            gate, value = y.chunk(2, -1)
            return _in(eight, F.silu(gate) * value)
        return _in(eight, F.gelu(y)) if kind == "gelu" else _in(eight, y.relu_(), positive=True)

    def attend(self, q: Tensor, seen: Seen, heads: int, k_width: int, *, eight: bool) -> Rows:
        """softmax(q kᵀ / √K) v, with keys and values gathered for each query."""
        place = torch.arange(int(seen.count.max()), device=q.device)
        there = place < seen.count[:, None]
        if seen.index is not None:
            which = seen.index[:, : len(place)]
        else:
            assert seen.begin is not None
            which = seen.begin[:, None] + place
        kv = seen.kv[which.masked_fill(~there, 0).long()]  # [R, P, H (K + V)]
        keys = heads * k_width
        k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (kv[..., :keys], kv[..., keys:]))
        scores = (q.unflatten(1, (heads, 1, k_width)) @ k.transpose(2, 3)) / math.sqrt(k_width)
        weights = scores.masked_fill(~there[:, None, None], -torch.inf).softmax(-1)
        return _in(eight, (weights @ v).flatten(1))

    def top(self, product: Product, most: int, never: Tensor, end: int, only_end: Tensor) -> tuple[Tensor, Tensor]:
        """log softmax, and the largest of it."""
        logits = self.settle(product)
        log_z = logits.logsumexp(-1, keepdim=True)
        logits[:, never] = -torch.inf
        ends = logits[only_end, end]
        logits[only_end] = -torch.inf
        logits[only_end, end] = ends
        count = min(most, logits.shape[1])
        log_p, ids = logits.topk(count, dim=1)
        log_p = F.pad(log_p - log_z, (0, most - count), value=-torch.inf)
        return log_p, F.pad(ids, (0, most - count)).masked_fill(log_p == -torch.inf, end)


def _in(eight: bool, x: Tensor, positive: bool = False) -> Rows:
    return _eight(x, positive) if eight else x


def _eight(x: Tensor, positive: bool = False) -> Eight:
    """Rows x [R, W] in 8 bits; from 0 up they have twice the steps of rows that may be negative."""
    steps, zero = (255, 0) if positive else (MIDDLE - 1, MIDDLE)
    most = x.abs().amax(-1, keepdim=True)
    times = torch.where(most > 0, steps / most, 0)
    return Eight((x * times + zero + 0.5).to(torch.uint8), most[:, 0] / steps, zero)
