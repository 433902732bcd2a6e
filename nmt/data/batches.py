"""Which pairs make up an update, and how an update is cut into chunks; packed, without padding.

The order is a function of (seed, epoch) and an update is a function of where the last one ended, so a place in the data
is two numbers, and resuming is exact.

Axes: T tokens of a stream (Ts of the source, Tt of the target), S sentences.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmt.data.mixing import Order
from nmt.data.segmentation import Segmented
from nmt.data.shards import Shards
from nmt.ids import BOS, EOS

Ids = NDArray[np.int64]

_AHEAD = 1024  # pairs that are looked at together


class Cursor(NamedTuple):
    """A place in the endless stream of pairs: the epoch, and how many of its pairs have been taken."""

    epoch: int = 0
    taken: int = 0


class Chunk(NamedTuple):
    """Some pairs as packed streams: what one forward and backward pass sees.

    source: [Ts] ids, each sentence ending in EOS. decoder_input: [Tt] what the decoder is fed, each sentence beginning
    with BOS. labels: [Tt] what it must say next, each ending in EOS; the last pair has none where it is a filler. The
    lengths [S] cut both streams.
    """

    source: Ids
    source_lengths: Ids
    decoder_input: Ids
    labels: Ids
    target_lengths: Ids

    @property
    def target_tokens(self) -> int:
        """The tokens that carry loss: Tt, without those of a filler."""
        return len(self.labels)

    def filled(self, multiple: int) -> "Chunk":
        """The same with a pair behind that fills both streams up to a multiple of so many tokens; it has no labels."""
        source, target = (multiple - len(ids) % multiple for ids in (self.source, self.decoder_input))
        return Chunk(
            np.append(self.source, np.full(source, EOS)),
            np.append(self.source_lengths, source),
            np.append(self.decoder_input, np.full(target, BOS)),
            self.labels,
            np.append(self.target_lengths, target),
        )


class Sampler:
    """Deals the pairs out to updates, in the order of their epochs.

    An update holds random pairs, whatever their lengths, for as long as neither side exceeds the token budget; the last
    pairs of an epoch share an update with the first of the next, so that no update is small.
    """

    def __init__(self, shards: Shards, batch_tokens: int, order: Order) -> None:
        self._shards, self._tokens, self._order = shards, batch_tokens, order

    def update(self, cursor: Cursor) -> tuple[Ids, Cursor]:
        """The pairs of the update that begins at `cursor`, and where the next one begins."""
        parts: list[Ids] = []
        room = np.array([self._tokens, self._tokens])
        while True:
            ahead = self._order.pairs(cursor.epoch, cursor.taken, cursor.taken + _AHEAD)
            ends = (np.stack(self._shards.lengths_of(ahead)) + 1).cumsum(1)  # with EOS
            fits = int(np.searchsorted((ends > room[:, None]).any(0), True))
            if not fits and not parts:
                fits = 1  # one pair larger than the whole budget is an update of its own
            parts.append(ahead[:fits])
            cursor = Cursor(cursor.epoch, cursor.taken + fits)
            if cursor.taken == len(self._order):
                cursor = Cursor(cursor.epoch + 1, 0)
            if fits < len(ahead):
                return np.concatenate(parts), cursor
            room = room - ends[:, -1]


def split(pairs: Ids, lengths: tuple[Ids, Ids], chunk_tokens: int, multiple: int = 1) -> list[Ids]:
    """The pairs sorted by length and cut into chunks of at most `chunk_tokens` a side (at least one pair each).

    Pairs of like length in one chunk leave the padded view of attention little to pad. There are as few chunks as may
    be, of about equally many tokens; and a `multiple` of so many, where there are enough pairs, so that as many
    processes have equally much to do.
    """
    source, target = lengths[0][pairs] + 1, lengths[1][pairs] + 1
    order = np.lexsort((source, target))
    ends = np.stack([source[order], target[order]]).cumsum(1)
    count = -(-(len(_cuts(ends, chunk_tokens)) + 1) // multiple) * multiple - 1
    lowest = bisect_left(range(chunk_tokens), True, key=lambda limit: len(_cuts(ends, limit)) <= count)
    return [pairs[part] for part in np.split(order, _cuts(ends, lowest))]


def _cuts(ends: Ids, limit: int) -> list[int]:
    """Where pairs, whose tokens add up to `ends` [2, pairs], are cut to have at most `limit` of a side together."""
    cuts: list[int] = []
    begin, before = 0, np.zeros(2, np.int64)
    while True:
        fits = min(int(np.searchsorted(side, used + limit, "right")) for side, used in zip(ends, before, strict=True))
        begin = max(fits, begin + 1)
        if begin >= ends.shape[1]:
            return cuts
        cuts.append(begin)
        before = ends[:, begin - 1]


def pack(shards: Shards | Segmented, pairs: Sequence[int] | Ids) -> Chunk:
    """The chunk of these pairs."""
    both = [shards.pair(int(i)) for i in pairs]
    sources = [part for source, _ in both for part in (source, (EOS,))]
    fed = [part for _, target in both for part in ((BOS,), target)]
    said = [part for _, target in both for part in (target, (EOS,))]
    return Chunk(
        np.concatenate(sources, dtype=np.int64),
        np.array([len(source) + 1 for source, _ in both]),
        np.concatenate(fed, dtype=np.int64),
        np.concatenate(said, dtype=np.int64),
        np.array([len(target) + 1 for _, target in both]),
    )


def parts(chunk: Chunk, count: int) -> list[Chunk]:
    """The same sentences in `count` chunks of about equally many tokens; in fewer where there are no more sentences."""
    tokens = (chunk.source_lengths + chunk.target_lengths).cumsum()
    cuts = np.unique(np.searchsorted(tokens, tokens[-1] * np.arange(1, count) / count) + 1)
    cuts = cuts[cuts < len(tokens)]
    sources, targets = (side.cumsum()[cuts - 1] for side in (chunk.source_lengths, chunk.target_lengths))
    streams = (
        np.split(chunk.source, sources), np.split(chunk.source_lengths, cuts), np.split(chunk.decoder_input, targets),
        np.split(chunk.labels, targets), np.split(chunk.target_lengths, cuts),
    )  # fmt: skip
    return [Chunk(*part) for part in zip(*streams, strict=True)]


def pack_sources(sources: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
    """Sentences of ids, without EOS, as one stream [Ts] with EOS, and its lengths [S]."""
    stream = [token for source in sources for token in (*source, EOS)]
    return np.array(stream, np.int64), np.array([len(source) + 1 for source in sources])
