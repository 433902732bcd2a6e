"""Dropout, cheap on a CPU too."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """Sets each number to 0 with probability p and scales the others by 1 / (1 - p) (Srivastava et al. 2014)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    @property
    def acts(self) -> bool:
        """Whether it changes anything at present."""
        return self.training and self.p > 0

    def forward(self, x: Tensor) -> Tensor:
        """x, thinned while training."""
        if not self.acts:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return x * self._mask(x)

    def _mask(self, x: Tensor) -> Tensor:
        """On a CPU a draw is what costs: one of 64 bits serves four numbers, p being met to within 1/65536."""
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.int16)[: x.numel()] >= min(round(self.p * 65536), 65535) - 32768
        return kept.view(x.shape).to(x.dtype).mul_(1 / (1 - self.p))
