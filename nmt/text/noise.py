"""Noise: what people do to text before it is translated, done to training pairs, so that a model has met it.

The kinds are much like those of OpusTrainer (Bogoychev et al., 2023), but without alignments: marks stand where both
sides have the same. Case is Unicode's, whatever the language: i becomes I in Turkish too.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from nmt import recipe
from nmt.text.corpora import Pair
from nmt.text.markup import MARKUP  # which neither case nor typos touch

Draw = Callable[[], float]  # a number from 0 to below 1, another one each time
Span = tuple[int, int]

_TAG = re.compile(r"<.*[^/]>")  # one that opens or closes
_LEADING = re.compile(r"(?:<[^<>\s]+> )+")  # such as <2de>, the tag of a corpus
_MARKS = ("<", "{", "$", "%", "_", "&")  # how markup begins that stands for something else
_WORD = re.compile(rf"{MARKUP.pattern}|\w+(?:[-.,:/'’&+]\w+)*", re.VERBOSE)
# Words of three letters and more, in the alphabets up to Arabic, in Georgian, and in accented Latin and Greek.
_TYPED = re.compile(r"(?<!\w)[^\W\d_\u0700-\u109f\u1100-\u1dff\u2000-\U0010ffff]{3,}(?!\w)")
_INITIAL = re.compile(r"(?<!\S)[^\w\s]*[^\W\d_]")
_FINAL = re.compile(r"\s*[.!?…。．！？｡।॥؟۔։።]+$")
_OPENED = re.compile(r"[¿¡](?=[^¿¡?!]*$)")  # by the final mark, in Spanish

# What marks look like: N is a number of its own for each, … the word they stand around; else they stand for it.
_NUMBERED = ("{N}", "%N$s", "<xN/>", '<x id="N"/>')
_PLACEHOLDERS = (*_NUMBERED, "%s", "{}")
_TAGS = ("<b>…</b>", "<i>…</i>", "<em>…</em>", "<span>…</span>", "<xN>…</xN>", '<g id="N">…</g>', '<a href="N">…</a>')
_MOST = 3  # places in a pair

# Rows of keys; a key touches two in the row below, in its own column and in the one before. A dot holds a place.
_QWERTY = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_QWERTZ = ("qwertzuiopü", "asdfghjklöä", "yxcvbnm")
_AZERTY = ("azertyuiop", "qsdfghjklm", "wxcvbn")
_CYRILLIC = ("йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю")
_GREEK = (".ςερτυθιοπ", "ασδφγηξκλ", "ζχψωβνμ")
_LATIN = dict.fromkeys(["bs", "cs", "de", "hr", "hu", "lb", "sk", "sl"], _QWERTZ) | {"fr": _AZERTY}


class Noise:
    """Changes a pair of lines as the rates say. `language` is that of the source, whose keyboard typos come from."""

    def __init__(self, rates: recipe.Noise, language: str) -> None:
        self.rates = rates
        layouts = (_LATIN.get(re.split(r"[-_.]", language.lower())[0], _QWERTY), _CYRILLIC, _GREEK)
        self._keys = {key: near for layout in layouts for key, near in _neighbours(layout).items()}

    def __bool__(self) -> bool:
        """Whether there is any noise at all."""
        return any(self.rates.model_dump().values())

    def __call__(self, pair: Pair, draw: Draw) -> Pair:
        """The pair with noise: two lines still, neither of them empty. A line without noise is just as it was.

        Which pairs a kind of noise hits does not depend on the rates of the others; but which words have typos may.
        """
        rates = self.rates
        unpunctuated, holders, tags, case = (draw() for _ in range(4))
        if unpunctuated < rates.no_final_punctuation:
            pair = without_final_punctuation(pair)
        if holders < rates.placeholders:
            pair = with_placeholders(pair, draw)
        if tags < rates.tags:
            pair = with_tags(pair, draw)
        if rates.typos:
            pair = self.with_typos(pair[0], draw), pair[1]
        for rate, cased in ((rates.upper, in_capitals), (rates.title, in_title_case), (rates.lower, in_lower_case)):
            if 0 <= case < rate:
                return cased(pair)
            case -= rate
        return pair

    def with_typos(self, text: str, draw: Draw) -> str:
        """Each word of three letters and more has a typo with probability `rates.typos`."""

        def typed(word: re.Match[str]) -> str:
            return self._mistyped(word[0], draw) if draw() < self.rates.typos else word[0]

        return _outside_markup(lambda part: _TYPED.sub(typed, part), text)

    def _mistyped(self, word: str, draw: Draw) -> str:
        """Two letters swapped, one left out, one twice, or a key hit beside it: another one too, or instead."""
        kind, place = _one(("swap", "drop", "double", "insert", "replace"), draw), int(draw() * len(word))
        before, letter, after = word[:place], word[place], word[place + 1 :]
        if kind == "drop":
            return before + after
        if kind == "swap" and after and after[0] != letter:
            return before + after[0] + letter + after[1:]
        if kind in ("insert", "replace") and (near := self._keys.get(letter.lower())):
            hit = _one(near, draw)
            hit = hit.upper() if letter.isupper() else hit
            return before + (letter + hit if kind == "insert" else hit) + after
        return before + letter + letter + after


def in_capitals(pair: Pair) -> Pair:
    """Both lines in ALL CAPS, ß as SS. A side whose script has no case stays; so does the target of such a source."""
    return _both(pair, lambda text: _outside_markup(str.upper, text))


def in_title_case(pair: Pair) -> Pair:
    """Both Lines With Each Word's First Letter Raised; the others stay, as in McDonald and NASA."""
    return _both(pair, _with_initials)


