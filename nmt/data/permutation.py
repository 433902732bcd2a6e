"""An order of numbers that is drawn by seeds, of which any part can be asked for without the rest."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

TABLE = 1 << 24  # numbers of which the order is kept in memory, in 64 MiB
_ROUNDS = 6
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Permutation:
    """The numbers below `count` in an order that follows from `seeds`; memory does not grow with `count`.

    Up to `table` of them are shuffled. More are enciphered, each number on its own: a Feistel network over the bits
    of the next even power of two, walked on until it ends below `count` (Black and Rogaway, 2002, "Ciphers with
    Arbitrary Finite Domains").
    """

    def __init__(self, count: int, seeds: Sequence[int], table: int = TABLE) -> None:
        self._count = count
        self._order: NDArray[np.int32] | None = None
        if count <= table:
            self._order = np.arange(count, dtype=np.int32)
            np.random.default_rng(seeds).shuffle(self._order)
        else:
            self._half = np.uint64(((count - 1).bit_length() + 1) // 2)
            self._mask = np.uint64((1 << int(self._half)) - 1)
            self._keys = np.random.SeedSequence(seeds).generate_state(_ROUNDS, np.uint64)

    def __call__(self, places: Ids) -> Ids:
        """What stands at these places of the order, counted from 0."""
        if self._order is not None:
            return self._order[places].astype(np.int64)
        found = self._encipher(places.astype(np.uint64))
        while (beyond := np.flatnonzero(found >= self._count)).size:
            found[beyond] = self._encipher(found[beyond])
        return found.astype(np.int64)

    def _encipher(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Another number for each, of as many bits: in every round a hash of one half changes the other."""
        left, right = numbers >> self._half, numbers & self._mask
        for key in self._keys:
            hashed = (right ^ key) * _MIX[0]
            hashed = (hashed ^ (hashed >> np.uint64(32))) * _MIX[1]
            left, right = right, left ^ (hashed >> np.uint64(40) & self._mask)
        return left << self._half | right
