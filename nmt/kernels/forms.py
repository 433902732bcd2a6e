"""What goes into the kernels and comes out of them.

Axes: R rows, W their width, H heads, K width of a head's keys, V of its values, P keys that a query sees.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

MIDDLE = 128
"""What stands for 0 in 8 bits, where numbers may be below it."""


class Eight(NamedTuple):
    """Rows in 8 bits: what they mean is (values - zero) · scale, with values [R, W] and a scale [R] of each row."""

    values: Tensor
    scale: Tensor
    zero: int = MIDDLE


Rows = Tensor | Eight
"""Rows [R, W] as a matrix product takes them."""


class Product(NamedTuple):
    """What a matrix product gives: y · scale + bias, with y [R, W], a scale [R] of each row and a bias [W]."""

    y: Tensor
    scale: Tensor | None = None
    bias: Tensor | None = None


class Norm(NamedTuple):
    """A norm with a gain [W]; without a bias [W] it is that of the root mean square."""

    gain: Tensor
    bias: Tensor | None
    epsilon: float


@dataclass(frozen=True, slots=True)
class Seen:
    """Keys and values, and which of them each of R queries sees: the first `count` [R] in its row of `index` [R, P],
    or, where there is none, those in a row from `begin` [R] on. All three are int32.

    Each row of `kv` holds the keys of all heads, then their values: [any, H (K + V)].
    """

    kv: Tensor
    count: Tensor
    begin: Tensor | None = None
    index: Tensor | None = None


class Kernels(Protocol):
    """What a step takes besides matrix products, but for those of few rows. `eight` asks for the result in 8 bits."""

    few: int
    """Up to how many rows `multiply` is faster than oneDNN; 0 where it is not there."""

    def multiply(self, x: Eight, matrix: Tensor, total: Tensor, scale: Tensor) -> Tensor:
        """(x.values - x.zero) Mᵀ · scale, [R, O], exactly as oneDNN has it; for R up to `few`.

        matrix: M [O, I], int8; total [O], int32, the sum of each of its rows; scale [O].
        """
        ...

    def reduce(self, x: Tensor) -> Eight:
        """Rows x [R, W] in 8 bits."""
        ...

    def settle(self, product: Product) -> Tensor:
        """What the product means, in its own memory."""
        ...

    def norm(self, x: Tensor, product: Product | None, norm: Norm, *, pre: bool, eight: bool) -> Rows:
        """The norm of x [R, W] + product. In x goes on the sum if `pre`, else the norm."""
        ...

    def activate(self, product: Product, kind: str, *, eight: bool) -> Rows:
        """relu, gelu or swiglu of the product, which may be overwritten."""
        ...

    def attend(self, q: Tensor, seen: Seen, heads: int, k_width: int, *, eight: bool) -> Rows:
        """What queries [R, H · K] find by equation 1 of the paper: [R, H · V]."""
        ...

    def top(self, product: Product, most: int, never: Tensor, end: int, only_end: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest tokens of logits [R, W], likeliest first: log p and ids, [R, most]; the logits are overwritten.

        Those in `never` are none; where `only_end` [R], `end` is the only one; log p of what there is not is -inf.
        """
        ...
