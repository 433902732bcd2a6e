"""From pairs of lines to pairs of token ids, by many processes, in the order of the text."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nmt.data.shards import Stream, StreamPair, select
from nmt.processes import working
from nmt.recipe import Data, tag_of
from nmt.text import Tokenizers, reason_to_drop, tagged
from nmt.text.cleaning import CODES, Cleaner
from nmt.text.corpora import Pair
from nmt.text.duplicates import Hashes, hashes
from nmt.text.lexicon import Lexicon

BLOCK_PAIRS = 2_000
BLOCK_CHARACTERS = 1_000_000  # bounds the memory of a block where lines are long


class Block(NamedTuple):
    """Some pairs in a row of corpus number `corpus`, to train on or not: if not, only empty ones are dropped.

    `part` is the place of the part that they belong to, among those that are made.
    """

    corpus: int
    pairs: list[Pair]
    train: bool
    part: int = 0


class Encoded(NamedTuple):
    """What became of a block: its pairs that are kept so far, and their hashes if they are to train on.

    `reasons` has for each pair of the block why it is dropped, as a place in `REASONS`; 0 is one that is kept.
    `repaired` has which of the kept ones were repaired.
    """

    kept: StreamPair
    hashes: Hashes | None
    reasons: np.ndarray
    repaired: np.ndarray


class PairEncoder:
    """Encodes blocks, and drops the pairs that are not worth keeping; `data` says which those are in training text."""

    def __init__(self, tokenizers: Tokenizers, data: Data, lexicon: Lexicon | None = None) -> None:
        self._tokenizers, self._data = tokenizers, data
        self._lexicon, self._check = lexicon, Cleaner(None)
        self._cleaners: dict[tuple[str, str], Cleaner] = {}  # by the languages of corpora

    @classmethod
    def load(cls, folder: Path, data: Data) -> "PairEncoder":
        """With what was learned into `folder`. Raises `NmtError` where that is missing or damaged."""
        return cls(Tokenizers.load(folder), data, Lexicon.load(folder))

    def __call__(self, block: Block) -> Encoded:
        """The pairs of a block as token ids."""
        corpus = self._data.train[block.corpus] if block.train else self._data.valid
        clean = self._cleaner(self._data.of(corpus)) if block.train else self._check
        sources, targets, reasons, repaired = clean(block.pairs)
        limits, tag = self._data if block.train else None, tag_of(corpus)
        at = np.flatnonzero(reasons == 0)
        sides = [
            Stream(*self._tokenizers.source.packed([tagged(tag, sources[place]) for place in at.tolist()])),
            Stream(*self._tokenizers.target.packed([targets[place] for place in at.tolist()])),
        ]
        extra = len(self._tokenizers.source.encode([tag])[0]) if tag else 0  # the tag is no part of the sentence
        lengths = zip(*(side.lengths.tolist() for side in sides), strict=True)
        reasons[at] = [CODES[reason_to_drop(source - extra, target, limits) or ""] for source, target in lengths]
        kept = select(StreamPair(*sides), reasons[at] == 0)
        left = ((sources[place], targets[place]) for place in np.flatnonzero(reasons == 0).tolist())
        known = hashes(left, self._data.clean.near_duplicates) if block.train else None
        return Encoded(kept, known, reasons, repaired & (reasons == 0))

    def _cleaner(self, data: Data) -> Cleaner:
        languages = data.source, data.target
        if languages not in self._cleaners:
            self._cleaners[languages] = Cleaner(data, lexicon=self._lexicon)
        return self._cleaners[languages]


Encode = Callable[[Iterable[Block]], Iterator[tuple[Block, Encoded]]]


def blocks(corpus: int, pairs: Iterable[Pair], train: bool, part: int = 0) -> Iterator[Block]:
    """The pairs of a corpus, cut into blocks: always at the same places, however many workers there are."""
    held: list[Pair] = []
    characters = 0
    for pair in pairs:
        held.append(pair)
        characters += len(pair[0]) + len(pair[1])
        if len(held) == BLOCK_PAIRS or characters >= BLOCK_CHARACTERS:
            yield Block(corpus, held, train, part)
            held, characters = [], 0
    if held:
        yield Block(corpus, held, train, part)


def encoding(folder: Path, data: Data, workers: int) -> AbstractContextManager[Encode]:
    """Gives the function that encodes blocks, in their order, with the tokenizers in `folder`, cleaned as `data` says.

    With one worker that is done in this process. A block is read only when a worker is about to be free for it,
    so memory is bounded. Raises `NmtError` when a worker dies.
    """
    return working(partial(PairEncoder.load, folder, data), workers)
