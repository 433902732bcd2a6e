"""Beam search in which nothing changes its shape or its place in memory: its steps need nobody but the device.

It finds what `beam_search` finds. Sentences stand at N places; where one is done, the next takes its place. The host
looks on every few steps. A place that is done, or was never taken, stays as it is, whatever is computed for it.

Axes: N places, B beam, R = N·B rows, F finished hypotheses kept, t tokens that there is room for.
"""

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nmt.ids import BOS, EOS
from nmt.search.beam import Beams, Finished, Settings, take
from nmt.search.steps import Hypothesis, Ranking

LOOKS = 8  # steps from one look at what is done to the next
LEAST = 16  # the least room, in tokens, that a step is made for; others are its doubles


class Static(Protocol):
    """A decoding of sentences at N places, B hypotheses each; `nmt.model.static.StaticDecoding` is one."""

    places: int
    beam: int
    room: int
    source: int
    clock: Tensor

    def begin(self, places: Tensor, sentences: Sequence[int]) -> None:
        """At these places [M] begins the translation of these sentences, and the clocks [N] there begin at 0."""
        ...

    def within(self, room: int, source: int) -> Ranking:
        """The steps while no clock reaches `room` and no source that matters has more than `source` tokens."""
        ...

    def captured(self, work: Callable[[], None]) -> Callable[[], object]:
        """Does `work`, and gives what does it again, on the same memory."""
        ...


@dataclass
class _Places(Beams):
    """The beams of all places, in memory that stays: tokens [N, B, t], of which each place has its own number."""

    clock: Tensor  # [N]

    @property
    def length(self) -> Tensor:
        """[N, 1], for sentences are not equally far."""
        return self.clock[:, None]

    def _extend(self, parents: Tensor, ids: Tensor) -> None:
        at = self.clock[:, None, None].expand(*ids.shape, 1)
        self.tokens = take(self.tokens, parents).scatter_(2, at, ids[:, :, None])
        self.clock = self.clock + 1


