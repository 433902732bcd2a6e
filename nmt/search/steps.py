"""What a search asks of a model, what may be said, and what it gives.

Axes: N sentences, B hypotheses of each, R = N·B rows, V vocabulary, L length of the source, t tokens so far.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
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


class Attentive(Steps, Protocol):
    """`Steps` that also tell what they looked at, as the coverage penalty asks for."""

    def attention(self) -> Tensor:
        """[R, L]: how much of its attention the last step gave to each token of the source; 1 where no token is."""
        ...


class Constraint(Protocol):
    """What may be said; it knows of hypotheses only their tokens. Those there are: `nmt.search.constraints`."""

    def forbid(self, logits: Tensor, tokens: Tensor, sentence: Tensor) -> None:
        """Puts -inf into logits [N, B, V] for what may not follow hypotheses of tokens [N, B, t].

        `sentence` [N] is which of the input they are of. Nothing else may be changed: log p stays the model's.
        """
        ...


Change = Callable[[Tensor], None]
"""Changes logits [R, V] where they lie, before the best are taken of them, but after log Z is."""


class Hypothesis(NamedTuple):
    """A finished output: its ids without EOS; log p with EOS, in nats; and the score that outputs are ordered by."""

    ids: list[int]
    log_p: float
    score: float


def forbidden(constraint: Constraint | None, tokens: Tensor, sentence: Tensor) -> Change | None:
    """What the constraint does to the logits of hypotheses with these tokens [N, B, t], of these sentences [N]."""
    if constraint is None:
        return None
    return lambda logits: constraint.forbid(logits.view(*tokens.shape[:2], -1), tokens, sentence)


def sayable(logits: Tensor, change: Change | None, only_end: Tensor) -> tuple[Tensor, Tensor]:
    """The logits [R, V] in fp32, -inf for what may not be said; and what makes them log-probabilities, log Z [R, 1].

    `change` may forbid more. Where `only_end` [R], nothing but EOS may be said, even against it.
    """
    logits = logits.float()
    log_z = logits.logsumexp(-1, keepdim=True)
    logits[:, list(NEVER)] = -torch.inf
    ends = logits[:, EOS].clone()
    if change is not None:
        change(logits)
    if bool(only_end.any()):
        logits[only_end] = -torch.inf
        logits[only_end, EOS] = ends[only_end]
    return logits, log_z
