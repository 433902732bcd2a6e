"""A running mean of the weights, which translates better than the weights of one moment (Polyak and Juditsky, 1992)."""

from copy import deepcopy

import torch

from nmt.model.transformer import Transformer
from nmt.training.sharding import local


class RunningMean:
    """The exponential moving average of a model's weights: `model` is a second one, which has it for its weights."""

    def __init__(self, model: Transformer, decay: float) -> None:
        self.model = deepcopy(model).requires_grad_(False).eval()
        self._of, self._decay = model, decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after update `step`; of the first ones it takes more, for the mean begins at random."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([*map(local, self.model.parameters())], [*map(local, self._of.parameters())], share)

    def restart(self) -> None:
        """Begins again with the weights as they are."""
        self.model.load_state_dict(self._of.state_dict())
