"""Which words translate which, learned from the corpus itself; and how well the sides of a pair fit by that.

A word is known by its first letters, so that its forms are one, and by whether a side has it, not how often.
`n` pairs, `a` and `b` known words of the two sides.
"""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from nmt.errors import DataError
from nmt.files import whole_file
from nmt.text.duplicates import hashes
from nmt.text.scripts import table

LEXICON = "lexicon.npz"  # its file in a folder
SAMPLE = 50_000  # pairs that are learned from, at most; they and what is counted of them take about 0.5 GB
FEWEST = 4_000  # of fewer pairs there are no statistics
LONGEST = 1_000  # characters of a side that is learned from

_PREFIX = 5  # letters of a word that count
_RARE = 3  # sentences that a word must be in to be known
_ROUNDS = 4  # of expectation and maximisation
_DISCOUNT = 1.0  # taken from each count: a pair does not vouch for itself
_LEARNED, _ASKED = 12, 16  # of the known words of a sentence these many, the rarest
_COPIED = 6.0  # the evidence of a word that is unknown and yet in both sides: a name, a number
_SURE = 0.02  # the least chance of a word to come from nowhere

_WORDS = 1 << 14  # known words of a side, with none at 0: a pair of them is a number of 28 bits
_SLOTS = 1 << 18  # of the tables in which hashes are looked up
_FILTER, _INDEX = 1 << 22, 1 << 20
_AT_ONCE = 4096  # lines whose characters are looked at together
_ROWS = 256  # pairs that are compared at once
_LETTER, _ALONE = 1, 2  # what characters are: a part of a word, or a word by itself
# Those of scripts that put no spaces between words: Thai and Lao, Burmese, Khmer, kana, Chinese.
_NO_SPACES = (
    (0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800), (0x3040, 0x3100), (0x3400, 0xA000), (0x20000, 0x323B0),
)  # fmt: skip

Pair = tuple[str, str]


class Sample:
    """Pairs drawn from a corpus: those of the lowest hashes, the same ones whatever the order and however often."""

    def __init__(self, size: int = SAMPLE) -> None:
        self._size, self._limit = size, 2**64 - 1
        self._held: dict[int, Pair] = {}

    def add(self, pairs: Sequence[Pair]) -> None:
        """Draws from further pairs, which should be `one_line`."""
        keys = hashes(pairs).pairs
        for at in np.flatnonzero(keys <= np.uint64(self._limit)).tolist():
            if max(map(len, pairs[at])) <= LONGEST:
                self._held[int(keys[at])] = pairs[at]
        if len(self._held) > 2 * self._size:
            self._cut()

    def pairs(self) -> list[Pair]:
        """The pairs drawn, in the order of their hashes."""
        self._cut()
        return list(self._held.values())

    def _cut(self) -> None:
        lowest = sorted(self._held)[: self._size]
        self._held = {key: self._held[key] for key in lowest}
        if len(lowest) == self._size:
            self._limit = lowest[-1]


class Side(NamedTuple):
    """What is known of the words of a side; by word, none at 0."""

    hashes: np.ndarray
    share: np.ndarray  # of the sentences that have it
    alone: np.ndarray  # the chance that it comes from no word of the other side


class Words(NamedTuple):
    """The words of lines: those known, `[n, a]`, the rarest first and 0 for none; those unknown, line by line."""

    known: np.ndarray
    unknown: np.ndarray  # number of the line << 32 | hash, ascending

    def moved(self, lines: int) -> np.ndarray:
        """The unknown words, as if each were so many lines earlier."""
        return self.unknown - (lines << 32)


