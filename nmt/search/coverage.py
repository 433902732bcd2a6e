"""How much of the source hypotheses have covered (Wu et al. 2016, section 7, equation 14).

Axes: R hypotheses, L length of the source, V vocabulary.
"""

import torch
from torch import Tensor

from nmt.search.steps import Attentive

TINY = torch.finfo(torch.float32).tiny  # of what was never looked at, the log is that of this, not -inf


class Coverage:
    """`Steps` that remember what each hypothesis has looked at. They follow it through the beam, as any cache does."""

    def __init__(self, steps: Attentive) -> None:
        self._steps = steps
        self._looked: Tensor | None = None  # [R, L], over all steps

    def step(self, tokens: Tensor) -> Tensor:
        """The logits [R, V] of the steps for tokens [R]."""
        logits = self._steps.step(tokens)
        attention = self._steps.attention()
        self._looked = attention if self._looked is None else self._looked + attention
        return logits

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
        """Goes on with these rows [R'], and, if given, with these sentences [N'] only."""
        self._steps.select(rows, sentences)
        if self._looked is not None:
            self._looked = self._looked.index_select(0, rows)

    def log(self) -> Tensor:
        """`log_coverage` [R] of what was said so far."""
        assert self._looked is not None
        return log_coverage(self._looked)


def log_coverage(looked: Tensor) -> Tensor:
    """[R]: Σᵢ log(min(Σⱼ pᵢⱼ, 1)), at most 0; `looked` [R, L] is Σⱼ pᵢⱼ, the attention of all steps j to token i."""
    return looked.clamp(TINY, 1).log().sum(1)
