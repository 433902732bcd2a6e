"""Several models that say together what comes next: the mean of their probabilities.

So do Sockeye's `--ensemble-mode linear` and fairseq; Marian and Nematus take the mean of log-probabilities.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from nmt.search.steps import Attentive, Steps

TINY = torch.finfo(torch.float32).tiny  # a probability that fp32 cannot hold is this one, not 0


class Ensemble:
    """`Steps` made of the steps of several models with one vocabulary, all of the same sentences."""

    def __init__(self, members: Sequence[Steps]) -> None:
        self._members = members

    @classmethod
    def of(cls, members: Sequence[Steps]) -> Steps:
        """The ensemble of these; one alone is itself."""
        return cls(members) if len(members) > 1 else members[0]

    def step(self, tokens: Tensor) -> Tensor:
        """The log of the mean of the members' probabilities, [R, V] for tokens [R]."""
        first, *others = self._members
        total = first.step(tokens).float().softmax(-1)
        for member in others:
            total += member.step(tokens).float().softmax(-1)
        return (total / len(self._members)).clamp_min_(TINY).log_()

    def attention(self) -> Tensor:
        """The mean of the members' attention, [R, L]; they have to be `Attentive`."""
        return torch.stack([cast(Attentive, member).attention() for member in self._members]).mean(0)

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
        """Goes on with these rows [R'], and, if given, with these sentences [N'] only."""
        for member in self._members:
            member.select(rows, sentences)