def in_lower_case(pair: Pair) -> Pair:
    """The source in lower case; the target stays, for that is how a translation of it should be written."""
    return _outside_markup(str.lower, pair[0]), pair[1]


def without_final_punctuation(pair: Pair) -> Pair:
    """Neither line ends a sentence, if both did."""
    bare = [_FINAL.sub("", text) for text in pair]
    if not all(bare) or any(less == text for less, text in zip(bare, pair, strict=True)):
        return pair
    source, target = (_OPENED.sub("", less).strip() or text for less, text in zip(bare, pair, strict=True))
    return source, target


def with_placeholders(pair: Pair, draw: Draw) -> Pair:
    """Placeholders instead of words that are the same on both sides; if there are none, one at an end of both lines."""
    places = _some(_shared(pair), draw)
    marks = _marks(_PLACEHOLDERS if len(places) < 2 else _NUMBERED, max(1, len(places)), draw)
    if not places:
        first = draw() < 0.5
        (start, end), (begin, stop) = _everything(pair)
        places = [((start, start), (begin, begin)) if first else ((end, end), (stop, stop))]
        marks = [f"{mark} " if first else f" {mark}" for mark in marks]
    return _marked(pair, places, marks)


def with_tags(pair: Pair, draw: Draw) -> Pair:
    """Tags around words that are the same on both sides, or, as likely or if there are none, around both lines."""
    places = _some(_shared(pair), draw)
    if not places or draw() < 0.5:
        places = [_everything(pair)]
    return _marked(pair, places, _marks(_TAGS, len(places), draw))


def _both(pair: Pair, cased: Callable[[str], str]) -> Pair:
    """Source and target in another case, where the source has it, for else it could not tell how the target is."""
    if not _has_case(pair[0]):
        return pair
    source, target = (cased(text) if _has_case(text) else text for text in pair)
    return source, target


def _with_initials(text: str) -> str:
    """Words begin at the start of the line, after a space, and after tags and punctuation there."""
    hidden = MARKUP.sub(lambda mark: ("<" if _TAG.fullmatch(mark[0]) else "0") * len(mark[0]), text)
    initials = {word.end() - 1 for word in _INITIAL.finditer(hidden)}
    return "".join(letter.title() if place in initials else letter for place, letter in enumerate(text))


