"""Pairs whose sides do not translate one another: alone, or in a run of lines that slipped."""

from collections.abc import Sequence

import numpy as np

from nmt.text.lexicon import Lexicon, Words, copied

FAR = 3  # lines that a translation may have slipped, either way
_DOUBTFUL = -2.0  # where all lines fit better than this, none is misaligned
_ENTER, _LEAVE = np.log(0.005), np.log(0.3)  # the chances that a line begins a run of misaligned ones, or ends one
_STAY_IN, _STAY_OUT = np.log(0.7), np.log(0.995)
_MOST = 50.0  # evidence that one line can give


class Misaligned:
    """Finds them by the words of a `Lexicon`, with the two states of each line, in its place or not, in a Markov chain.

    The evidence of a line is how much likelier its two sides are as translations than by chance; against it, how well
    its source fits the target some lines away, better than that fits its own source. One pair alone must be
    e^6 times likelier by chance; in a run, whatever speaks for neither is taken along.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def __call__(self, sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
        """Whether each pair, of some in a row, is misaligned."""
        source, target = self._lexicon.words(sources, 0), self._lexicon.words(targets, 1)
        own = self._lexicon.fit(source.known, target.known) + copied(source, target.unknown, len(sources))
        if not (own < _DOUBTFUL).any():
            return np.zeros(len(own), bool)
        astray = self._elsewhere(source, target, own)
        return _best_path(np.clip(own - astray, -_MOST, _MOST))

    def _elsewhere(self, source: Words, target: Words, own: np.ndarray) -> np.ndarray:
        """How likely each source is where its target lies some lines away or nowhere, as a logarithm; 0 is chance."""
        lines = len(own)
        near = np.convolve(own < _DOUBTFUL, np.ones(2 * FAR + 1))[FAR : FAR + lines]
        doubtful = np.flatnonzero(near)
        likely = np.zeros(lines)
        for far in (*range(-FAR, 0), *range(1, FAR + 1)):
            at = doubtful[(doubtful + far >= 0) & (doubtful + far < lines)]
            fits = self._lexicon.fit(source.known[at], target.known[at + far])
            fits += copied(source, target.moved(far), lines + FAR)[at]
            likely[at] += np.exp(np.minimum(fits - np.maximum(own[at + far], 0), _MOST))
        return np.log(0.5 + 0.5 * likely / (2 * FAR))


def _best_path(odds: np.ndarray) -> np.ndarray:
    """Where the likeliest path of states (Viterbi, 1967) is out of place; `odds` are those of being in place."""
    entered, here, away = [], 0.0, float(_ENTER)
    left = []
    for number, place in enumerate(odds.tolist()):
        if number:
            from_here, from_away = here + _STAY_OUT, away + _LEAVE
            left.append(from_away > from_here)
            to_here = max(from_here, from_away)
            from_here, from_away = here + _ENTER, away + _STAY_IN
            entered.append(from_here > from_away)
            here, away = to_here, max(from_here, from_away)
        here += place
    out = np.zeros(len(odds), bool)
    state = away > here
    for number in range(len(odds) - 1, -1, -1):
        out[number] = state
        if number:
            state = not entered[number - 1] if state else left[number - 1]
    return out
