"""What only the whole of the training text can tell: pairs seen before, and pairs of held-out corpora."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nmt.data.shards import OverlapRecord
from nmt.recipe import Clean
from nmt.text import Corpus, one_line
from nmt.text.cleaning import CODES, DUPLICATE, NEAR_DUPLICATE, OVERLAP, unescape
from nmt.text.duplicates import Hashes, HashSet, hash_of, hashes

HASHES_AT_ONCE = 32_000_000

Sifted = tuple[np.ndarray, dict[str, np.ndarray]]  # reasons; which pairs overlap with which held-out corpus
# Reads the hashes of all parts, in order, and what tells the tags of pairs apart: under another tag a pair is another.
Parts = Callable[[], Iterable[tuple[Hashes, np.ndarray]]]


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

    def __call__(self, met: Hashes, tag: str = "") -> Sifted:
        """Why each pair is dropped, as a place in `REASONS`; and which overlap with which held-out corpus.

        Under another `tag` a pair is another one.
        """
        task = hash_of(tag) if tag else np.uint64(0)
        seen = ~self._seen.add(met.pairs ^ task) if self._clean.duplicates else None
        nearly = ~self._nearly.add(met.letters ^ task) if self._clean.near_duplicates else None
        return _sift(met, self._clean, self._held_out, seen, nearly)


class PartSieve:
    """The same for text that lies in parts, in memory that does not grow with it.

    `parts` are read several times, where there are so many pairs that not all of their hashes are to be held at once:
    then a pass asks only after those of one range. 12 bytes of memory for each of `at_once`, and a bit for each pair.
    """

    def __init__(self, clean: Clean, held_out: Sequence[HeldOut], parts: Parts, at_once: int = HASHES_AT_ONCE) -> None:
        self._clean, self._held_out, self._parts, self._at_once = clean, held_out, parts, at_once

    def __iter__(self) -> Iterator[Sifted]:
        """For each part why its pairs are dropped, as places in `REASONS`; which overlap with which held-out corpus."""
        seen = self._seen(self._clean.duplicates, lambda met, task: met.pairs ^ task)
        nearly = self._seen(self._clean.near_duplicates, lambda met, task: met.letters ^ task)
        for number, (met, _) in enumerate(self._parts()):
            flags = [
                np.unpackbits(bits[number], count=len(met.pairs)).astype(bool) if bits else None
                for bits in (seen, nearly)
            ]
            yield _sift(met, self._clean, self._held_out, *flags)

    def _seen(self, wanted: bool, keys_of: Callable[[Hashes, np.ndarray], np.ndarray]) -> list[np.ndarray]:
        """For each part which of its keys have been there before, as bits; nothing if that is not wanted."""
        if not wanted:
            return []
        sizes = [len(met.pairs) for met, _ in self._parts()]
        found = [np.zeros(-(-size // 8), np.uint8) for size in sizes]
        ranges = max(1, -(-sum(sizes) // self._at_once))
        ends = [(number << 64) // ranges for number in range(1, ranges)]
        for number in range(ranges):
            known = HashSet(sum(sizes) // ranges)
            for bits, (met, task) in zip(found, self._parts(), strict=True):
                keys = keys_of(met, task)
                asked = np.searchsorted(np.array(ends, np.uint64), keys, "right") == number
                again = np.zeros(len(keys), bool)
                again[asked] = ~known.add(keys[asked])
                bits |= np.packbits(again)
        return found


def _sift(
    met: Hashes, clean: Clean, held_out: Sequence[HeldOut], seen: np.ndarray | None, nearly: np.ndarray | None
) -> Sifted:
    """What becomes of pairs, of which these have been seen before."""
    reasons = np.zeros(len(met.pairs), np.uint8)
    overlaps = {held.key: held.meet(met) for held in held_out}
    if clean.overlap == "drop":
        for found in overlaps.values():
            reasons[found] = CODES[OVERLAP]
    for reason, again in ((DUPLICATE, seen), (NEAR_DUPLICATE, nearly)):
        if again is not None:
            reasons[again & (reasons == 0)] = CODES[reason]
    return reasons, overlaps
