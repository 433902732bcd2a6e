"""In which order training meets the pairs of its corpora, and how often those of each.

Without weights and temperature, an epoch has every pair once, in an order of its own. Otherwise each corpus is an
endless row of pairs, all of them again and again, each time in another order, so that none comes again before all have
come. An epoch deals out about as many pairs as there are, of every corpus its share, mixed evenly from beginning to
end, and the next epoch goes on where it has stopped.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nmt.data.permutation import Ids, Permutation
from nmt.data.shards import MEND, SplitRecord
from nmt.errors import DataError
from nmt.recipe import Data, weight_of

BLOCK = 1 << 16  # pairs that are mixed at once
_TABLE = 1 << 16  # of as many pairs the order is kept, of each corpus


class Part(NamedTuple):
    """A corpus: the pairs it has, which lie in a row in the shards, and how many pairs of an epoch are its."""

    pairs: int
    drawn: int


def parts_of(data: Data, split: SplitRecord) -> tuple[Part, ...]:
    """The corpora of training text, where an epoch is to have something else than every pair once; else nothing.

    Raises `DataError` where what was prepared does not tell where they lie.
    """
    weights = [weight_of(corpus) for corpus in data.train]
    if data.temperature == 1 and None in weights:
        return ()
    counts = [corpus.pairs - sum(corpus.dropped.values()) for corpus in split.corpora]
    if len(counts) != len(weights) or sum(counts) != split.pairs or min(counts) < 0:
        raise DataError(f"data.train: what is prepared does not tell where each corpus lies: {MEND}")
    given = [weight or count ** (1 / data.temperature) for weight, count in zip(weights, counts, strict=True)]
    shares = [share if count else 0 for share, count in zip(given, counts, strict=True)]
    drawn = [max(1, round(split.pairs * share / sum(shares))) if share else 0 for share in shares]
    return tuple(map(Part, counts, drawn))


def told(data: Data, split: SplitRecord) -> str | None:
    """What an epoch has of each corpus, in a line; nothing where it is every pair once."""
    parts = parts_of(data, split)
    each = (
        f"{part.drawn:,} from {corpus.name} ({part.drawn / max(part.pairs, 1):.2g} times its {part.pairs:,})"
        for part, corpus in zip(parts, split.corpora, strict=False)
    )
    return f"an epoch is {sum(part.drawn for part in parts):,} pairs: {', '.join(each)}" if parts else None


class Order:
    """The order of the pairs in each epoch: a function of seed and epoch. Memory does not grow with the pairs.

    Without `parts`, an epoch has each of the `pairs` once.
    """

    def __init__(self, pairs: int, seed: int, parts: Sequence[Part] = ()) -> None:
        self._seed, self._parts = seed, parts
        self._length = sum(part.drawn for part in parts) if parts else pairs
        self._begins = np.cumsum([0, *(part.pairs for part in parts)]).tolist()
        blocks = -(-self._length // BLOCK)
        # How many pairs of each corpus come before each block: [corpora, blocks + 1].
        drawn = np.array([part.drawn for part in parts], np.int64)
        self._before = drawn[:, None] * np.arange(blocks + 1) // max(blocks, 1)
        self._starts = self._before.sum(0)
        self._epoch = lru_cache(maxsize=1)(lambda epoch: Permutation(pairs, [seed, epoch]))
        self._block = lru_cache(maxsize=1)(self._mixed)
        self._pass = lru_cache(maxsize=len(parts) + 1)(self._drawn_pass)

    def __len__(self) -> int:
        """Pairs to an epoch."""
        return self._length

    def pairs(self, epoch: int, begin: int, end: int) -> Ids:
        """The pairs at the places from `begin` to `end` of an epoch, or to its end."""
        end = min(end, self._length)
        if not self._parts:
            return self._epoch(epoch)(np.arange(begin, end))
        first, last = np.searchsorted(self._starts, [begin, end - 1], side="right").tolist()
        blocks = range(first - 1, last)
        found = np.concatenate([self._block(epoch, block) for block in blocks])
        start = int(self._starts[blocks[0]])
        return found[begin - start : end - start]

    def _mixed(self, epoch: int, block: int) -> Ids:
        """A block of an epoch: its share of each corpus, shuffled, but each corpus in its own order."""
        counts = self._before[:, block + 1] - self._before[:, block]
        corpora = np.repeat(np.arange(len(counts)), counts)
        np.random.default_rng([self._seed, epoch, block, len(counts)]).shuffle(corpora)
        found = np.empty(len(corpora), np.int64)
        for number, (part, count) in enumerate(zip(self._parts, counts.tolist(), strict=True)):
            begin = epoch * part.drawn + int(self._before[number, block])
            found[corpora == number] = self._row(number, begin, begin + count)
        return found

    def _row(self, number: int, begin: int, end: int) -> Ids:
        """The pairs from `begin` to `end` of the endless row of a corpus."""
        size, rows = self._parts[number].pairs, [np.empty(0, np.int64)]
        while begin < end:
            time, place = divmod(begin, size)
            stop = min(end, (time + 1) * size)
            rows.append(self._begins[number] + self._pass(number, time)(np.arange(place, place + stop - begin)))
            begin = stop
        return np.concatenate(rows)

    def _drawn_pass(self, number: int, time: int) -> Permutation:
        return Permutation(self._parts[number].pairs, [self._seed, number, time, 1, 0], _TABLE)
