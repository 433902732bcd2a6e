"""Matrix products on a CPU, with the matrix laid out once as oneDNN likes it: in fp32, bf16 or 8 bits.

Axes: R rows, I their width, O the width of what comes out.
"""

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from nmt.kernels import Eight, Product, Rows, kernels

POST: tuple[str, list[float], str] = ("none", [], "")  # what oneDNN is to do with a product: nothing


class Matrix(Protocol):
    """x Wᵀ + b for rows x [R, I]."""

    def __call__(self, x: Rows) -> Product:
        """[R, O]; x in 8 bits where `eight`, else in fp32."""
        ...


class Fp32:
    """In single precision."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """weight [O, I], bias [O]."""
        self._bias = bias
        self._weight, self._packed = weight, torch.backends.mkldnn.is_available()
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)

    def __call__(self, x: Rows) -> Product:
        """In fp32."""
        if not self._packed:
            return Product(F.linear(cast(Tensor, x), self._weight, self._bias))
        return Product(torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, *POST))


class Bf16(Fp32):
    """In bf16, with sums in fp32; what comes out is rounded to bf16 and then fp32 again."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """weight [O, I], bias [O], in fp32."""
        super().__init__(weight.bfloat16(), None if bias is None else bias.bfloat16())

    def __call__(self, x: Rows) -> Product:
        """In fp32 again."""
        return Product(super().__call__(cast(Tensor, x).bfloat16()).y.float())


class Int8:
    """In 8 bits: a scale for each row of x and for each row of the matrix, so no row changes what another gives.

    Sums are exact. The scale of x and the bias are left to whoever goes on with the product.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """weight [O, I], bias [O], in fp32."""
        self._bias = bias
        self._scale = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        steps = (weight / self._scale[:, None]).round_().to(torch.int8).contiguous()
        self._weight = torch.ops.onednn.qlinear_prepack(steps, None)
        self._zero = torch.zeros(len(weight), dtype=torch.int64)
        # A second copy, row by row: what oneDNN has packed, only oneDNN can read.
        self._few = (steps, steps.sum(1, dtype=torch.int32), self._scale) if kernels().few else None

    def __call__(self, x: Rows) -> Product:
        """Still to be multiplied by the scale of x."""
        x = cast(Eight, x)
        values, scale, zero = x
        if self._few and len(values) <= kernels().few:
            return Product(kernels().multiply(x, *self._few), scale, self._bias)
        y = torch.ops.onednn.qlinear_pointwise(
            values, 1.0, zero, self._weight, self._scale, self._zero, None, 1.0, 0, torch.float32, *POST
        )
        return Product(y, scale, self._bias)


MATRICES: dict[torch.dtype, Callable[[Tensor, Tensor | None], Matrix]] = {
    torch.float32: Fp32,
    torch.bfloat16: Bf16,
    torch.int8: Int8,
}
