"""Lines longer than a model was trained on are translated in pieces, and these are put together again."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, takewhile
from typing import NamedTuple

from nmt.text import Tokenizer, one_line, tagged
from nmt.text.flaws import FLAWS
from nmt.text.sentences import INSIDE, SENTENCE, Piece, pieces, sentence_ends
from nmt.translation.translation import Links, Translation

# Chinese and Japanese, which put no space between sentences. Thai, Lao and Khmer, which put none between words, do.
_UNSPACED = re.compile("[\u2e80-\u312f\u3190-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff9f\U00020000-\U0003ffff]")


class Split(NamedTuple):
    """A line, made `one_line`, and its pieces; each is translated behind `lead`, the symbols that the line begins with.

    A line that is translated whole is as it was, and has none.
    """

    line: str
    lead: str = ""
    pieces: tuple[Piece, ...] = ()

    @property
    def texts(self) -> list[str]:
        """What is translated: the pieces, or the line itself."""
        return [tagged(self.lead, self.line[piece.begin : piece.end]) for piece in self.pieces] or [self.line]

    def joined(self, found: Sequence[Sequence[Translation]]) -> list[Translation]:
        """The translations of the line: its n-th best is made of the n-th best of each piece, or the last there is."""
        if not self.pieces:
            return list(found[0])
        count = max(map(len, found))
        return [self._together([several[min(n, len(several) - 1)] for several in found]) for n in range(count)]

    def _together(self, parts: Sequence[Translation]) -> Translation:
        text, links = "", set[tuple[int, int]]()
        tags = len(self.lead.split())
        for place, part in enumerate(parts):
            text += self._between(text, place, part.text)
            before = self.line.count(" ", 0, self.pieces[place].begin) - tags, text.count(" ")
            links |= {(s + before[0] * (s >= tags), t + before[1]) for s, t in part.alignment}
            text += part.text
        found = {flaw for part in parts for flaw in part.flaws}
        mended = bool(found) and all(part.mended or not part.flaws for part in parts)
        kinds = tuple(flaw for flaw in FLAWS if flaw in found)
        return Translation(text, sum(part.score for part in parts), _sorted(links), kinds, mended)

    def _between(self, text: str, place: int, more: str) -> str:
        """The space between what has been said and the translation of this piece; none where there should be none."""
        cut_word = place > 0 and self.pieces[place - 1].cut == INSIDE
        before, after = (self.line[self.pieces[place].begin + step] for step in (-1, 0)) if cut_word else ("", "")
        same_word = cut_word and not (_UNSPACED.match(before) or _UNSPACED.match(after))
        spaced = text and more and not (same_word or _UNSPACED.match(text[-1]) or _UNSPACED.match(more[0]))
        return " " if spaced else ""


class Splitter:
    """Splits lines of more than `most` tokens; `language` is that of the source."""

    def __init__(self, tokenizer: Tokenizer, language: str, most: int) -> None:
        self._tokenizer, self._language, self.most = tokenizer, language, most
        self._symbols = frozenset(tokenizer.symbols)

    def __call__(self, line: str, tag: str = "") -> Split:
        """The line in pieces that have at most so many tokens, with the tag that will be put before them.

        Whole, if it has no more.
        """
        if len(line.encode(errors="replace")) + len(tag) + 2 < self.most:  # a token is a byte or more
            return Split(line)

        def tokens(text: str) -> int:
            return self.count(tagged(tag, tagged(lead, text)))

        lead = ""
        if tokens(line) <= self.most:
            return Split(line)
        text, lead, begin = self._begun(line)
        return Split(text, lead, tuple(pieces(text, tokens, self.most, self._language, begin)))

    def apart(self, line: str) -> Split:
        """The line with each of its sentences a piece; whole, if it is but one."""
        text, lead, begin = self._begun(line)
        ends = [end for end in sentence_ends(text, self._language) if end > begin]
        return Split(text, lead, tuple(_between(text, [begin, *ends, len(text)]))) if ends else Split(line)

    def count(self, line: str) -> int:
        """The tokens of a line."""
        return len(self._tokenizer.encode([line])[0])

    def plain(self, line: str) -> str:
        """The line, made `one_line`, without the symbols that it begins with."""
        text, _, begin = self._begun(line)
        return text[begin:]

    def _begun(self, line: str) -> tuple[str, str, int]:
        """The line, made `one_line`; the symbols that it begins with; and where the rest begins."""
        text = one_line(line)
        lead = " ".join(takewhile(self._symbols.__contains__, text.split(" "))) if self._symbols else ""
        return text, lead, min(len(text), len(lead) + bool(lead))


def joined(splits: deque[Split], found: Iterator[list[Translation]]) -> Iterator[list[Translation]]:
    """The translations of lines, from those of what is translated of them, in order.

    `splits` are taken as they are needed: before the first translation of a line is found, the line must be there.
    """
    for several in found:
        split = splits.popleft()
        yield split.joined([several, *(next(found) for _ in split.pieces[1:])])


def told(number: int, tokens: int, most: int, split: Split) -> str:
    """What is told of the line of this number that was split."""
    inside = sum(piece.cut != SENTENCE for piece in split.pieces[:-1])
    where = f"{inside} of them cut off inside a sentence" if inside else "cut where sentences end"
    return (
        f"line {number} has {tokens:,} tokens, more than the {most} the model was trained on: it is translated in "
        f"{len(split.pieces)} pieces, {where}"
    )


def _between(text: str, places: Sequence[int]) -> Iterator[Piece]:
    for begin, end in pairwise(places):
        yield Piece(begin + text[begin : begin + 1].isspace(), end)


def _sorted(links: Iterable[tuple[int, int]]) -> Links:
    return tuple(sorted(links))
