"""Static searches with a model: made when they are first needed, and kept, for their graphs are dear."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from nmt.model.static import StaticDecoding, StaticEngine
from nmt.model.transformer import Transformer
from nmt.search import Hypothesis, Settings, StaticSearch
from nmt.translation.batching import LONG

LEAST = 64  # tokens that there is room for at first


class StaticSearches:
    """Searches with one model, of any number of places."""

    def __init__(self, model: Transformer, precision: torch.dtype) -> None:
        self._engine = StaticEngine(model, precision)
        self._made: dict[tuple[int, Settings], tuple[StaticDecoding, StaticSearch]] = {}

    def take(self, settings: Settings, limits: Sequence[int]) -> bool:
        """Whether they can search in that way, for outputs of so many tokens at most."""
        return settings.groups == 1 and not settings.coverage_penalty and max(limits) + 2 <= self._engine.longest

    def __call__(
        self,
        source: NDArray[np.int64],
        lengths: NDArray[np.int64],
        limits: Sequence[int],
        settings: Settings,
        most: int,
    ) -> list[list[Hypothesis]]:
        """What is found for sentences of these lengths [S] in a stream [T], at most about so many at once."""
        room, width = _double(LEAST, max(limits) + 2), _double(LEAST, int(lengths.max()))
        places = _double(1, min(len(limits), most))
        while places > 1 and places * max(room, width) > 4 * most * LONG:  # long ones take memory
            places //= 2
        decoding, search = self._of(places, settings, min(room, self._engine.longest), width)
        decoding.give(source, lengths)
        try:
            return search(limits, lengths.tolist())
        except BaseException:  # it stands somewhere in the midst of these sentences
            self._made.clear()
            raise

    def _of(self, places: int, settings: Settings, room: int, width: int) -> tuple[StaticDecoding, StaticSearch]:
        """The search at so many places; one with more room takes the place of one with less."""
        key = places, settings
        if key in self._made:
            decoding = self._made[key][0]
            if room <= decoding.room and width <= decoding.source:
                return self._made[key]
            room, width = max(room, decoding.room), max(width, decoding.source)
            del decoding, self._made[key]  # before the next, for there may be no memory for both
        decoding = StaticDecoding(self._engine, places, settings.beam, room, width)
        self._made[key] = decoding, StaticSearch(decoding, settings)
        return self._made[key]


def _double(size: int, least: int) -> int:
    """The size doubled until it is at least so much."""
    while size < least:
        size *= 2
    return size
