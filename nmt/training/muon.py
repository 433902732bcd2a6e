"""Muon: a matrix moves in all directions alike (Jordan et al. 2024, "Muon: an optimizer for hidden layers").

It is `torch.optim.Muon` in all but two things. Matrices that lie in one for speed, such as those of queries, keys and
values, move each by itself. And where bf16 is not in the hardware, the iteration is in fp32: emulated, it takes longer
there than all else in an update.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nmt.model.device import has_bf16


class Muon(torch.optim.Muon):
    """Matrices [O, I], each of parts that move by themselves. Steps are as large as Adam's, so that one learning rate
    serves both (Liu et al. 2025, section 2.2)."""

    def __init__(self, parts: Sequence[Sequence[int]], parameters: Sequence[Tensor], **choices: Any) -> None:
        """`parts`: of each matrix, the rows of its parts, which make up O."""
        super().__init__(parameters, adjust_lr_fn="match_rms_adamw", **choices)
        self._parts = parts

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves the matrices by their gradients."""
        [group] = self.param_groups
        rate, momentum = group["lr"], group["momentum"]
        for matrix, parts in zip(group["params"], self._parts, strict=True):
            if matrix.grad is None:
                continue
            state = self.state[matrix]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(matrix)
            mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
            ahead = matrix.grad.lerp(mean, momentum)  # as Nesterov does
            matrix.mul_(1 - rate * group["weight_decay"])
            for part, change in zip(matrix.split(parts), ahead.split(parts), strict=True):
                even = orthogonal(change, group["ns_coefficients"], group["ns_steps"], group["eps"])
                part.sub_(even, alpha=rate * 0.2 * math.sqrt(max(part.shape)))


def orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, epsilon: float) -> Tensor:
    """The matrix with all its singular values made about 1, by the iteration of Newton and Schulz."""
    a, b, c = coefficients
    x = matrix.to(torch.bfloat16 if has_bf16(matrix.device) else torch.float32)
    if tall := len(x) > x.shape[1]:
        x = x.T
    x = x / x.norm().clamp_min(epsilon)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)
