"""Where sentences end, and lines too long for a model cut there, or at the next best places. Nothing is lost.

The ends of sentences are those of sentencex, which knows the signs and abbreviations of many languages.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sentencex import segment

SENTENCE, CLAUSE, SPACE, INSIDE = "at the end of a sentence", "after a clause", "between words", "inside a word"

_READ = 2048  # characters that are looked at together: the time sentencex takes may grow with their square
_ESTIMATES = 4  # of the characters that fit, by those that did; then bisection
_CLAUSE = re.compile(r"[,;:!?…)\]}»”’\"–—،؛؟।]+(?= )|[、，；：。！？」』）】》]+")
_JOINS = "\u200d"  # what this stands between is one sign


class Piece(NamedTuple):
    """A piece of a line, from character `begin` to before `end`, no space at its ends; and where it was cut off."""

    begin: int
    end: int
    cut: str = SENTENCE


def sentence_ends(text: str, language: str) -> list[int]:
    """After which characters of a line, made `one_line`, its sentences end, but for the last; in order."""
    code = re.split(r"[-_.]", language.lower())[0]
    ends, start = list[int](), 0
    while start < len(text):
        read = text[start : start + _READ]
        whole = start + len(read) == len(text)
        place = start
        for sentence in _segments(read, code)[:-1]:  # where the last ends, more text may tell
            place += len(sentence)
            ends.append(start + len(text[start:place].rstrip()))
        start = len(text) if whole else place if place > start else start + len(read)
    return ends


def pieces(text: str, tokens: Callable[[str], int], most: int, language: str, begin: int = 0) -> Iterator[Piece]:
    """The parts of a line, made `one_line`, from character `begin` on: each as long as it can be with `most` `tokens`.

    It ends with a sentence, if one ends within what fits; else after a clause in the second half of that; else with a
    word; else where a character ends. Only spaces lie between them. A character that does not fit alone is a piece.
    """
    ends = sentence_ends(text, language)
    while begin < len(text):
        reach = _reach(text, begin, tokens, most)
        found = Piece(begin, len(text)) if reach == len(text) else _cut(text, begin, reach, ends)
        while found.end - begin > 1 and tokens(text[begin : found.end]) > most:  # less text may be more tokens
            found = _cut(text, begin, found.end - 1, ends)
        yield found
        begin = found.end + text[found.end : found.end + 1].isspace()


def _segments(text: str, code: str) -> list[str]:
    """The sentences of a text, as long as it when put together; the text itself where the splitter fails."""
    try:
        found: list[str] = segment(code, text)
    except BaseException as fault:  # a panic in its Rust is no Exception
        if type(fault).__name__ != "PanicException":
            raise
        return [text]
    return found if "".join(found) == text else [text]


def _reach(text: str, begin: int, tokens: Callable[[str], int], most: int) -> int:
    """The end of the longest part that has at most so many tokens; after one character at least."""
    low, high = 1, len(text) - begin + 1  # characters that fit, and that do not
    size, tries = 4 * most, 0
    while high - low > 1:
        size = min(max(size, low + 1), high - 1)
        found = tokens(text[begin : begin + size])
        low, high = (size, high) if found <= most else (low, size)
        tries += 1
        size = size * most // max(found, 1) if tries < _ESTIMATES else min((low + high) // 2, 2 * low)
    return begin + low


def _cut(text: str, begin: int, reach: int, ends: list[int]) -> Piece:
    """The piece from `begin` that ends at the best place up to `reach`."""
    last = bisect_right(ends, reach)
    if last and ends[last - 1] > begin:
        return Piece(begin, ends[last - 1], SENTENCE)
    half = (begin + reach + 1) // 2
    clauses = [half + clause.end() for clause in _CLAUSE.finditer(text[half : reach + 1])]
    if fitting := [end for end in clauses if end <= reach]:
        return Piece(begin, fitting[-1], CLAUSE)
    space = text.rfind(" ", begin, reach + 1)
    if space > begin:
        return Piece(begin, space, SPACE)
    end = reach
    while end > begin + 1 and (unicodedata.category(text[end])[0] == "M" or _JOINS in text[end - 1 : end + 1]):
        end -= 1
    return Piece(begin, end if end > begin + 1 else reach, INSIDE)
