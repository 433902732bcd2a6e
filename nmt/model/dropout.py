"""Dropout, cheap on a CPU too."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.kernels import gradients

_source = threading.local()  # of what is drawn on a CPU, where threads train side by side


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within the block what dropout picks, in this thread, is a function of `seed`."""
    if device.type != "cpu":
        torch.manual_seed(seed)
    _source.generator = torch.Generator().manual_seed(seed)
    try:
        yield
    finally:
        del _source.generator


class Dropout(nn.Module):
    """Sets each number to 0 with probability p and scales the others by 1 / (1 - p) (Srivastava et al. 2014)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    @property
    def acts(self) -> bool:
        """Whether it changes anything at present."""
        return self.training and self.p > 0

    def forward(self, x: Tensor, to: Tensor | None = None) -> Tensor:
        """x, thinned while training; added to `to`, if given."""
        if not self.acts:
            return x if to is None else to + x
        if x.device.type == "cpu":
            return self._on_cpu(x, to)
        return F.dropout(x, self.p) if to is None else to + F.dropout(x, self.p)

    def _on_cpu(self, x: Tensor, to: Tensor | None) -> Tensor:
        """There a draw is what costs: one of 64 bits serves four numbers, p being met to within 1/65536."""
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64)
        draws.random_(-(2**63), None, generator=getattr(_source, "generator", None))
        draws, least = draws.view(torch.int16)[: x.numel()].view(x.shape), min(round(self.p * 65536), 65535) - 32768
        if gradients.at_hand(x):
            return gradients.thinned(x, draws, least, 1 / (1 - self.p), to)
        thin = x * (draws >= least).to(x.dtype).mul_(1 / (1 - self.p))
        return thin if to is None else to + thin
