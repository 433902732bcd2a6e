"""What only the whole of the training text can tell: pairs seen before, and pairs of held-out corpora."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nmt.data.shards import OverlapRecord, Stream, StreamPair
from nmt.recipe import Clean
from nmt.text import Corpus, one_line
from nmt.text.cleaning import CODES, DUPLICATE, NEAR_DUPLICATE, OVERLAP, unescape
from nmt.text.duplicates import Hashes, HashSet, hash_of, hashes


@dataclass
class HeldOut:
    """A corpus that training should not see, and what training text shares with it."""

    key: str  # in the recipe
    known: Hashes
    escaped: int = 0  # pairs with HTML entities, which are repaired in training text only
    training: int = 0
    sources: set[int] = field(default_factory=set)  # those found, by their hashes
    pairs: set[int] = field(default_factory=set)

    @classmethod
    def read(cls, key: str, corpus: Corpus) -> "HeldOut":
        """A held-out corpus; raises `DataError` where it cannot be read."""
        read = [(one_line(source), one_line(target)) for source, target in corpus.pairs()]
        escaped = sum(any("&" in side and unescape(side) != side for side in pair) for pair in read)
        sources, pairs, letters = (np.unique(keys) for keys in hashes(read))
        return cls(key, Hashes(sources, pairs, letters), escaped)

    def meet(self, met: Hashes) -> np.ndarray:
        """Takes note of training pairs; which of them have a source of this corpus."""
        found = np.isin(met.sources, self.known.sources)
        if found.any():
            self.training += int(found.sum())
            self.sources.update(met.sources[found].tolist())
            self.pairs.update(met.pairs[np.isin(met.pairs, self.known.pairs)].tolist())
        return found

    @property
    def record(self) -> OverlapRecord:
        """What was found."""
        return OverlapRecord(
            sources=len(self.known.sources), found=len(self.sources), pairs=len(self.pairs), training=self.training
        )


class Sieve:
    """Meets all training pairs in their order, and says which to drop. 12 bytes a pair, 24 with near duplicates."""

    def __init__(self, clean: Clean, pairs: int, held_out: Sequence[HeldOut]) -> None:
        self._clean, self._held_out = clean, held_out
        self._seen = HashSet(pairs if clean.duplicates else 0)
        self._nearly = HashSet(pairs if clean.near_duplicates else 0)

    def __call__(self, met: Hashes, tag: str = "") -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Why each pair is dropped, as a place in `REASONS`; and which overlap with which held-out corpus.

        Under another `tag` a pair is another one.
        """
        task = hash_of(tag) if tag else np.uint64(0)
        reasons = np.zeros(len(met.pairs), np.uint8)
        overlaps = {held.key: held.meet(met) for held in self._held_out}
        if self._clean.overlap == "drop":
            for found in overlaps.values():
                reasons[found] = CODES[OVERLAP]
        if self._clean.duplicates:
            reasons[~self._seen.add(met.pairs ^ task) & (reasons == 0)] = CODES[DUPLICATE]
        if self._clean.near_duplicates:
            reasons[~self._nearly.add(met.letters ^ task) & (reasons == 0)] = CODES[NEAR_DUPLICATE]
        return reasons, overlaps


def select(kept: StreamPair, wanted: np.ndarray) -> StreamPair:
    """The pairs of `kept` that are `wanted`."""
    if wanted.all():
        return kept
    sides = (Stream(side.tokens[np.repeat(wanted, side.lengths)], side.lengths[wanted]) for side in kept)
    return StreamPair(*sides)
