"""Training: the loop, the loss, the schedule, checkpoints and their average."""

from nmt.training.average import average
from nmt.training.loop import train

__all__ = ["average", "train"]
