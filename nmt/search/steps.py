"""What a search asks of a model, what may be said, and what it gives.

Axes: N sentences, B hypotheses of each, R = N·B rows, V vocabulary, t tokens so far.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.ids import EOS, NEVER


class Steps(Protocol):
    """A decoding under way, one step at a time; `nmt.model.cache.Decoding` is the plain one."""

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [R, V] of what follows once each of the R hypotheses has got this token [R]; to be overwritten."""
        ...

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
        """Goes on with these rows [R'], and, if given, with these sentences [N'] only."""
        ...


@runtime_checkable
class Ranking(Steps, Protocol):
    """Steps that find the likeliest tokens themselves, without writing down the probabilities of all."""

    def best(self, tokens: Tensor, most: int, only_end: Tensor) -> tuple[Tensor, Tensor]:
        """Log p and ids [R, most] of the likeliest tokens after these [R], likeliest first; log p -inf where none is.

        Where only_end [R], EOS is the only one. For hypotheses that end with EOS there is none.
        """
        ...


class Constraint(Protocol):
    """What may be said; it knows of hypotheses only their tokens, on the host."""

    def allowed(self, tokens: NDArray[np.int64], sentences: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[R, V]: which tokens may follow each of the R hypotheses with these tokens [R, t], of these sentences [R]."""
        ...


class Hypothesis(NamedTuple):
    """A finished output: its ids without EOS; log p with EOS, in nats; and the score that outputs are ordered by."""

    ids: list[int]
    log_p: float
    score: float


def allowed_by(constraint: Constraint | None, tokens: Tensor, sentence: Tensor) -> Tensor | None:
    """[R, V]: which tokens may follow the hypotheses with these tokens [N, B, t], of these sentences [N]."""
    if constraint is None:
        return None
    rows = sentence.repeat_interleave(tokens.shape[1])
    found = constraint.allowed(tokens.flatten(0, 1).numpy(force=True), rows.numpy(force=True))
    return torch.from_numpy(found).to(tokens.device)


def sayable(logits: Tensor, allowed: Tensor | None, only_end: Tensor) -> tuple[Tensor, Tensor]:
    """The logits [R, V] in fp32, -inf for what may not be said; and what makes them log-probabilities, log Z [R, 1].

    Where `only_end` [R], that is all but EOS, even against `allowed` [R, V].
    """
    logits = logits.float()
    log_z = logits.logsumexp(-1, keepdim=True)
    logits[:, list(NEVER)] = -torch.inf
    ends = logits[:, EOS].clone()
    if allowed is not None:
        logits.masked_fill_(~allowed, -torch.inf)
    if bool(only_end.any()):
        logits[only_end] = -torch.inf
        logits[only_end, EOS] = ends[only_end]
    return logits, log_z
