"""What a CPU does between matrix products, each thing in one pass over memory.

`kernels()` gives those of a step of decoding: in C where a compiler is at hand (`decoding.c`), else in PyTorch
(`plain.py`), with equal results. Those of training have gradients: `nmt.kernels.gradients`.
"""

from functools import cache

from nmt.kernels.build import library
from nmt.kernels.forms import MIDDLE, Eight, Kernels, Norm, Product, Rows, Seen
from nmt.kernels.native import Native
from nmt.kernels.plain import Plain


@cache
def kernels() -> Kernels:
    """The kernels of this machine."""
    compiled = library()
    return Plain() if compiled is None else Native(compiled)


__all__ = ["MIDDLE", "Eight", "Kernels", "Norm", "Plain", "Product", "Rows", "Seen", "kernels"]
