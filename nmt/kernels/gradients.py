"""Kernels with gradients (`gradients.c`): what a Transformer does on a CPU between its matrix products when it learns.

They are for machines with a compiler and for tensors in fp32 or bf16 (`at_hand`), and compute in fp32. Elsewhere the
same is done in PyTorch by those who ask for them.

Axes: T tokens of a stream (Tq of the queries, Tk of the keys), S sentences, H heads, K width of a head, V vocabulary.
"""

from ctypes import CDLL, c_float, c_int, c_int64, c_void_p
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from nmt.kernels.build import library

KINDS = (torch.float32, torch.bfloat16)
LANES = 16  # numbers in a vector: heads are whole vectors wide
ARGUMENTS: dict[str, list[Any]] = {
    "attention": [*[c_int64] * 3, *[c_void_p] * 2, c_int, *[c_void_p, c_int64] * 3, c_int, *[c_void_p] * 2],
    "attention_back": [*[c_int64] * 3, *[c_void_p] * 2, c_int, *[c_void_p, c_int64] * 3, *[c_void_p] * 2,
                       *[c_void_p, c_int64] * 3],
    "thin": [c_int64, c_int, c_void_p, c_void_p, c_int, c_float, c_int, c_void_p, c_void_p],
    "cross_entropy": [c_int64, c_int64, c_int, c_void_p, c_void_p, c_float, c_void_p],
}  # fmt: skip


@cache
def _functions() -> dict[str, Any]:
    """The compiled functions by name; none where there is no compiler."""
    return {} if (compiled := library()) is None else {name: _typed(compiled, name) for name in ARGUMENTS}


def _typed(compiled: CDLL, name: str) -> Any:
    function = getattr(compiled, f"nmt_{name}")
    function.argtypes, function.restype = ARGUMENTS[name], None
    return function


def at_hand(*tensors: Tensor) -> bool:
    """Whether the kernels can take these."""
    return all(x.dtype in KINDS and x.device.type == "cpu" for x in tensors) and bool(_functions())


def takes_heads(q: Tensor, v: Tensor) -> bool:
    """Whether `attention` can take queries [Tq, H, K] and values [Tk, H, K]."""
    alike = q.shape[-1] == v.shape[-1] and q.dtype == v.dtype
    return alike and q.shape[-1] % LANES == 0 and at_hand(q, v)


def attention(q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, causal: bool = False) -> Tensor:
    """softmax(q kᵀ / √K) v within each sentence, without padding: [Tq, H, K] for q [Tq, H, K], k and v [Tk, H, K].

    Sentence s has the queries from queries[s] to queries[s + 1], and so the keys; both are int32, [S + 1]. `causal`:
    query i sees keys 0 to i.
    """
    return cast(Tensor, _Attention.apply(q, k, v, queries, keys, causal))


def thinned(x: Tensor, draws: Tensor, least: int, scale: float, to: Tensor | None = None) -> Tensor:
    """Dropout, x times `scale` where draws, 16-bit numbers, are at least `least`, else 0; added to `to`, if given.

    What comes out is of the type of `to`, else of x.
    """
    return cast(Tensor, _Thinned.apply(x, draws, least, scale, to))


def cross_entropy_(logits: Tensor, said: Tensor, smoothing: float) -> Tensor:
    """The label-smoothed loss of logits [T, V] against ids [T], and -log p, [2] in fp64; logits become its gradient."""
    sums = torch.zeros(2, dtype=torch.float64)
    told = (said.data_ptr(), smoothing, sums.data_ptr())
    _functions()["cross_entropy"](*logits.shape, _half(logits), logits.data_ptr(), *told)
    return sums


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, causal: bool) -> Tensor:
        q, k, v = (_rows(x) for x in (q, k, v))
        cells = queries.diff() @ (-(keys.diff() // -LANES) * LANES)  # queries times keys, in whole vectors
        weights, out = torch.empty(q.shape[1] * int(cells)), torch.empty(q.shape, dtype=q.dtype)
        _functions()["attention"](*_where(q, k, v, queries, keys), causal, weights.data_ptr(), out.data_ptr())
        ctx.save_for_backward(q, k, v, queries, keys, weights)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *given, weights = ctx.saved_tensors
        found = [torch.empty(x.shape, dtype=x.dtype) for x in given[:3]]
        to = [number for x in found for number in (x.data_ptr(), x.stride(0))]
        grad = grad.contiguous()
        _functions()["attention_back"](*_where(*given), weights.data_ptr(), grad.data_ptr(), *to)
        return *found, None, None, None


class _Thinned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, draws: Tensor, least: int, scale: float, to: Tensor | None) -> Tensor:
        ctx.save_for_backward(draws)
        ctx.least, ctx.scale, ctx.adds, ctx.dtype = least, scale, to is not None, x.dtype
        return _thin(x, draws, least, scale, to, x.dtype if to is None else to.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (draws,) = ctx.saved_tensors
        return _thin(grad, draws, ctx.least, ctx.scale, None, ctx.dtype), None, None, None, grad if ctx.adds else None


def _thin(x: Tensor, draws: Tensor, least: int, scale: float, to: Tensor | None, dtype: torch.dtype) -> Tensor:
    x, out = x.contiguous(), torch.empty(x.shape, dtype=dtype)
    to = None if to is None else to.contiguous()
    given = (x.numel(), _half(x), x.data_ptr(), draws.data_ptr(), least, scale)
    _functions()["thin"](*given, _half(out), None if to is None else to.data_ptr(), out.data_ptr())
    return out


def _half(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16


def _rows(x: Tensor) -> Tensor:
    """x [T, H, K] such that the heads of a token lie side by side."""
    return x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous()


def _where(q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor) -> tuple[int, ...]:
    """How much there is, and where it lies."""
    at = [number for x in (q, k, v) for number in (x.data_ptr(), x.stride(0))]
    return len(queries) - 1, *q.shape[1:], queries.data_ptr(), keys.data_ptr(), _half(q), *at
