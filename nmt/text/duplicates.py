"""Pairs by their hashes: which have been seen before, in a few bytes a pair."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from nmt.text.scripts import no_letters

_ROOM = 1.5  # places for each key: fewer make searching slow


class Hashes(NamedTuple):
    """What pairs are known by, 64 bits each: their sources, themselves, and if asked for their bare letters."""

    sources: np.ndarray
    pairs: np.ndarray
    letters: np.ndarray


def hashes(pairs: Iterable[tuple[str, str]], near: bool = False) -> Hashes:
    """The hashes of pairs, which should be `one_line`; those of their letters only for `near` duplicates.

    In 36 million pairs two different ones share a hash once in thirty thousand times.
    """
    sources, whole, letters = bytearray(), bytearray(), bytearray()
    for source, target in pairs:
        state = blake2b(source.encode(), digest_size=8)
        sources += state.digest()
        state.update(b"\n" + target.encode())
        whole += state.digest()
        if near:
            letters += blake2b(_letters(source, target).encode(), digest_size=8).digest()
    return Hashes(*(np.frombuffer(bytes(found), "<u8") for found in (sources, whole, letters)))


def hash_of(text: str) -> np.uint64:
    """The hash of a text, in 64 bits."""
    return np.uint64(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little"))


def _letters(source: str, target: str) -> str:
    """Both sides without case, punctuation, digits and spaces; as they are where no letter is left of either."""
    bare = [no_letters().sub("", side.casefold()) for side in (source, target)]
    return "\n".join(bare if any(bare) else (source, target))


class HashSet:
    """A set of 64-bit keys in one array: 12 bytes for each of the `size` keys it is made for. It grows where needed."""

    def __init__(self, size: int) -> None:
        self._table = np.zeros(int(_ROOM * size) + 64, np.uint64)
        self._held = 0

    def add(self, keys: np.ndarray) -> np.ndarray:
        """Adds keys; for each whether it is new, neither in the set before nor earlier among `keys`."""
        keys = np.maximum(keys, np.uint64(1))  # 0 is a free place
        if _ROOM * (self._held + len(keys)) > len(self._table):
            self._grow(len(keys))
        unique, first = np.unique(keys, return_index=True)
        place = (unique % np.uint64(len(self._table))).astype(np.intp)
        new, waiting = np.zeros(len(keys), bool), np.arange(len(unique))
        while len(waiting):
            wanted, there = unique[waiting], place[waiting]
            held = self._table[there]
            free = held == 0
            self._table[there[free]] = wanted[free]  # of two that want one place, one gets it
            won = free & (self._table[there] == wanted)
            new[first[waiting[won]]] = True
            waiting = waiting[~won & (held != wanted)]
            place[waiting] = (place[waiting] + 1) % len(self._table)
        self._held += int(new.sum())
        return new

    def _grow(self, more: int) -> None:
        held = self._table[self._table != 0]
        self._table, self._held = np.zeros(int(2 * _ROOM * (self._held + more)) + 64, np.uint64), 0
        self.add(held)
