"""What looks wrong in a translation, told from it and its source alone, without knowing either language.

What is found is a suspicion. The bounds are such that translations made by people are hardly ever suspected;
docs/faithful.md has the figures.
"""

import re
import unicodedata
from collections import Counter

from nmt.text.markup import ADDRESS, PLACEHOLDER, TAG

EMPTY, COPY, LOOP, LENGTH, NUMBERS, MARKUP = (
    "empty", "the source copied", "a loop", "length far off", "numbers lost", "markup lost",
)  # fmt: skip
FLAWS = (EMPTY, COPY, LOOP, LENGTH, NUMBERS, MARKUP)

_NAME = 3  # words that differ: names and titles as long as this stay as they are in many languages
_MARKS = 4  # by so many characters a copy may differ in its punctuation and spaces
_RATIO, _SLACK = 2.5, 6  # a side is too long that has more tokens than so many times those of the other, and so many

# A word four times in a row, several three times; in a word, or where no spaces part words, letters five times or more.
_WORDS_AGAIN = re.compile(r"(?<!\S)(?:(\S+)(?: \1){3}|(\S+(?: \S+){1,11})(?: \2){2})(?!\S)")
_LETTERS_AGAIN = re.compile(r"([^\W\d_]{2,20}?)\1{4}|([^\W\d_])\2{7}")
_WORDS_TWICE, _LETTERS_TWICE = 3, 7  # so many words, or letters of a word, have stood before where that is so
_WORD = re.compile(r"[^\W_]+")

_NUMBER = re.compile(r"\d+(?:[.,:/'’ \u00a0\u202f-]\d+)*")
_RUN = re.compile(r"\d+")
_ANYHOW = re.compile(r"(?<!\d)\d\d? ?[:h] ?\d\d(?!\d)|(?<=\d)[.,]0{1,2}(?!\d)")  # 4:30 may be 16:30, and 2.00 is 2
_ROUND = re.compile(r"\d0{2,}")  # 100 and 5,000 may well be written in words
_DIGITS = 3  # and so may all that has fewer

_SIGN = re.compile(r"[<{%@]|__|://|www\.")  # without any, there is no markup
_COPIED = re.compile(f"{TAG} | {PLACEHOLDER} | {ADDRESS}", re.VERBOSE)


def flaws(source: str, target: str, tokens: tuple[float, float]) -> tuple[str, ...]:
    """What looks wrong in `target` as a translation of `source`, both `one_line`: names out of `FLAWS`.

    `tokens` are how many these have. A source without a letter or digit has no translation that is empty.
    """
    if not any(map(str.isalnum, target)):
        return (EMPTY,) if any(map(str.isalnum, source)) else ()
    found = (
        _copied(source, target),
        _loops(target) and not _loops(source),
        max(tokens) > _RATIO * min(tokens) + _SLACK,
        _numbers_lost(source, target),
        _markup_lost(source, target),
    )
    return tuple(flaw for flaw, holds in zip(FLAWS[1:], found, strict=True) if holds)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _copied(source: str, target: str) -> bool:
    """Whether the words are the same, and more than a name has."""
    if abs(len(source) - len(target)) > _MARKS:
        return False
    words = _words(source)
    return sum(not word.isdecimal() for word in set(words)) > _NAME and words == _words(target)


def _loops(text: str) -> bool:
    """Whether something is said again and again."""
    words = _words(text)
    if len(words) - len(set(words)) >= _WORDS_TWICE and _WORDS_AGAIN.search(" ".join(words)):
        return True
    return any(len(word) - len(set(word)) >= _LETTERS_TWICE and _LETTERS_AGAIN.search(word) for word in words)


def _numbers_lost(source: str, target: str) -> bool:
    """Whether another number stands in the place of one, or one is missing that is hardly ever written in words.

    Numbers are the same however their digits are grouped: 1,000.5 and 1 000,5, 05.03.2020 and 3/5/2020.
    """
    if not _RUN.search(source):
        return False
    ours, theirs = (_ANYHOW.sub(" ", side) for side in (source, target))
    lost, new = _runs(ours) - _runs(theirs), _runs(theirs) - _runs(ours)
    hours = {abs(int(a) - int(b)) for a in lost for b in new if len(a) < _DIGITS > len(b)}
    if lost and new and 12 not in hours and sorted("".join(lost.elements())) != sorted("".join(new.elements())):
        return True  # neither 5 p.m. for 17 o'clock, nor the same digits in other groups
    numbers = map(_digits, _NUMBER.findall(ours) if lost else [])
    missing = [number for number in numbers if len(number) >= _DIGITS and number not in _digits(theirs)]
    return any(not _ROUND.fullmatch(number) for number in missing)


def _runs(text: str) -> Counter[str]:
    """The runs of digits, without the 0 of 05."""
    return Counter(str(int(run)) if len(run) < _DIGITS else _digits(run) for run in _RUN.findall(text))


def _digits(text: str) -> str:
    """The digits, of whatever script, as 0 to 9."""
    return "".join(str(unicodedata.decimal(sign)) for sign in text if sign.isdecimal())


def _markup_lost(source: str, target: str) -> bool:
    """Whether the target has not all tags, placeholders and addresses of the source, and each as often."""
    if not _SIGN.search(source):
        return False
    return bool(Counter(_COPIED.findall(source)) - Counter(_COPIED.findall(target)))
