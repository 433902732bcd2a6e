"""A running mean of the weights, which translates better than the weights of one moment (Polyak and Juditsky, 1992)."""

from copy import deepcopy

import torch

from nmt.model.transformer import Transformer
from nmt.training.sharding import local


class RunningMean:
    """The exponential moving average of a model's weights: `model` is a second one, which has it for its weights."""

    def __init__(self, model: Transformer, decay: float, apart: bool = False) -> None:
        """What does not learn is the same in both models, unless they are to be kept `apart`."""
        shared = {} if apart else {id(p): p for p in model.parameters() if not p.requires_grad}
        self.model = deepcopy(model, shared).requires_grad_(False).eval()
        self._of, self._decay = model, decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after update `step`; of the first ones it takes more, for the mean begins at random."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        pairs = zip(self.model.parameters(), self._of.parameters(), strict=True)
        learning = ((local(mean), local(now)) for mean, now in pairs if now.requires_grad)
        means, weights = zip(*learning, strict=True)
        torch._foreach_lerp_(means, weights, share)

    def restart(self) -> None:
        """Begins again with the weights as they are."""
        self.model.load_state_dict(self._of.state_dict())
