"""The kernels of decoding in C (`decoding.c`), handed the memory of tensors."""

from ctypes import CDLL, c_float, c_int, c_int32, c_int64, c_void_p
from typing import Any, cast

import torch
from torch import Tensor

from nmt.kernels.forms import MIDDLE, Eight, Norm, Product, Rows, Seen

KINDS = {"relu": 0, "gelu": 1, "swiglu": 2}
ARGUMENTS: dict[str, list[Any]] = {
    "reduce": [c_int64, c_int64, c_void_p, c_void_p, c_void_p],
    "multiply": [c_int64, c_int64, c_int64, c_void_p, c_int32, *[c_void_p] * 4],
    "settle": [c_int64, c_int64, c_void_p, c_void_p, c_void_p],
    "norm": [c_int64, c_int64, *[c_void_p] * 6, c_float, c_int, *[c_void_p] * 3],
    "activate": [c_int64, c_int64, *[c_void_p] * 3, c_int, *[c_void_p] * 3],
    "attend": [*[c_int64] * 4, c_void_p, c_int64, c_void_p, c_int64, c_void_p, c_int64, *[c_void_p] * 5],
    "top": [c_int64, c_int64, c_void_p, c_void_p, c_int64, c_void_p, c_int64, c_int64, *[c_void_p] * 3],
}


class Native:
    """`Kernels` of a compiled library. Tensors have to be fp32 on the CPU, contiguous but for queries."""

    def __init__(self, library: CDLL) -> None:
        for name, arguments in ARGUMENTS.items():
            function = getattr(library, f"nmt_{name}")
            function.argtypes, function.restype = arguments, None
            setattr(self, f"_{name}", function)
        library.nmt_few.restype = c_int64
        self.few = int(library.nmt_few())

    _reduce: Any
    _multiply: Any
    _settle: Any
    _norm: Any
    _activate: Any
    _attend: Any
    _top: Any

    def reduce(self, x: Tensor) -> Eight:
        """Rows in 8 bits."""
        found = _Results(x.shape[0], x.shape[1], eight=True)
        self._reduce(*x.shape, x.data_ptr(), *found.at[1:])
        return cast(Eight, found.rows)

    def multiply(self, x: Eight, matrix: Tensor, total: Tensor, scale: Tensor) -> Tensor:
        """The product of few rows."""
        y = torch.empty(len(x.values), len(matrix))
        self._multiply(len(y), matrix.shape[1], len(matrix), x.values.data_ptr(), x.zero, matrix.data_ptr(),
                       total.data_ptr(), scale.data_ptr(), y.data_ptr())  # fmt: skip
        return y

    def settle(self, product: Product) -> Tensor:
        """What the product means, in its own memory."""
        y, scale, bias = product
        if scale is not None or bias is not None:
            self._settle(*y.shape, y.data_ptr(), _at(scale), _at(bias))
        return y

    def norm(self, x: Tensor, product: Product | None, norm: Norm, *, pre: bool, eight: bool) -> Rows:
        """The norm of x + product; x becomes the sum if `pre`, else the norm."""
        y, scale, bias = (None, None, None) if product is None else product
        found = _Results(x.shape[0], x.shape[1], eight) if pre or eight else None
        gain, at = norm.gain.data_ptr(), (None, None, None) if found is None else found.at
        self._norm(*x.shape, x.data_ptr(), _at(y), _at(scale), _at(bias), gain, _at(norm.bias), norm.epsilon, pre, *at)
        return x if found is None else found.rows

    def activate(self, product: Product, kind: str, *, eight: bool) -> Rows:
        """relu, gelu, or silu of the first half times the second."""
        y, scale, bias = product
        width = y.shape[1] // 2 if kind == "swiglu" else y.shape[1]
        found = _Results(len(y), width, eight, zero=0 if kind == "relu" else MIDDLE)
        self._activate(len(y), width, y.data_ptr(), _at(scale), _at(bias), KINDS[kind], *found.at)
        return found.rows

    def attend(self, q: Tensor, seen: Seen, heads: int, k_width: int, *, eight: bool) -> Rows:
        """Equation 1 for each query and head."""
        kv, index = seen.kv, seen.index
        values = kv.shape[1] - heads * k_width
        found = _Results(len(q), values, eight)
        stride = 0 if index is None else index.stride(0)
        self._attend(len(q), heads, k_width, values // heads, q.data_ptr(), q.stride(0), kv.data_ptr(), kv.stride(0),
                     _at(index), stride, _at(seen.begin), seen.count.data_ptr(), *found.at)  # fmt: skip
        return found.rows

    def top(self, product: Product, most: int, never: Tensor, end: int, only_end: Tensor) -> tuple[Tensor, Tensor]:
        """Log p and ids of the likeliest tokens."""
        logits, scale, _ = product
        log_p = torch.empty(len(logits), most)
        ids = torch.empty(len(logits), most, dtype=torch.long)
        self._top(*logits.shape, logits.data_ptr(), _at(scale), most, never.data_ptr(), len(never), end,
                  only_end.data_ptr(), log_p.data_ptr(), ids.data_ptr())  # fmt: skip
        return log_p, ids


class _Results:
    """Memory for rows [R, W], in fp32 or in 8 bits, and where it lies."""

    def __init__(self, rows: int, width: int, eight: bool, zero: int = MIDDLE) -> None:
        self.at: tuple[int | None, int | None, int | None]
        if eight:
            values, scale = torch.empty(rows, width, dtype=torch.uint8), torch.empty(rows)
            self.rows: Rows = Eight(values, scale, zero)
            self.at = (None, values.data_ptr(), scale.data_ptr())
        else:
            h = torch.empty(rows, width)
            self.rows = h
            self.at = (h.data_ptr(), None, None)


def _at(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
