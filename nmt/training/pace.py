"""How fast training goes, beside how fast the device could at best; and what memory it takes."""

import sys
from typing import Any, NamedTuple, Self

import torch

from nmt.model.peak import Peak, peak_of
from nmt.model.size import operations
from nmt.recipe import Recipe
from nmt.training.learner import Learner


class Pace(NamedTuple):
    """operations: that a source token takes, and a target token. peak: of each of `processes`, on its device."""

    operations: tuple[int, int]
    peak: Peak
    processes: int
    device: torch.device

    @classmethod
    def of(cls, learner: Learner, recipe: Recipe) -> Self:
        """That of a training. On a device whose peak nobody publishes, it is measured, in a tenth of a second."""
        passes = 2 if recipe.train.r_drop else 1
        source, target = operations(learner.model)
        peak = peak_of(learner.device, learner.precision)
        return cls((passes * source, passes * target), peak, learner.world.size, learner.device)

    def share(self, source_tokens: int, target_tokens: int, seconds: float) -> float:
        """What part of the peak it takes to compute so many tokens in this time."""
        done = self.operations[0] * source_tokens + self.operations[1] * target_tokens
        return done / seconds / (self.peak.flops * self.processes)

    def describe(self) -> str:
        """What the peak is, in words."""
        each = " each" if self.processes > 1 else ""
        how = "as its maker says" if self.peak.source == "published" else "measured on matrix products"
        return f"peak {self.peak.flops / 1e12:.3g} TFLOP/s{each}, {how}"

    def values(self) -> dict[str, Any]:
        """The same for JSON: operations a second of all processes, and where the figure is from."""
        return {"peak": self.peak.flops * self.processes, "peak_is": self.peak.source}


def memory(device: torch.device) -> int | None:
    """The most bytes that this process has held so far: on a GPU of its tensors, else of all. None if not known."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
