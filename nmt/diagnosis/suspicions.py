"""Signs that pairs do not translate one another, which no single rule of cleaning sees."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from nmt.diagnosis.figures import Languages, Shift
from nmt.errors import NmtError
from nmt.recipe import Data
from nmt.text import languages
from nmt.text.corpora import Pair

_UNLIKELY = 6.0  # robust standard deviations
_FEWEST = 200  # pairs that say something about the lengths of all
_WINDOW = 500  # pairs whose lengths are compared at a time
_LAGS = (-3, -2, -1, 1, 2, 3)
_FITS = 0.5  # the correlation of lengths from which lines fit each other ...
_BETTER = 0.3  # ... if it is by so much larger than at their own place


def lengths(pairs: Sequence[Pair]) -> np.ndarray:
    """Characters of the sides, [pairs, 2]."""
    return np.array([(len(source), len(target)) for source, target in pairs], np.int64).reshape(-1, 2)


class Balance:
    """How long translations are for how long a source, by the model of Gale and Church (1993).

    A source of n characters has a translation of about c·n, with a variance that grows with n. Both are fitted,
    robustly, to drawn pairs, so that languages of any two scripts will do.
    """

    def __init__(self, drawn: np.ndarray) -> None:
        known = drawn[(drawn > 0).all(1)].astype(float)
        self._fitted = len(known) >= _FEWEST
        if self._fitted:
            self._ratio = float(np.median(known[:, 1] / known[:, 0]))
            self._middle = float(np.median(self._delta(known)))
            self._spread = 1.4826 * float(np.median(np.abs(self._delta(known) - self._middle)))

    def unlikely(self, sizes: np.ndarray) -> np.ndarray:
        """Which pairs of these lengths [pairs, 2] have a side that is much too short for the other."""
        if not self._fitted:
            return np.zeros(len(sizes), bool)
        away = np.abs(self._delta(sizes.astype(float)) - self._middle)
        found: np.ndarray = away > _UNLIKELY * max(self._spread, 1.0)
        return found

    def _delta(self, sizes: np.ndarray) -> np.ndarray:
        source, target = sizes.T
        expected = target / self._ratio  # of the source
        delta: np.ndarray = (expected - source) / np.sqrt((expected + source) / 2 + 1)
        return delta


class Alignment:
    """Meets the pairs of a corpus in their order; finds where lines fit neighbours of their partners better than these.

    Lengths of translations go together. Where they do so only when one side is moved by a few lines, a line is missing
    or there is one too many further up.
    """

    def __init__(self) -> None:
        self._moments = np.zeros(6)
        self._read = 0
        self.shifts: list[Shift] = []

    def add(self, sizes: np.ndarray) -> None:
        """Enters the lengths [pairs, 2] of the next pairs."""
        logs = np.log1p(sizes)
        a, b = logs.T
        self._moments += len(a), a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum()
        for start in range(0, len(sizes), _WINDOW):
            window = logs[start : start + _WINDOW]
            if len(window) >= _FEWEST and (by := shifted(window)):
                self._note(Shift(self._read + start + 1, self._read + start + len(window), by))
        self._read += len(sizes)

    def _note(self, shift: Shift) -> None:
        last = self.shifts[-1] if self.shifts else None
        if last and (last.lines, last.last + 1) == (shift.lines, shift.first):
            self.shifts[-1] = replace(last, last=shift.last)
        else:
            self.shifts.append(shift)

    @property
    def correlation(self) -> float | None:
        """Of the logarithms of the lengths of both sides."""
        n, a, b, aa, bb, ab = self._moments
        spread = (n * aa - a * a) * (n * bb - b * b)
        return float((n * ab - a * b) / np.sqrt(spread)) if n >= _FEWEST and spread > 1e-6 * n * n else None


def shifted(logs: np.ndarray) -> int:
    """By how many lines the second column of lengths is behind the first one; 0 where they fit as they are."""
    own = _fit(logs[:, 0], logs[:, 1])
    best, by = max((_fit(*_moved(logs, lag)), lag) for lag in _LAGS)
    return by if best > _FITS and best > own + _BETTER else 0


def _moved(logs: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    end = len(logs) - abs(lag)
    return (logs[:end, 0], logs[lag:, 1]) if lag > 0 else (logs[-lag:, 0], logs[:end, 1])


def _fit(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of two columns; 0 where one is constant."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0.01 and b.std() > 0.01 else 0.0


class Tongues:
    """Whether drawn pairs are in their languages, by py3langid; not told without it, or where it does not know them."""

    def __init__(self, data: Data) -> None:
        self._data = data
        try:
            self._straight: languages.Languages | None = languages.Languages(data.source, data.target)
        except NmtError:
            self._straight = None

    @property
    def able(self) -> bool:
        """Whether it can tell."""
        return self._straight is not None

    @cached_property
    def _turned(self) -> languages.Languages:
        return languages.Languages(self._data.target, self._data.source)

    def look(self, pairs: Sequence[Pair]) -> Languages | None:
        """What was found in these pairs."""
        straight = self._straight
        if straight is None:
            return None
        wrong = [pair for pair in pairs if straight.differ(*pair)]
        swapped = sum(not self._turned.differ(*pair) for pair in wrong)
        return Languages(len(pairs), len(wrong) - swapped, swapped)