class StaticSearch:
    """A beam search at the places of a decoding; it may be asked again and again."""

    def __init__(self, steps: Static, settings: Settings) -> None:
        """Without groups and without a coverage penalty."""
        self._steps, self._settings = steps, settings
        n, device = steps.places, steps.clock.device
        kept = max(settings.beam, settings.n_best)
        self._row = torch.arange(n * settings.beam, device=device).view(n, -1)
        self._live = torch.full((n, settings.beam), -torch.inf, device=device)
        self._last = torch.full((n, settings.beam), EOS, device=device)
        self._tokens = torch.full((n, settings.beam, steps.room), EOS, device=device)
        self._limit, self._open = (torch.zeros(n, dtype=torch.long, device=device) for _ in range(2))
        none = torch.full((n, kept), -torch.inf, device=device)
        said = torch.full((n, kept, steps.room), EOS, device=device)
        self._finished = Finished(none, none.clone(), said)
        self._done = torch.ones(n, dtype=torch.bool, device=device)
        self._ways: dict[tuple[int, int], Callable[[], object]] = {}
        self._at: list[int | None] = [None] * n  # the sentence at each place
        self._ages = [0] * n  # steps since it came there

    @torch.inference_mode()
    def __call__(self, limits: Sequence[int], sources: Sequence[int]) -> list[list[Hypothesis]]:
        """What `beam_search` gives for sentences with sources of so many tokens, which the decoding knows by number.

        All limits are below the decoding's room by two, and all sources within it. Those of the end come first.
        """
        results: list[list[Hypothesis]] = [[] for _ in limits]
        waiting = deque(range(len(limits) - 1, -1, -1))
        while waiting or any(number is not None for number in self._at):
            self._fill(waiting, limits)
            here = [number for number in self._at if number is not None]
            steps = max(self._ages) + LOOKS
            go_on = self._way(
                _room(steps + 1, self._steps.room), _room(max(sources[i] for i in here), self._steps.source)
            )
            for _ in range(LOOKS):
                go_on()
            self._ages = [
                age + LOOKS if number is not None else 0 for age, number in zip(self._ages, self._at, strict=True)
            ]
            for number, best in self._ended():
                results[number] = best
        return results

    def _fill(self, waiting: deque[int], limits: Sequence[int]) -> None:
        """Lets those that wait take the places that are free, once they are an eighth of all, or are all."""
        free = [place for place, number in enumerate(self._at) if number is None]
        if not waiting or len(free) < min(len(self._at), max(1, len(self._at) // 8)):
            return
        free = free[: len(waiting)]
        come = [waiting.popleft() for _ in free]
        device = self._done.device
        places = torch.tensor(free, device=device)
        self._steps.begin(places, come)
        begin = torch.full((self._settings.beam,), -torch.inf, device=device)
        begin[0] = 0
        self._live[places], self._last[places] = begin, BOS
        self._limit[places] = torch.tensor([limits[number] for number in come], device=device)
        self._open[places] = self._settings.beam
        self._finished.scores[places] = -torch.inf
        self._done[places] = False
        for place, number in zip(free, come, strict=True):
            self._at[place], self._ages[place] = number, 0

    def _way(self, room: int, source: int) -> Callable[[], object]:
        """What takes a step while there is room for what is said and for sources."""
        if (room, source) not in self._ways:
            steps, done = self._steps.within(room, source), self._done.clone()
            self._done.fill_(True)  # so that it changes nothing
            me = weakref.proxy(self)  # or neither this nor its decoding, which is large, would go with the last use
            self._ways[room, source] = self._steps.captured(lambda: me._advance(steps, room))
            self._done.copy_(done)
        return self._ways[room, source]

    def _advance(self, steps: Ranking, room: int) -> None:
        """A step of all places that are not done."""
        tokens, said = self._tokens[:, :, :room], self._finished.tokens[:, :, :room]
        found = Finished(self._finished.scores, self._finished.log_p, said)
        clock = self._steps.clock
        new = _Places(clock, self._limit, self._open, self._live, tokens, found, clock)
        rows = new.grow(steps, self._last.flatten(), self._settings)
        done = new.done(self._settings)
        steps.select(torch.where(self._done[:, None], self._row, rows).flatten())
        last = new.tokens.gather(2, clock[:, None, None].expand(*self._last.shape, 1))[:, :, 0]
        for kept, then in (
            (self._live, new.live),
            (self._last, last),
            (self._open, new.places),
            (tokens, new.tokens),
            (self._finished.scores, new.finished.scores),
            (self._finished.log_p, new.finished.log_p),
            (said, new.finished.tokens),
            (clock, new.clock),
        ):
            kept.copy_(torch.where(self._done.view(-1, *[1] * (kept.dim() - 1)), kept, then))
        self._done.logical_or_(done)

    def _ended(self) -> list[tuple[int, list[Hypothesis]]]:
        """The sentences that are done, with their hypotheses; their places are free."""
        places = [place for place, done in enumerate(self._done.tolist()) if done and self._at[place] is not None]
        if not places:
            return []
        which = torch.tensor(places, device=self._done.device)
        settings = self._settings
        found = self._finished.of(which)
        found.tokens = found.tokens[:, :, : max(self._ages) + 1]
        best = found.best(max(settings.beam, settings.n_best) if settings.others else settings.n_best)
        numbers = [number for place in places if (number := self._at[place]) is not None]
        self._steps.clock[which] = 0  # so that it stays below any room
        for place in places:
            self._at[place], self._ages[place] = None, 0
        return list(zip(numbers, best, strict=True))


def _room(tokens: int, most: int) -> int:
    """The least room, of a few sizes, that holds so many tokens; `most`, if that is less."""
    room = LEAST
    while room < tokens:
        room *= 2
    return min(room, most)
