"""Beam search with a length penalty and a stop that is exact for it (Wu et al. 2016, section 7).

Axes: N sentences still searched (or groups of them), B beam (or width of a group), R = N·B rows, F finished hypotheses
kept, V vocabulary, t tokens so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from nmt.ids import BOS, EOS
from nmt.search.coverage import Coverage
from nmt.search.groups import Groups, best_of, unlike
from nmt.search.steps import Attentive, Change, Constraint, Hypothesis, Ranking, Steps, forbidden, sayable


@dataclass(frozen=True)
class Settings:
    """How to search. `penalty_form`: gnmt is ((5 + |Y|) / 6)^α, power is |Y|^α; |Y| counts EOS.

    `coverage_penalty` is the β of equation 14 of Wu et al. `groups` cut the beam into searches of equal width, each
    paying `diversity` for a token that one before it says at the same step (`nmt.search.groups`).
    """

    beam: int = 4
    length_penalty: float = 0.6
    penalty_form: str = "gnmt"
    n_best: int = 1
    coverage_penalty: float = 0.0
    groups: int = 1
    diversity: float = 0.5
    others: bool = False
    """Whether hypotheses beyond the n best are given too, as far as they have ended by then: no more is searched."""

    @property
    def width(self) -> int:
        """The beam of a group; without groups, the beam."""
        return self.beam // self.groups

    def penalty(self, length: float | Tensor) -> float | Tensor:
        """What log p of an output of this many tokens is divided by."""
        base = (5 + length) / 6 if self.penalty_form == "gnmt" else length
        return base**self.length_penalty


@dataclass
class Finished:
    """The F best finished hypotheses of each sentence, best first; score -inf where there are fewer."""

    scores: Tensor  # [N, F]
    log_p: Tensor  # [N, F]
    tokens: Tensor  # [N, F, t], EOS from the end on

    def add(self, scores: Tensor, log_p: Tensor, tokens: Tensor) -> "Finished":
        """With more hypotheses, [N, B] and [N, B, t], of which those scored -inf are none."""
        longer = functional.pad(self.tokens, (0, tokens.shape[2] - self.tokens.shape[2]), value=EOS)
        best, where = torch.cat([self.scores, scores], 1).topk(self.scores.shape[1], dim=1)
        log_p = torch.cat([self.log_p, log_p], 1).gather(1, where)
        return Finished(best, log_p, take(torch.cat([longer, tokens], 1), where))

    def of(self, sentences: Tensor | slice) -> "Finished":
        """Those of some sentences."""
        return Finished(self.scores[sentences], self.log_p[sentences], self.tokens[sentences])

    def best(self, count: int) -> list[list[Hypothesis]]:
        """The best hypotheses of each sentence, on the host."""
        table = zip(self.tokens.tolist(), self.log_p.tolist(), self.scores.tolist(), strict=True)
        return [
            [Hypothesis(y[: y.index(EOS)], p, score) for y, p, score in zip(*rows, strict=True) if score > -torch.inf][
                :count
            ]
            for rows in table
        ]


@dataclass
class Beams:
    """The sentences still searched. A hypothesis that ends leaves its place, so one place is greedy search."""

    sentence: Tensor  # [N], which of the input
    limit: Tensor  # [N], the most tokens that the output may have
    places: Tensor  # [N], in the beam, for hypotheses that go on
    live: Tensor  # [N, B], log p; -inf where a place is empty
    tokens: Tensor  # [N, B, t]
    finished: Finished

    @property
    def length(self) -> int | Tensor:
        """t; or [N, 1], where sentences are not equally far."""
        return self.tokens.shape[2]

    def _extend(self, parents: Tensor, ids: Tensor) -> None:
        """Goes on with these hypotheses [N, B], each with one more token [N, B]."""
        self.tokens = torch.cat([take(self.tokens, parents), ids[:, :, None]], 2)

    @classmethod
    def begin(cls, limits: Sequence[int], settings: Settings, device: torch.device | str) -> "Beams":
        """One empty hypothesis for each group of each sentence; the groups of a sentence lie side by side."""
        count, kept = len(limits) * settings.groups, max(settings.width, settings.n_best)
        none = torch.full((count, kept), -torch.inf, device=device)
        return cls(
            torch.arange(len(limits), device=device).repeat_interleave(settings.groups),
            torch.tensor(limits, device=device).repeat_interleave(settings.groups),
            torch.full((count,), settings.width, device=device),
            torch.zeros(count, 1, device=device),
            torch.empty(count, 1, 0, dtype=torch.long, device=device),
            Finished(none, none, torch.empty(count, kept, 0, dtype=torch.long, device=device)),
        )

    @property
    def last(self) -> Tensor:
        """[R]: the last token of each hypothesis; EOS where it has ended or a place is empty."""
        return self.tokens[:, :, -1].flatten()

    def grow(self, steps: Steps, last: Tensor, settings: Settings, constraint: Constraint | None = None) -> Tensor:
        """One token further than `last` [R]; gives the row [N, B] that each hypothesis continues."""
        count, rows = self.live.shape
        if settings.groups > 1:
            values, ids, parents = self._best_of_groups(steps.step(last), settings, constraint)
        else:
            values, ids, parents = self._best(steps, last, settings, constraint)
        self._extend(parents, ids)
        scores = values / settings.penalty(self.length)
        if isinstance(steps, Coverage):
            scores = scores + settings.coverage_penalty * steps.log().view(count, rows).gather(1, parents)
        scores = scores.masked_fill(ids != EOS, -torch.inf)
        self.finished = self.finished.add(scores, values, self.tokens)
        self.live = values.masked_fill(ids == EOS, -torch.inf)
        self.places = self.places - (scores > -torch.inf).sum(1)
        return parents + torch.arange(count, device=parents.device)[:, None] * rows

    def _best(
        self, steps: Steps, last: Tensor, settings: Settings, constraint: Constraint | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations: log p, -inf where there is no place for it, token and parent, each [N, B]."""
        if constraint is None and isinstance(steps, Ranking):
            log_p, ids = steps.best(last, settings.beam, self._only_end)
        else:
            change = forbidden(constraint, self.tokens, self.sentence)
            log_p, ids = _likeliest(steps.step(last), settings.beam, self._only_end, change)
        return self._placed(*_candidates(log_p, ids, self.live, settings.beam))

    def _best_of_groups(
        self, logits: Tensor, settings: Settings, constraint: Constraint | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same, group after group, each kept from the tokens of those before it."""
        rows, groups = logits.unflatten(0, self.live.shape), settings.groups
        said = logits.new_zeros(len(rows) // groups, logits.shape[1], dtype=torch.float32)
        found = []
        for group in (slice(number, None, groups) for number in range(groups)):
            part, cost = self.of(group), settings.diversity * said
            change = unlike(cost, forbidden(constraint, part.tokens, part.sentence))
            log_p, ids = _likeliest(rows[group].flatten(0, 1), settings.width, part._only_end, change)
            values, ids, parents = _candidates(log_p, ids, part.live, settings.width)
            free = part.length >= part.limit[:, None]  # at the limit, EOS costs nothing
            values, ids, parents = part._placed(values + cost.gather(1, ids).masked_fill(free, 0), ids, parents)
            said.scatter_add_(1, ids, (values > -torch.inf).float())
            found.append((values, ids, parents))
        values, ids, parents = (torch.stack(parts, 1).flatten(0, 1) for parts in zip(*found, strict=True))
        return values, ids, parents

    @property
    def _only_end(self) -> Tensor:
        """[R]: where nothing but EOS may follow."""
        return (self.length >= self.limit[:, None]).expand(self.live.shape).flatten()

    def _placed(self, values: Tensor, ids: Tensor, parents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates [N, B], best first, of which those beyond the places that are left are none; none says EOS."""
        beyond = torch.arange(values.shape[1], device=values.device) >= self.places[:, None]
        values = values.masked_fill(beyond, -torch.inf)
        return values, ids.masked_fill(values == -torch.inf, EOS), parents

    def done(self, settings: Settings) -> Tensor:
        """[N]: whether no living hypothesis can overtake the n-th best finished one, whatever it goes on to say.

        log p only falls, the penalty only grows with the length, and coverage adds nothing above 0. So nothing alive
        can score above its log p of now divided by the penalty of the longest output. A sentence is done when all of
        its groups are.
        """
        reach = self.live.max(1).values / settings.penalty(self.limit + 1.0)
        wanted = min(settings.n_best, settings.width) - 1
        done = (self.finished.scores[:, wanted] >= reach) | (self.length > self.limit[:, None])[:, 0]
        if settings.groups > 1:
            done = done.view(-1, settings.groups).all(1).repeat_interleave(settings.groups)
        return done

    def of(self, s: Tensor | slice) -> "Beams":
        """Some of the sentences."""
        return Beams(self.sentence[s], self.limit[s], self.places[s], self.live[s], self.tokens[s], self.finished.of(s))


@torch.inference_mode()
def beam_search(
    steps: Steps,
    limits: Sequence[int],
    settings: Settings,
    device: torch.device | str = "cpu",
    constraint: Constraint | None = None,
) -> list[list[Hypothesis]]:
    """The best outputs of each sentence, best first; their score is log p over the penalty.

    At most settings.n_best; those are exact. With settings.others, what else has ended follows.

    With a coverage penalty, plus that; the steps then have to be `Attentive`. `limits` [N] is the most tokens, EOS not
    counted, that the output of each sentence may have; at that it ends, even against the constraint.
    """
    if settings.groups > 1:
        steps = Groups(steps, settings.groups)
    if settings.coverage_penalty:
        steps = Coverage(cast(Attentive, steps))
    results: list[list[Hypothesis]] = [[] for _ in limits]
    count = max(settings.beam, settings.n_best) if settings.others else settings.n_best
    beams = Beams.begin(limits, settings, device)
    last = torch.full((len(beams.sentence),), BOS, device=device)
    while len(beams.sentence):
        rows = beams.grow(steps, last, settings, constraint)
        done = beams.done(settings)
        going_on = None
        if bool(done.any()):
            found = beams.of(done)
            for sentence, best in zip(found.sentence.tolist(), found.finished.best(count), strict=True):
                results[sentence] += best
            going_on = (~done).nonzero()[:, 0]
            beams, rows = beams.of(going_on), rows[going_on]
        last = beams.last
        if going_on is not None or settings.beam > 1:
            steps.select(rows.flatten(), going_on)
    return results if settings.groups == 1 else [best_of(found, count) for found in results]


def _likeliest(logits: Tensor, most: int, only_end: Tensor, change: Change | None) -> tuple[Tensor, Tensor]:
    """What `Ranking.best` gives, out of logits [R, V]; `change` is what else there is to be done to them."""
    logits, log_z = sayable(logits, change, only_end)
    values, ids = logits.topk(min(most, logits.shape[1]), dim=1)
    return values - log_z, ids


def _candidates(log_p: Tensor, ids: Tensor, live: Tensor, beam: int) -> tuple[Tensor, Tensor, Tensor]:
    """The B best continuations of each sentence: log p, token and parent hypothesis, each [N, B], best first.

    They are among the B best of its rows, log p and ids [R, B].
    """
    sentences, rows = live.shape
    count = log_p.shape[1]
    values = log_p.view(sentences, rows, count) + live[:, :, None]
    best, where = _pad_to(values.flatten(1), beam).topk(beam, dim=1)
    where = where.clamp(max=rows * count - 1)
    return best, ids.view(sentences, -1).gather(1, where), where // count


def take(x: Tensor, index: Tensor) -> Tensor:
    """Hypotheses [N, M, t] of x [N, B, t] by index [N, M]."""
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def _pad_to(x: Tensor, width: int) -> Tensor:
    """x [N, W] made at least `width` wide with -inf."""
    return functional.pad(x, (0, max(0, width - x.shape[1])), value=-torch.inf)