def _has_case(text: str) -> bool:
    """Whether text is in a script with upper and lower case, but for a few words; a letter of Chinese counts thrice."""
    letters = [character for part in MARKUP.split(text)[::2] for character in part if character.isalpha()]
    cased = sum(letter.lower() != letter.upper() for letter in letters)
    return cased > 3 * (len(letters) - cased)


def _outside_markup(change: Callable[[str], str], text: str) -> str:
    parts = MARKUP.split(text)
    parts[::2] = [change(part) for part in parts[::2]]
    return "".join(parts)


def _shared(pair: Pair) -> list[tuple[Span, Span]]:
    """Where the words are that stand once on either side and are names, numbers or addresses, most likely."""
    source, target = (_once(text) for text in pair)
    return [(source[word], target[word]) for word in source if word in target]


def _once(text: str) -> dict[str, Span]:
    words = list(_WORD.finditer(text))
    counts = Counter(word[0] for word in words)
    return {
        word[0]: word.span() for word in words if counts[word[0]] == 1 and _is_copied(word[0], text[: word.start()])
    }


def _is_copied(word: str, before: str) -> bool:
    """Whether a word that translations have too is copied: not in, or a word raised as the first of a sentence."""
    if word.startswith(_MARKS):
        return False
    if any(map(str.isdigit, word)) or MARKUP.match(word):
        return True
    last = before.rstrip()[-1:]
    return len(word) > 1 and word[0].isupper() and (last.isalnum() or last == ",")


def _everything(pair: Pair) -> tuple[Span, Span]:
    """Where both lines begin and end; the source after tags of its own, which tell the model what to do."""
    source, target = pair
    leading = _LEADING.match(source)
    begin = leading.end() if leading and not target.startswith(leading[0]) else 0
    return (begin, len(source)), (0, len(target))


def _some(places: Sequence[tuple[Span, Span]], draw: Draw) -> list[tuple[Span, Span]]:
    """A few of the places, in the order of the source."""
    shuffled = sorted((draw(), place) for place in places)
    few = int(draw() * min(_MOST, len(places))) + 1
    return sorted(place for _, place in shuffled[:few])


def _marks(forms: Sequence[str], count: int, draw: Draw) -> list[str]:
    """So many marks of one form."""
    form, number = _one(forms, draw), int(draw() * 10)
    return [form.replace("N", str(number + n)) for n in range(count)]


def _marked(pair: Pair, places: Sequence[tuple[Span, Span]], marks: Sequence[str]) -> Pair:
    """The n-th mark at the n-th place of both lines; nothing, where a line has one of them already."""
    if any(mark.split("…")[0].strip() in text for mark in marks for text in pair):
        return pair
    lines = list(pair)
    for side in range(2):
        for (start, end), mark in sorted(
            ((at[side], mark) for at, mark in zip(places, marks, strict=True)), reverse=True
        ):
            word = lines[side][start:end]
            lines[side] = lines[side][:start] + mark.replace("…", word) + lines[side][end:]
    return lines[0], lines[1]


def _neighbours(rows: Sequence[str]) -> dict[str, str]:
    """The letters whose keys touch that of each letter."""
    at = {key: (row, column) for row, keys in enumerate(rows) for column, key in enumerate(keys) if key != "."}
    touching = {(0, 1), (0, -1), (1, 0), (1, -1), (-1, 0), (-1, 1)}

    def near(key: str) -> str:
        row, column = at[key]
        return "".join(other for other, (r, c) in at.items() if (r - row, c - column) in touching)

    return {key: near(key) for key in at}


def _one(choices: Sequence[str], draw: Draw) -> str:
    return choices[int(draw() * len(choices))]
