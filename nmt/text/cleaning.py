"""Which pairs are not worth training on, and why; and what is repaired in those that are."""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nmt.recipe import Data
from nmt.text.languages import Languages
from nmt.text.lexicon import Lexicon
from nmt.text.misaligned import Misaligned
from nmt.text.normalise import one_line
from nmt.text.scripts import Counts, count, table

EMPTY, TOO_LONG, LENGTH_RATIO = "empty", "too long", "length ratio"
CONTROL, TAGS, IDENTICAL, LETTERS = "control characters", "tags", "identical sides", "few letters"
SCRIPT, NUMBERS, LANGUAGE, MISALIGNED = "wrong script", "numbers", "wrong language", "misaligned"
DUPLICATE, NEAR_DUPLICATE, OVERLAP = "duplicate", "near duplicate", "overlap"
ENTITIES = "entities"  # the one that repairs

# In the order of the steps. A pair's reason travels as its place in here; 0 is a pair that is kept.
REASONS = (
    "", EMPTY, CONTROL, TAGS, IDENTICAL, LETTERS, SCRIPT, NUMBERS, LANGUAGE, MISALIGNED, TOO_LONG, LENGTH_RATIO,
    OVERLAP, DUPLICATE, NEAR_DUPLICATE,
)  # fmt: skip
CODES = {reason: code for code, reason in enumerate(REASONS)}

LONGEST_NAME = 3  # words: sides as short as this may well be equal, for names are

# White space is not among them, for one_line sees to it; U+FFFD stands for bytes that could not be read.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufffd\ufffe\uffff]")
# Those without ; are left alone: ?a=1&copy=2 is an address.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_ELEMENTS = """
    a abbr address article aside audio b base big blockquote body br button canvas caption center cite code
    col dd del details div dl dt em embed fieldset figure font footer form frame h1 h2 h3 h4 h5 h6 head header hr html i
    iframe img input ins kbd label legend li link main map mark meta nav noscript object ol option p param picture pre
    q s samp script section select small source span strike strong style sub summary sup svg table tbody td textarea
    tfoot th thead title tr track tt u ul var video
"""
_TAG = re.compile(rf"<(?:/?(?:{'|'.join(_ELEMENTS.split())})(?:\s[^<>]*)?/?|!--.*?--|!doctype[^<>]*)>", re.IGNORECASE)
_DIGITS = re.compile(r"\d+")

Predicate = Callable[[str, str], bool]


class Text(NamedTuple):
    """Pairs as they were read, and their sides as they will be encoded."""

    raw: Sequence[tuple[str, str]]
    sources: list[str]
    targets: list[str]
    letters: Sequence[Counts] = ()  # of the two sides, if a step asks for them


class Cleaned(NamedTuple):
    """Pairs as they will be encoded; for each its reason to be dropped (0: none), and whether it was repaired."""

    sources: list[str]
    targets: list[str]
    reasons: np.ndarray
    repaired: np.ndarray

    def kept(self) -> Iterator[tuple[str, str]]:
        """The pairs that no step dropped."""
        return ((self.sources[at], self.targets[at]) for at in np.flatnonzero(self.reasons == 0))


# A step is given pairs and the places of those that are still there; it gives the places of those to drop.
Step = Callable[[Text, np.ndarray], Iterable[int]]


class Cleaner:
    """The steps of `data.clean` that look at one pair at a time, and the one that looks at its neighbours too.

    Without `data`, only pairs with an empty side are dropped, and nothing is repaired. Without `language`, the step
    that tells languages apart is left out, for it is slow; without a `lexicon`, the one that finds misaligned pairs.
    Raises `NmtError` where a step cannot be taken.
    """

    def __init__(self, data: Data | None, language: bool = True, lexicon: Lexicon | None = None) -> None:
        self._repair = data is not None and data.clean.entities
        self._tables: list[np.ndarray] = []
        self._steps: list[tuple[str, Step]] = [(EMPTY, _each(lambda source, target: not (source and target)))]
        if data is None:
            return
        clean = data.clean
        if clean.min_letters or clean.script:
            self._tables = [table(data.source), table(data.target)]
        steps: list[tuple[str, bool, Callable[[], Step]]] = [
            (CONTROL, clean.control_characters, lambda: _controlled),
            (TAGS, clean.tags, lambda: _each(has_tags)),
            (IDENTICAL, clean.identical, lambda: _each(is_copy)),
            (LETTERS, clean.min_letters > 0, lambda: _FewLetters(clean.min_letters)),
            (SCRIPT, clean.script, lambda: _foreign),
            (NUMBERS, clean.numbers, lambda: _each(lambda source, target: not same_numbers(source, target))),
            (LANGUAGE, clean.language and language, lambda: _each(Languages(data.source, data.target).differ)),
        ]
        if lexicon:
            steps.append((MISALIGNED, clean.misaligned, lambda: _astray(lexicon)))
        self._steps += [(reason, make()) for reason, wanted, make in steps if wanted]

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> Cleaned:
        """The pairs as `one_line`, and what becomes of each: the first step that finds fault with it says why."""
        raw, repaired = pairs, np.zeros(len(pairs), bool)
        if self._repair:
            raw = [(unescape(a), unescape(b)) if "&" in a or "&" in b else (a, b) for a, b in pairs]
            repaired = np.fromiter((now != was for now, was in zip(raw, pairs, strict=True)), bool, len(pairs))
        sides = [one_line(source) for source, _ in raw], [one_line(target) for _, target in raw]
        text = Text(raw, *sides, [count(lines, known) for lines, known in zip(sides, self._tables, strict=False)])
        reasons = np.zeros(len(pairs), np.uint8)
        for reason, step in self._steps:
            reasons[list(step(text, np.flatnonzero(reasons == 0)))] = CODES[reason]
        return Cleaned(text.sources, text.targets, reasons, repaired & (reasons == 0))


def reason_to_drop(source: int, target: int, data: Data | None) -> str | None:
    """Why a pair with so many `source` and `target` tokens is dropped, or None when it is kept.

    - "empty": a side has no token
    - "too long": a side has more than `data.max_length` tokens
    - "length ratio": the longer side has more than `data.max_ratio` times the tokens of the shorter

    Without `data`, only empty pairs are dropped.
    """
    longer, shorter = max(source, target), min(source, target)
    if shorter == 0:
        return EMPTY
    if data is None:
        return None
    if longer > data.max_length:
        return TOO_LONG
    if longer > data.max_ratio * shorter:
        return LENGTH_RATIO
    return None


def unescape(text: str) -> str:
    """`text` with the characters that HTML's entities stand for, also where they were escaped twice (&amp;quot;)."""
    for _ in range(2):
        if "&" in text:
            text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return text.replace("\n", " ")


