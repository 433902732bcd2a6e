"""Pairs whose sides do not translate one another: alone, or in a run of lines that slipped."""

import math
from collections.abc import Sequence

import numpy as np

from nmt.text.lexicon import Lexicon, Words, copied

FAR = 3  # lines that a translation may have slipped, either way

_WEAK = 0.75  # evidence for each known word: lines with less, and those about them, are compared with their neighbours
_BETTER = 3.0  # a line's source must fit a neighbour's target by so much better than the neighbour's own source does
_MOST = 50.0  # the evidence that a line can give
# The chances, as logarithms, that a line begins a run of misaligned ones, ends one, is in one or is in none as before.
_BEGIN, _END, _IN, _OUT = map(math.log, (0.005, 0.3, 0.7, 0.995))


class Misaligned:
    """Finds them by the words of a `Lexicon`, with the state of each line, in its place or not, in a Markov chain.

    The evidence of a line is how much likelier its two sides are as translations than by chance, against how well its
    source fits the target some lines away. A pair that stands alone must be e^6 times likelier by chance; in a run,
    whatever speaks for neither is taken along.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def __call__(self, sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
        """Whether each pair, of some in a row, is misaligned."""
        source, target = self._lexicon.words(sources, 0), self._lexicon.words(targets, 1)
        own = self._lexicon.fit(source.known, target.known) + copied(source, target.unknown, len(sources))
        known = sum(np.count_nonzero(side.known, axis=1) for side in (source, target))
        out, away, compared = np.zeros(len(own), bool), np.full(len(own), math.log(0.5)), np.zeros(len(own), bool)
        asked = _near(own < _WEAK * known)
        while asked.any():
            away[asked] = self._elsewhere(source, target, own, np.flatnonzero(asked))
            compared |= asked
            out = _best_path(np.clip(own - away, -_MOST, _MOST))
            asked = _near(out) & ~compared
        return out

    def _elsewhere(self, source: Words, target: Words, own: np.ndarray, at: np.ndarray) -> np.ndarray:
        """How likely the sources `at` these lines are, were their targets some lines away or nowhere; 0 is chance."""
        lines, likely = len(own), np.zeros(len(own))
        for far in (*range(-FAR, 0), *range(1, FAR + 1)):
            here = at[(at + far >= 0) & (at + far < lines)]
            there = here + far
            fits = self._lexicon.fit(source.known[here], target.known[there])
            fits += copied(source, target.moved(far), lines + FAR)[here]
            better = fits > np.maximum(own[there], 0) + _BETTER
            likely[here] += better * np.exp(np.minimum(fits, _MOST))
        likely_at: np.ndarray = np.log(0.5 + 0.5 * likely[at] / (2 * FAR))
        return likely_at


def _near(lines: np.ndarray) -> np.ndarray:
    """Which lines are among those given, or near."""
    near: np.ndarray = np.convolve(lines, np.ones(2 * FAR + 1))[FAR : FAR + len(lines)] > 0
    return near


def _best_path(odds: np.ndarray) -> np.ndarray:
    """Where the likeliest path of states (Viterbi, 1967) is out of place; `odds` are those of being in place."""
    ahead, best = [], _BEGIN - _OUT  # by how much the best path to here that is out of place is ahead of the best other
    for place in odds.tolist():
        best -= place
        ahead.append(best)
        best = max(_BEGIN, best + _IN) - max(_OUT, best + _END)
    before = np.array(ahead)
    begun, ended = (before + _IN < _BEGIN).tolist(), (before + _END > _OUT).tolist()
    out, state = np.zeros(len(odds), bool), ahead[-1] > 0
    for line in range(len(odds) - 1, -1, -1):
        out[line] = state
        if line:
            state = not begun[line - 1] if state else ended[line - 1]
    return out
