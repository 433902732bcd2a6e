"""Sampling: outputs drawn token by token, each with the probability that the model gives it.

What is drawn for a sentence is a function of its key alone. Each of its tokens takes one number from a stream that
counts: no generator has a state, so batches, neighbours and order change nothing.

Axes: N sentences still sampled, S samples of each, R = N·S rows, V vocabulary, K tokens there is a choice of,
t tokens so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.errors import NmtError
from nmt.ids import BOS, EOS
from nmt.search.steps import Constraint, Hypothesis, Steps, forbidden, sayable

NUCLEUS = 256  # tokens that top_p is looked for among at first


@dataclass(frozen=True)
class Sampling:
    """How to draw: from p^(1 / temperature), of that from the `top_k` likeliest tokens (Fan et al. 2018; 0 is all), and
    of these from the fewest that have `top_p` of the probability (Holtzman et al. 2020), as long as each has at least
    `epsilon` of it, or is the likeliest (Hewitt et al. 2022; Freitag et al. 2023). At temperature 0 the likeliest token
    is taken. Raises `NmtError` for numbers out of bounds.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 1
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        bounds = {
            "temperature": (0 <= self.temperature < np.inf, "0 or more"),
            "top_k": (self.top_k >= 0, "0, which is no bound, or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "seed": (0 <= self.seed < 2**32, "from 0 up to 2^32"),
            "epsilon": (0 <= self.epsilon < 1, "0, which is no bound, or more, and below 1"),
        }
        for name, (holds, must) in bounds.items():
            if not holds:
                raise NmtError(f"{name}: must be {must}, found {getattr(self, name)}")


@dataclass
class _Drawn:
    """The sentences still sampled, with all their samples: one that has ended stays, and says EOS."""

    sentence: Tensor  # [N], which of the input
    limit: Tensor  # [N], the most tokens that the output may have
    log_p: Tensor  # [N, S]
    tokens: Tensor  # [N, S, t]

    @classmethod
    def begin(cls, limits: Sequence[int], samples: int, device: torch.device | str) -> "_Drawn":
        """Samples of nothing yet."""
        count = len(limits)
        return cls(
            torch.arange(count, device=device),
            torch.tensor(limits, device=device),
            torch.zeros(count, samples, device=device),
            torch.empty(count, samples, 0, dtype=torch.long, device=device),
        )

    @property
    def ended(self) -> Tensor:
        """[N, S]: which samples have ended."""
        if not self.tokens.shape[2]:
            return torch.zeros_like(self.log_p, dtype=torch.bool)
        return self.tokens[:, :, -1] == EOS

    def grow(self, logits: Tensor, chance: Tensor, how: Sampling, constraint: Constraint | None) -> None:
        """One token further, by logits [R, V] and a number [N, S] from 0 to 1 for each sample."""
        only_end = (self.tokens.shape[2] >= self.limit)[:, None] | self.ended
        change, ends = forbidden(constraint, self.tokens, self.sentence), logits[:, EOS].clone()
        logits, log_z = sayable(logits, change, only_end.flatten())
        if change is not None:  # a sample that may say nothing at all ends, even against the constraint
            logits[:, EOS] = torch.where(logits.isneginf().all(1), ends.float(), logits[:, EOS])
        token = draw(logits, chance.flatten(), how)
        log_p = (logits.gather(1, token[:, None]) - log_z).view_as(self.log_p)
        self.log_p = self.log_p + log_p.masked_fill(self.ended, 0)
        self.tokens = torch.cat([self.tokens, token.view_as(self.log_p)[:, :, None]], 2)

    def of(self, s: Tensor) -> "_Drawn":
        """Some of the sentences."""
        return _Drawn(self.sentence[s], self.limit[s], self.log_p[s], self.tokens[s])

    def hypotheses(self) -> list[list[Hypothesis]]:
        """The samples of each sentence, on the host."""
        table = zip(self.tokens.tolist(), self.log_p.tolist(), strict=True)
        return [[Hypothesis(y[: y.index(EOS)], p, p) for y, p in zip(*rows, strict=True)] for rows in table]


@torch.inference_mode()
def sample(
    steps: Steps,
    limits: Sequence[int],
    how: Sampling,
    keys: Sequence[int],
    samples: int = 1,
    device: torch.device | str = "cpu",
    constraint: Constraint | None = None,
) -> list[list[Hypothesis]]:
    """So many samples of each sentence, in the order they were drawn; their score is log p, as the model has it.

    `limits` [N] is the most tokens, EOS not counted, that the output of each sentence may have; at that it ends.
    `keys` [N] are numbers below 2^64: who has the same key, and the same probabilities, has the same samples.
    """
    results: list[list[Hypothesis]] = [[] for _ in limits]
    drawn = _Drawn.begin(limits, samples, device)
    last = torch.full((len(limits),), BOS, device=device)
    rows = torch.arange(len(limits), device=device)[:, None].expand(-1, samples)  # each sentence has one row yet
    while len(drawn.sentence):
        logits = steps.step(last)
        if len(logits) < rows.numel():
            logits = logits.index_select(0, rows.flatten())
        chance = torch.from_numpy(uniforms(keys, samples, drawn.tokens.shape[2])).to(device)
        drawn.grow(logits, chance[drawn.sentence], how, constraint)
        done = drawn.ended.all(1)
        going_on = None
        if bool(done.any()):
            found = drawn.of(done)
            for sentence, hypotheses in zip(found.sentence.tolist(), found.hypotheses(), strict=True):
                results[sentence] = hypotheses
            going_on = (~done).nonzero()[:, 0]
            drawn, rows = drawn.of(going_on), rows[going_on]
        if going_on is not None or len(last) < rows.numel():
            steps.select(rows.flatten(), going_on)
        last = drawn.tokens[:, :, -1].flatten()
        rows = torch.arange(len(last), device=device).view(-1, samples)
    return results


def draw(logits: Tensor, chance: Tensor, how: Sampling) -> Tensor:
    """The token [R] at which the cumulative distribution of logits [R, V] passes `chance` [R], from 0 to 1."""
    top_k, ids = how.top_k if how.temperature else 1, None
    if 0 < top_k < logits.shape[1]:
        logits, ids = logits.topk(top_k, dim=1)
    if how.temperature not in (0, 1):  # where it is low, only what is far below the likeliest overflows
        logits = (logits - logits.max(1, keepdim=True).values) / how.temperature
    p = logits.softmax(-1)
    if how.top_p < 1:
        p, among = _nucleus(p, how.top_p)
        ids = among if ids is None else ids.gather(1, among)
    if how.epsilon:
        p = p.masked_fill(p < p.max(1, keepdim=True).values.clamp(max=how.epsilon), 0)
    reached = p.cumsum(1, dtype=torch.double)
    place = torch.searchsorted(reached, chance[:, None] * reached[:, -1:], right=True)
    return (place if ids is None else ids.gather(1, place))[:, 0]


def _nucleus(p: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Of p [R, V] the likeliest, as few as have `top_p` together: p, 0 for others, and which they are, [R, K].

    To sort a whole vocabulary takes longer than all else in a step, and the few are nearly always among some hundred.
    """
    width = min(NUCLEUS, p.shape[1])
    while True:
        likeliest, ids = p.topk(width, dim=1)
        before = likeliest.cumsum(1, dtype=torch.double) - likeliest
        kept = before < top_p
        if width == p.shape[1] or not bool(kept[:, -1].any()):
            return likeliest.masked_fill(~kept, 0), ids
        width = min(8 * width, p.shape[1])


_WEYL = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio
_MULTIPLIERS = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)


def uniforms(keys: Sequence[int], samples: int, step: int) -> NDArray[np.float64]:
    """A number from 0 to 1, 1 left out, for each sample of each key, [N, S], at this step.

    SplitMix64 (Steele et al. 2014) at place `step` of a stream; where that begins, the same says of key and sample.
    """
    streams = _mixed(np.array(keys, np.uint64)[:, None] + _places(0, samples))
    return np.asarray((_mixed(streams + _places(step, 1)) >> np.uint64(12)) * 2.0**-52)


def _places(first: int, count: int) -> NDArray[np.uint64]:
    """What SplitMix64 adds to its seed for its numbers from the first on, counted from 0."""
    return np.array([(place + 1) * _WEYL % 2**64 for place in range(first, first + count)], np.uint64)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The numbers with their bits mixed, each one to one."""
    x = (x ^ (x >> np.uint64(30))) * _MULTIPLIERS[0]
    x = (x ^ (x >> np.uint64(27))) * _MULTIPLIERS[1]
    return x ^ (x >> np.uint64(31))