def has_tags(source: str, target: str) -> bool:
    """Whether a side has a tag of HTML: of an element that there is, for x < y > z is none."""
    return ("<" in source and _TAG.search(source) is not None) or ("<" in target and _TAG.search(target) is not None)


def is_copy(source: str, target: str) -> bool:
    """Whether the sides are the same, but for case, and longer than most names."""
    return (
        len(source) == len(target)
        and source.casefold() == target.casefold()
        and (source.count(" ") >= LONGEST_NAME or len(source.split()) > LONGEST_NAME)
    )


def same_numbers(source: str, target: str) -> bool:
    """Whether either side has the digits of the other, however they are grouped and in whichever order.

    1,000.5 is 1 000,5 and 1000.5; 05.03.2020 is 3/5/2020. What is written out in words has no digits.
    """
    ours, theirs = (_numbers(side) for side in (source, target))
    if ours == theirs:
        return True
    for run in list(ours):
        if run in theirs:
            ours.remove(run)
            theirs.remove(run)
    return "".join(ours) == "".join(theirs)


def _numbers(text: str) -> list[str]:
    """The runs of digits, of whatever script, without the 0 of 05."""
    runs = (str(int(run)) if len(run) == 2 else run for run in _DIGITS.findall(text))
    return [run if run.isascii() else "".join(str(unicodedata.digit(digit)) for digit in run) for run in runs]


def _each(at_fault: Predicate) -> Step:
    """The step that drops the pairs for which `at_fault` holds."""

    def step(text: Text, places: np.ndarray) -> Iterator[int]:
        return (at for at in places.tolist() if at_fault(text.sources[at], text.targets[at]))

    return step


def _controlled(text: Text, places: np.ndarray) -> Iterator[int]:
    """Pairs with a control character, or with the sign for bytes that could not be read."""
    for at in places.tolist():
        if any(_CONTROL.search(side) for side in text.raw[at] if not side.isprintable() or "\ufffd" in side):
            yield at


def _astray(lexicon: Lexicon) -> Step:
    """The step that drops misaligned pairs; those dropped already are neighbours too."""
    find = Misaligned(lexicon)
    return lambda text, places: places[find(text.sources, text.targets)[places]]


class _FewLetters:
    """Pairs of which a side has a smaller share of letters, among what is no space, than `least`."""

    def __init__(self, least: float) -> None:
        self._least = least

    def __call__(self, text: Text, places: np.ndarray) -> np.ndarray:
        few = np.zeros(len(text.raw), bool)
        for lines, counted in zip((text.sources, text.targets), text.letters, strict=True):
            printed = np.fromiter((len(line) - line.count(" ") for line in lines), np.int64, len(lines))
            few |= counted.letters < self._least * printed
        return places[few[places]]


def _foreign(text: Text, places: np.ndarray) -> Iterator[int]:
    """Pairs of which a side has most of its letters in a script of other languages; a name may stand as it is."""
    source, target = (2 * counted.own < counted.letters for counted in text.letters)
    return (at for at in places[(source | target)[places]] if text.sources[at] != text.targets[at])
