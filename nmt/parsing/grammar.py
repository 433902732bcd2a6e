"""What a model may say next if it is to become a tree without repair: a constraint for beam search.

A sequence then has one tag for every word, closes what it opens, and has one root. Only tokens that are a whole bracket
or tag are allowed; a label too rare to be one token is never said.

Axes: R hypotheses, t tokens so far, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nmt.ids import EOS
from nmt.parsing.trees import split_words

BEGIN = "▁"  # with which SentencePiece begins a word
OPEN_AT_ONCE = 8  # brackets that open one after the other; trees have fewer, and a model that goes round has more


class Grammar:
    """Which tokens of a vocabulary open, close and tag."""

    def __init__(self, pieces: Sequence[str]) -> None:
        """`pieces` [V] are the tokens as they are written, "▁" beginning a word."""
        opens = {piece[2:]: i for i, piece in enumerate(pieces) if _is_bracket(piece, "(")}
        closes = {piece[2:]: i for i, piece in enumerate(pieces) if _is_bracket(piece, ")")}
        self.opens, self.tags = np.zeros((2, len(pieces)), bool)
        self.closing = np.full(len(pieces), -1)  # of a token that opens, the one that closes it
        for label in opens.keys() & closes.keys():
            self.opens[opens[label]] = True
            self.closing[opens[label]] = closes[label]
        self.closes = np.isin(np.arange(len(pieces)), self.closing)
        for i, piece in enumerate(pieces):
            self.tags[i] = len(piece) > 1 and piece[0] == BEGIN and not set(piece) & set("()")
        self.depth = self.opens.astype(np.int64) - self.closes

    @property
    def usable(self) -> bool:
        """Whether brackets and tags are tokens at all; where they take several, nothing would be allowed."""
        return bool(self.opens.any() and self.tags.any())

    def over(self, lines: Sequence[str]) -> "WellFormed":
        """The constraint on what is said of these lines."""
        return WellFormed(self, np.array([len(split_words(line)) for line in lines]))


class WellFormed:
    """The constraint on what is said of sentences of so many words."""

    def __init__(self, grammar: Grammar, words: NDArray[np.int64]) -> None:
        self._grammar, self._words = grammar, words

    def allowed(self, tokens: NDArray[np.int64], sentences: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[R, V]: what may follow hypotheses of these tokens [R, t], of these sentences [R]."""
        grammar, (rows, length) = self._grammar, tokens.shape
        left = self._words[sentences] - grammar.tags[tokens].sum(1)
        opened = grammar.opens[tokens]
        depths = grammar.depth[tokens].cumsum(1)
        depth = depths[:, -1] if length else np.zeros(rows, np.int64)
        just_opened = opened[:, -1] if length else np.zeros(rows, bool)
        stuck = opened[:, -OPEN_AT_ONCE:].all(1) if length >= OPEN_AT_ONCE else np.zeros(rows, bool)
        may_open = (left > 0) & ((depth > 0) | (length == 0)) & ~stuck
        may_tag = (left > 0) & (depth > 0)
        may_close = (depth > 0) & ~just_opened & ((depth > 1) | (left == 0))
        out: NDArray[np.bool_] = may_open[:, None] & grammar.opens | may_tag[:, None] & grammar.tags
        if length:
            innermost = length - 1 - (opened & (depths == depth[:, None]))[:, ::-1].argmax(1)
            closing = grammar.closing[tokens[np.arange(rows), innermost]]
            closable = np.flatnonzero(may_close & (closing >= 0))
            out[closable, closing[closable]] = True
            out[:, EOS] = (depth == 0) & (left == 0)
        return out


def _is_bracket(piece: str, bracket: str) -> bool:
    """Whether a token is a whole bracket with its label."""
    return piece.startswith(BEGIN + bracket) and len(piece) > 2 and not set(piece[2:]) & set("()")
