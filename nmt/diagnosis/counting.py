"""Counting what is in text, block by block, in memory that does not grow with it."""

import string
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from nmt.data.shards import Stream
from nmt.diagnosis.figures import Lengths, Side, Unseen, Vocabulary
from nmt.ids import SPECIALS
from nmt.text import Tokenizer

_COUNTED = 4096  # lengths above are counted as this
_BINS = 20
_SHOWN = 12  # characters and words named
_CURVE = 200  # points of the curve of counts
_CODES = 0x110000
_SIGNS = string.punctuation + "„“”‚‘’«»‹›…–—¿¡。，、！？：；（）「」『』"


class LengthCounter:
    """Counts lines by their lengths."""

    def __init__(self) -> None:
        self._counts = np.zeros(_COUNTED + 1, np.int64)
        self._sum = self._longest = 0

    def add(self, lengths: np.ndarray) -> None:
        """Enters lines of these lengths."""
        if len(lengths):
            self._counts += np.bincount(np.minimum(lengths, _COUNTED), minlength=_COUNTED + 1)
            self._sum += int(lengths.sum())
            self._longest = max(self._longest, int(lengths.max()))

    @property
    def figures(self) -> Lengths:
        """The figures so far; the bins leave half a percent of the lines to the last one."""
        upto, lines = self._counts.cumsum(), int(self._counts.sum())
        median, p95, most = (int(np.searchsorted(upto, share * lines)) for share in (0.5, 0.95, 0.995))
        width = max(1, -(-most // _BINS))
        at = np.arange(_COUNTED + 1)
        bins = np.bincount(np.minimum((np.maximum(at, 1) - 1) // width, _BINS), self._counts, _BINS + 1)
        return Lengths(self._sum / max(1, lines), median, p95, self._longest, width, tuple(bins.astype(int).tolist()))


class SideCounter:
    """Counts one side of the pairs that are kept."""

    def __init__(self, language: str, tokenizer: Tokenizer) -> None:
        self._language = language
        pieces = tokenizer.pieces(range(tokenizer.vocab_size))
        self._is_byte = np.array([len(piece) == 6 and piece.startswith("<0x") for piece in pieces])
        self._known = np.zeros(_CODES, bool)  # a character is known where it is an entry, as all that were learned are
        self._known[[ord(piece) for piece in (*pieces, " ") if len(piece) == 1]] = True
        self._words, self._pieces = LengthCounter(), LengthCounter()
        self._total = np.zeros(3, np.int64)
        self._characters = np.zeros(_CODES, np.int64)
        self.counts = np.zeros(len(pieces), np.int64)

    def add(self, lines: Sequence[str], stream: Stream) -> None:
        """Enters lines, which must be `one_line`, and the pieces that they became."""
        words = np.fromiter((line.count(" ") + 1 for line in lines), np.int64, len(lines))
        codes = np.frombuffer("".join(lines).encode("utf-32-le"), "<u4")
        self._words.add(words)
        self._pieces.add(stream.lengths)
        self._total += words.sum(), len(codes), len(stream.tokens)
        self._characters += np.bincount(codes, minlength=_CODES)
        self.counts += np.bincount(stream.tokens, minlength=len(self.counts))

    @property
    def figures(self) -> Side:
        """The figures so far."""
        words, characters, pieces = self._total.tolist()
        lacking = np.where(self._known, 0, self._characters)
        most = np.argsort(-lacking, kind="stable")[:_SHOWN]
        return Side(
            self._language,
            words,
            characters,
            pieces,
            int(self.counts[self._is_byte].sum()),
            {chr(code): int(lacking[code]) for code in most.tolist() if lacking[code]},
            self._words.figures,
            self._pieces.figures,
        )

    def vocabulary(self, language: str, asked: int, also: "SideCounter | None" = None) -> Vocabulary:
        """How often the entries were seen, on the side of `also` too where it has the same vocabulary."""
        counts = self.counts + also.counts if also else self.counts
        ours = np.sort(counts[SPECIALS:][~self._is_byte[SPECIALS:]])[::-1]
        places = np.unique(np.geomspace(1, max(1, len(ours)), _CURVE).astype(int)) - 1
        curve = tuple(ours[places].tolist()) if len(ours) else ()
        used, seen_10, seen_100 = (int((ours >= least).sum()) for least in (1, 10, 100))
        return Vocabulary(language, asked, len(ours), used, seen_10, seen_100, curve)


def words_of(lines: Iterable[str]) -> list[str]:
    """What lies between spaces, without punctuation at its ends; nothing where that is all there is."""
    return [bare for word in " ".join(lines).split() if (bare := word.strip(_SIGNS))]


class UnseenWords:
    """Words of held-out corpora that training text has not shown yet, of one side. Holds the held-out words only."""

    def __init__(self) -> None:
        self._of: dict[str, Counter[str]] = {}
        self._left: set[str] = set()

    def expect(self, key: str, lines: Iterable[str]) -> None:
        """Enters lines of a held-out corpus."""
        words = self._of.setdefault(key, Counter())
        words.update(words_of(lines))
        self._left |= words.keys()

    def meet(self, lines: Iterable[str]) -> None:
        """Enters lines to train on."""
        self._left.difference_update(words_of(lines))

    def figures(self, key: str) -> Unseen:
        """What is left of a held-out corpus, its commonest words first."""
        words = self._of[key]
        left = sorted((-count, word) for word, count in words.items() if word in self._left)
        return Unseen(words.total(), -sum(count for count, _ in left), tuple(word for _, word in left[:_SHOWN]))


class Drawn:
    """A random sample of the rows of arrays that come one after the other: each row with equal chance."""

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._random = most, np.random.default_rng(seed)
        self._keys, self._rows = np.empty(0), np.empty((0, 2), np.int64)

    def add(self, rows: np.ndarray) -> None:
        """Enters rows [n, 2]: of all so far, those with the lowest random keys stay."""
        keys = np.concatenate([self._keys, self._random.random(len(rows))])
        rows = np.concatenate([self._rows, rows])
        stay = np.sort(np.argpartition(keys, self._most)[: self._most]) if len(keys) > self._most else slice(None)
        self._keys, self._rows = keys[stay], rows[stay]

    @property
    def rows(self) -> np.ndarray:
        """The sample, [n, 2]."""
        return self._rows
