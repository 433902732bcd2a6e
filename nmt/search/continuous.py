"""Continuous batching: sentences come in as others end (Yu et al. 2022, "Orca", section 3).

Sentences that begin together end one by one, and the fewer rows a step has, the more each costs. So sentences wait, and
some begin wherever there is room. Those that began together are a `Search`; a step is one for all searches.

Axes: N sentences, R hypotheses of all that are under way, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nmt.ids import EOS
from nmt.search.beam import Search, Settings
from nmt.search.steps import Constraint, Hypothesis, Joining

FEWEST = 4  # of the sentences at once, the part there has to be room for before more begin: each time has its price


@torch.inference_mode()
def continuous_search(
    steps: Joining, limits: Sequence[int], settings: Settings, at_once: int, constraint: Constraint | None = None
) -> list[list[Hypothesis]]:
    """What `beam_search` finds for these sentences, none of which has begun yet; it searches so many `at_once`.

    Without groups and coverage penalty.
    """
    results: list[list[Hypothesis]] = [[] for _ in limits]
    searches: list[Search] = []
    begun = 0
    while begun < len(limits) or searches:
        going_on = sum(int((search.last != EOS).sum()) for search in searches)
        room = at_once - -(-going_on // settings.beam)
        if begun < len(limits) and (not searches or room * FEWEST >= at_once):
            some = limits[begun : begun + room]
            steps.join(len(some))
            searches.append(Search(some, settings, "cpu", constraint, begun))
            begun += len(some)
        for sentence, best in _step(steps, searches, settings.beam, constraint is None):
            results[sentence] = best
        searches = [search for search in searches if len(search.last)]
    return results


def _step(steps: Joining, searches: Sequence[Search], most: int, free: bool) -> list[tuple[int, list[Hypothesis]]]:
    """A step of all searches, in which anything may be said if it is `free`; gives what has been found, by number."""
    found: tuple[Tensor, ...]
    last = torch.cat([search.last for search in searches])
    sizes = [len(search.last) for search in searches]
    if free:
        found = steps.best(last, most, torch.cat([search.only_end for search in searches]))
    else:
        found = (steps.step(last),)
    parts = zip(*(each.split(sizes) for each in found), strict=True)
    rows, ended, before = [], [], 0
    for search, part, size in zip(searches, parts, sizes, strict=True):
        going_on, _, done = search.advance(_Share(*part))
        rows.append(going_on + before)
        ended += done
        before += size
    steps.select(torch.cat(rows))
    return ended


class _Share:
    """A search's rows of a step that is done: its logits [R, V], or log p and ids [R, most] of the likeliest tokens."""

    def __init__(self, *found: Tensor) -> None:
        self._found = found

    def step(self, tokens: Tensor) -> Tensor:
        """The logits."""
        [logits] = self._found
        return logits

    def best(self, tokens: Tensor, most: int, only_end: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest tokens."""
        log_p, ids = self._found
        return log_p, ids

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
        """Is done for all searches at once."""