class Lexicon:
    """Which words go together, by IBM model 1 in both directions (Brown et al., 1993).

    Counts are discounted, as Moore (2004) advises, for in rare words the model sees what is not there.
    """

    def __init__(self, sides: tuple[Side, Side], keys: np.ndarray, chances: tuple[np.ndarray, np.ndarray]) -> None:
        self._sides, self._keys, self._chances = sides, keys, chances
        self._filter = np.zeros(_FILTER, bool)
        self._filter[_scattered(keys, _FILTER)] = True
        self._index = np.zeros(_INDEX, np.int32)
        likely = np.argsort(np.maximum(*chances), kind="stable")  # of two in one place the likelier stays
        self._index[_scattered(keys[likely], _INDEX)] = likely
        self._slots = [_slots(side.hashes) for side in sides]

    @classmethod
    def learn(cls, pairs: Sequence[Pair]) -> Self | None:
        """What pairs teach; None where they are too few."""
        if len(pairs) < FEWEST:
            return None
        lines = [[pair[side] for pair in pairs] for side in (0, 1)]
        found = [words(side) for side in lines]
        known = [_frequent(side) for side in found]
        sides = [_looked_up(side, one, len(pairs), _LEARNED).known for side, one in zip(found, known, strict=True)]
        keys, cells, where = _together(*sides)
        chances, alone = [], []
        for heads, tails, places in ((keys >> 14, keys & (_WORDS - 1), 1), (keys & (_WORDS - 1), keys >> 14, 0)):
            counts, total = _expected(heads, cells, where[places])
            kept = np.maximum(counts - _DISCOUNT, 0)
            chances.append((kept / total[heads]).astype(np.float32))
            mass = np.bincount(tails, counts, _WORDS), np.bincount(tails, kept, _WORDS)
            alone.append(np.clip(1 - mass[1] / np.maximum(mass[0], 1), _SURE, 1))
        some = (chances[0] > 0) | (chances[1] > 0)
        made = (
            Side(one, _share(ids), rest[: len(one)].astype(np.float32))
            for one, ids, rest in zip(known, sides, reversed(alone), strict=True)
        )
        source, target = made
        return cls((source, target), keys[some].astype(np.int32), (chances[0][some], chances[1][some]))

    def save(self, folder: Path) -> None:
        """Writes it into a folder, for `load`. Raises `OutputError`."""
        sides = {f"{name}{n}": value for n, side in enumerate(self._sides) for name, value in side._asdict().items()}
        arrays = sides | {f"chances{n}": value for n, value in enumerate(self._chances)} | {"keys": self._keys}
        with whole_file(folder / LEXICON) as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The one in a folder; None where there is none. Raises `DataError` for a damaged one."""
        try:
            with np.load(folder / LEXICON) as held:
                one, other = (Side(*(held[f"{name}{n}"] for name in Side._fields)) for n in (0, 1))
                return cls((one, other), held["keys"], (held["chances0"], held["chances1"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(f"{folder / LEXICON}: damaged ({error}): run `nmt prepare` again") from None

    def words(self, lines: Sequence[str], side: int) -> Words:
        """The words of lines of the source side (0) or the target side (1)."""
        return _looked_up(words(lines), self._sides[side].hashes, len(lines), _ASKED, self._slots[side])

    def fit(self, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """How much likelier words `[n, a]` and `[n, b]` are as translations than by chance, as a logarithm: `[n]`."""
        fits = np.zeros(len(sources))
        counts = [np.count_nonzero(side, axis=1) for side in (sources, targets)]
        order = np.argsort(counts[0] * counts[1], kind="stable")
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            fits[rows] = self._fit(sources[rows, : counts[0][rows].max()], targets[rows, : counts[1][rows].max()])
        return fits

    def _fit(self, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        keys = (sources[:, :, None] << 14 | targets[:, None, :]).ravel()
        cells = np.flatnonzero(self._filter.take(_scattered(keys, _FILTER)))
        found = self._index[_scattered(keys[cells], _INDEX)]
        held = self._keys[found] == keys[cells]
        cells, found = cells[held], found[held]
        row, cell = np.divmod(cells, max(1, sources.shape[1] * targets.shape[1]))
        from_source, from_target = np.divmod(cell, max(1, targets.shape[1]))
        fits = np.zeros(len(sources))
        for ids, side, chance, column in (
            (targets, self._sides[1], self._chances[0], from_target),
            (sources, self._sides[0], self._chances[1], from_source),
        ):
            mass = np.bincount(row * ids.shape[1] + column, chance[found], ids.size).reshape(ids.shape)
            alone = side.alone[ids]
            fits += np.log(alone + (1 - alone) * mass / side.share[ids]).sum(1)
        return fits


def _scattered(keys: np.ndarray, places: int) -> np.ndarray:
    """A place for each key, of so many, a power of two (Knuth's multiplicative hashing)."""
    scattered: np.ndarray = (keys.view(np.uint32) * np.uint32(0x9E3779B1)) >> np.uint32(33 - places.bit_length())
    return scattered


def copied(source: Words, unknown: np.ndarray, lines: int) -> np.ndarray:
    """The evidence in words that nothing is known of, and that a source line and its target line both have."""
    both = np.intersect1d(source.unknown, unknown, assume_unique=True)
    return _COPIED * np.bincount(both >> 32, minlength=lines)


def words(lines: Sequence[str]) -> np.ndarray:
    """The different words of each line: number of the line << 32 | hash of the word, ascending."""
    parts = (_words(lines[start : start + _AT_ONCE]) + (start << 32) for start in range(0, len(lines), _AT_ONCE))
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _words(lines: Sequence[str]) -> np.ndarray:
    text = "\n".join(lines) + "\n" * _PREFIX
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    kinds = _kinds().take(codes)
    before = np.concatenate([[0], kinds[:-1]])
    begin = np.flatnonzero((kinds == _ALONE) | ((kinds == _LETTER) & (before != _LETTER)))
    lower = _lower()
    hashed = lower[codes[begin]]
    inside = kinds[begin] == _LETTER
    for letter in range(1, _PREFIX):
        inside = inside & (kinds[begin + letter] == _LETTER)
        hashed = hashed * np.uint64(0x9E3779B97F4A7C15) + np.where(inside, lower[codes[begin + letter]], np.uint64(0))
    hashed = (hashed ^ (hashed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(32)
    line = np.searchsorted(np.flatnonzero(codes == ord("\n")), begin)
    return _different(line << 32 | np.maximum(hashed, 1).astype(np.int64))


def _different(keys: np.ndarray) -> np.ndarray:
    """The different ones, ascending; np.unique hashes them first, which takes ten times as long."""
    keys = np.sort(keys)
    return keys[np.flatnonzero(np.diff(keys, prepend=-1))]


@cache
def _kinds() -> np.ndarray:
    """What each character is, at the place of its code."""
    known = table()
    kinds = np.where(known > 0, _LETTER, 0).astype(np.uint8)
    kinds[[code for code in range(0x1FBFA) if chr(code).isdecimal()]] = _LETTER
    for first, end in _NO_SPACES:
        kinds[first:end] = np.where(kinds[first:end], _ALONE, 0)
    return kinds


@cache
def _lower() -> np.ndarray:
    """Each character in lower case, at the place of its code; str.lower of whole lines takes longer."""
    lower = np.arange(sys.maxunicode + 1, dtype=np.uint64)
    for code in range(0x1E944):  # those after it have no case
        if len(small := chr(code).lower()) == 1:
            lower[code] = ord(small)
    return lower


def _frequent(found: np.ndarray) -> np.ndarray:
    """The hashes of the words worth knowing, the rarest first, after a 0 for none."""
    found = np.sort(found & 0xFFFFFFFF)
    first = np.flatnonzero(np.diff(found, prepend=-1))
    known, counts = found[first], np.diff(first, append=len(found))
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] >= _RARE][-(_WORDS - 1) :]
    return np.concatenate([[0], known[order]]).astype(np.uint32)


def _slots(known: np.ndarray) -> np.ndarray:
    """Where in `known` the hashes of each slot are, or 0; of two in one slot the more frequent."""
    slots = np.zeros(_SLOTS, np.int32)
    slots[known & np.uint32(_SLOTS - 1)] = np.arange(len(known))
    slots[0] = 0 if not len(known) else slots[0]
    return slots


def _looked_up(found: np.ndarray, known: np.ndarray, lines: int, most: int, slots: np.ndarray | None = None) -> Words:
    """The words of lines as places in `known`; of each line at most so many."""
    slots = _slots(known) if slots is None else slots
    hashed = (found & 0xFFFFFFFF).astype(np.uint32)
    ids = slots[hashed & np.uint32(_SLOTS - 1)].astype(np.int64)
    ids[known[ids] != hashed] = 0
    keys = np.sort(((found >> 32) << 14 | ids)[ids > 0])
    line = keys >> 14
    rank = np.arange(len(keys)) - np.searchsorted(line, np.arange(lines))[line]
    few = rank < most
    table = np.zeros((lines, max(1, int(rank[few].max(initial=0)) + 1)), np.int32)
    table[line[few], rank[few]] = keys[few] & (_WORDS - 1)
    return Words(table, found[ids == 0])


def _share(ids: np.ndarray) -> np.ndarray:
    """The share of sentences that have each word; 1 for none, so that it says nothing."""
    counts = np.bincount(ids.ravel(), minlength=ids.max(initial=0) + 1)
    counts[0] = len(ids)
    return (np.maximum(counts, 1) / len(ids)).astype(np.float32)


def _together(sources: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The pairs of words that meet; for each meeting which pair it is, and which word of the sample either one is."""
    wide, narrow = sources.shape[1], targets.shape[1]
    both = (sources > 0)[:, :, None] & (targets > 0)[:, None, :]
    cells = np.flatnonzero(both)
    where = (cells // narrow).astype(np.int32), (cells // (wide * narrow) * narrow + cells % narrow).astype(np.int32)
    keys, place = np.unique((sources[:, :, None] << 14 | targets[:, None, :])[both], return_inverse=True)
    return keys.astype(np.int64), place.astype(np.int32), where


def _expected(heads: np.ndarray, place: np.ndarray, tails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each pair of words is translation, as the model expects in the end; and each head, in all."""
    chance = 1 / np.bincount(heads, minlength=_WORDS)[heads]
    for _ in range(_ROUNDS):
        share = chance[place]
        share /= np.bincount(tails, share)[tails]
        counts = np.bincount(place, share, len(heads))
        total = np.bincount(heads, counts, _WORDS)
        chance = counts / total[heads]
    return counts, total
