"""What may be said: constraints on the output, each in a few tensor operations on the ids so far.

They know neither the search nor one another, and hold for beam search and sampling alike. They only forbid: the log p
of what is said stays the model's, as though it had been free to say anything.

Axes: N sentences, B hypotheses of each, R = N·B rows, V vocabulary, P length of the longest prefix, t tokens so far,
W places where an n-gram may begin.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.ids import EOS
from nmt.search.steps import Constraint

FREE = -1  # where no token is forced


class MinLength:
    """No output has fewer tokens than this, EOS not counted."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def forbid(self, logits: Tensor, tokens: Tensor, sentence: Tensor) -> None:
        """Forbids EOS [N, B, V] as long as the hypotheses [N, B, t] are too short."""
        if tokens.shape[2] < self._tokens:
            logits[:, :, EOS] = -torch.inf


class NoRepeat:
    """No n tokens in a row are said a second time (Paulus et al. 2018, section 2.5); EOS is not counted among them."""

    def __init__(self, size: int) -> None:
        self._size = size

    def forbid(self, logits: Tensor, tokens: Tensor, sentence: Tensor) -> None:
        """Forbids [N, B, V] what would end an n-gram that the hypotheses [N, B, t] have already."""
        length = tokens.shape[2]
        if length < self._size:
            return
        said = tokens.unfold(2, self._size, 1)  # [N, B, W, n]
        begun = tokens[:, :, None, length - self._size + 1 :]
        again = (said[..., :-1] == begun).all(-1)
        cost = torch.zeros_like(again, dtype=logits.dtype).masked_fill(again, -torch.inf)
        logits.scatter_add_(2, said[..., -1], cost)  # a sum, since one token may end several


class Together:
    """What none of several forbids."""

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self._constraints = constraints

    def forbid(self, logits: Tensor, tokens: Tensor, sentence: Tensor) -> None:
        """As each does."""
        for constraint in self._constraints:
            constraint.forbid(logits, tokens, sentence)


class Prefixed:
    """The output of each sentence begins with given tokens, even against the constraint on what follows them.

    That counts them as said.
    """

    def __init__(self, prefixes: Sequence[Sequence[int]], then: Constraint, device: torch.device | str) -> None:
        """A prefix of each of the N sentences of the input, which may be empty."""
        self._then = then
        self._longest = max(map(len, prefixes), default=0)
        rows = [[*prefix, *[FREE] * (self._longest - len(prefix))] for prefix in prefixes]
        self._forced = torch.tensor(rows, dtype=torch.long, device=device)  # [N, P]

    def forbid(self, logits: Tensor, tokens: Tensor, sentence: Tensor) -> None:
        """Forbids [N, B, V] all but the next token of the prefix; where that is over, what else is forbidden."""
        if tokens.shape[2] >= self._longest:
            self._then.forbid(logits, tokens, sentence)
            return
        forced = self._forced[sentence, tokens.shape[2]]
        within = (forced != FREE)[:, None, None]
        place = forced.clamp(min=0)[:, None, None].expand(-1, logits.shape[1], -1)
        as_it_was = logits.gather(2, place)
        self._then.forbid(logits, tokens, sentence)
        free = logits.gather(2, place)
        logits.masked_fill_(within, -torch.inf).scatter_(2, place, torch.where(within, as_it_was, free))


class Judge(Protocol):
    """What may be said, judged on the host, by one who knows of hypotheses only their tokens."""

    def allowed(self, tokens: NDArray[np.int64], sentences: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[R, V]: which tokens may follow each of the R hypotheses with these tokens [R, t], of these sentences [R]."""
        ...


class Judged:
    """The constraint that a judge makes. The tokens travel to the host and what is allowed back, so it costs time."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def forbid(self, logits: Tensor, tokens: Tensor, sentence: Tensor) -> None:
        """Forbids [N, B, V] what the judge does not allow to follow the hypotheses [N, B, t]."""
        rows = sentence.repeat_interleave(tokens.shape[1])
        allowed = self._judge.allowed(tokens.flatten(0, 1).numpy(force=True), rows.numpy(force=True))
        logits.masked_fill_(~torch.from_numpy(allowed).to(logits.device).view_as(logits), -torch.inf)


def together(
    constraints: Sequence[Constraint], prefixes: Sequence[Sequence[int]] = (), device: torch.device | str = "cpu"
) -> Constraint | None:
    """What all of these and the prefixes [N] ask for; None where that is nothing, so that it costs nothing."""
    all_of = constraints[0] if len(constraints) == 1 else Together(constraints)
    if any(prefixes):
        return Prefixed(prefixes, all_of, device)
    return all_of if constraints else None
