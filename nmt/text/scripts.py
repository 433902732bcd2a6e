"""Which characters are letters, and of which script; which scripts a language is written in."""

import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

LETTER, OWN = 1, 2  # what a character is: a letter or a mark on one; one of the language's own scripts

# Scripts, as the Unicode names of their letters begin, and the languages (ISO 639) written in them. A language that
# stands several times is written in each; one that stands nowhere is not checked.
_LANGUAGES = {
    "LATIN": """
        af an ast az bcl bi br bs ca ceb co crh cs csb cy da de dsb en eo es et eu fi fj fo fr frp fur fy ga gd
        gl gn gv ha haw hmn hr hsb ht hu ia id ie ig io is it jv ku kw la lb lg li lij lmo ln lt ltg lv mg mi ms mt na
        nb nds nl nn no nso ny oc om pap pl pms pt qu rm rn ro rw sc scn se sg sh sk sl sm sn so sq sr ss st su sv sw
        szl tg tk tl tn to tr ts tt ty uz vec vi vo wa wo xh yo za zu
        deu eng spa fra ita por nld pol ces slk slv hrv srp bos ron hun fin est lav lit swe dan nor nob nno isl tur vie
        ind msa cat glg eus gle sqi mlt swa zul xho afr""",
    "CYRILLIC": """ab av az ba be bg ce crh cv kk kv ky mk mn os ru sah sh sr tg tk tt uk uz
        bel bul mkd rus srp ukr kaz kir mon""",
    "GREEK": "el grc ell",
    "COPTIC": "cop",
    "ARMENIAN": "hy hye",
    "GEORGIAN": "ka kat",
    "HEBREW": "he iw yi heb yid",
    "ARABIC": "ar arz ary az ckb dv fa ha kk ks ku ky ps sd ug ur ara fas urd pus",
    "SYRIAC": "syr",
    "THAANA": "dv",
    "DEVANAGARI": "bho bh gom hi kok ks mai mr ne new sa sd hin mar nep",
    "BENGALI": "as bn bpy ben",
    "GURMUKHI": "pa pan",
    "GUJARATI": "gu guj",
    "ORIYA": "or ori",
    "TAMIL": "ta tam",
    "TELUGU": "te tel",
    "KANNADA": "kn kan",
    "MALAYALAM": "ml mal",
    "SINHALA": "si sin",
    "THAI": "th tha",
    "LAO": "lo lao",
    "TIBETAN": "bo dz bod",
    "MYANMAR": "my mya",
    "KHMER": "km khm",
    "ETHIOPIC": "am ti amh tir",
    "MONGOLIAN": "mn mon",
    "HANGUL": "ko kor",
    "HIRAGANA": "ja jpn",
    "KATAKANA": "ja jpn",
    "KATAKANA-HIRAGANA": "ja jpn",
    "BOPOMOFO": "zh zho",
    "CJK": "ja ko lzh wuu yue zh jpn kor zho",
}
# The script may be said with the language, as in sr-Latn (ISO 15924).
_OF_TAG = {
    "latn": "LATIN", "cyrl": "CYRILLIC", "arab": "ARABIC", "hebr": "HEBREW", "grek": "GREEK", "deva": "DEVANAGARI",
    "hans": "CJK", "hant": "CJK", "beng": "BENGALI", "guru": "GURMUKHI", "mong": "MONGOLIAN", "ethi": "ETHIOPIC",
}  # fmt: skip
_LAST_LETTER = 0x323B0  # what lies above is unassigned, or private


def scripts_of(language: str) -> frozenset[str]:
    """The scripts that a language is written in, by its code as in de, zh_TW or sr-Latn; none for an unknown one."""
    code, *tags = language.lower().replace("_", "-").replace(".", "-").split("-")
    known = frozenset(script for script, languages in _LANGUAGES.items() if code in languages.split())
    said = frozenset(_OF_TAG[tag] for tag in tags if tag in _OF_TAG)
    return said or known


@cache
def table(language: str = "") -> np.ndarray:
    """What each character is, at the place of its code: LETTER, or LETTER | OWN where it is of the language's scripts.

    Where the scripts of `language` are not known, all letters are its own.
    """
    known, own = np.zeros(sys.maxunicode + 1, np.uint8), scripts_of(language)
    for code in range(_LAST_LETTER):
        character = chr(code)
        if unicodedata.category(character)[0] in "LM":
            script = unicodedata.name(character, "").partition(" ")[0] if own else ""
            known[code] = LETTER | (OWN if not own or script in own else 0)
    return known


@cache
def no_letters() -> re.Pattern[str]:
    """Runs of what is neither a letter nor a mark on one: punctuation, digits, spaces, signs."""
    edges = np.flatnonzero(np.diff(table(), prepend=0)).reshape(-1, 2)
    ranges = (f"{re.escape(chr(first))}-{re.escape(chr(end - 1))}" for first, end in edges.tolist())
    return re.compile(f"[^{''.join(ranges)}]+")


class Counts(NamedTuple):
    """For each line how many letters it has, and how many that are of its language's scripts."""

    letters: np.ndarray
    own: np.ndarray


def count(lines: Sequence[str], known: np.ndarray) -> Counts:
    """Counts the letters of lines without line feeds and halves of surrogate pairs; `known` is their `table`."""
    if not lines:
        return Counts(np.zeros(0, np.int64), np.zeros(0, np.int64))
    codes = np.frombuffer(("\n".join(lines) + "\n").encode("utf-32-le"), "<u4")
    lengths = np.fromiter(map(len, lines), np.int64, len(lines)) + 1
    kinds, starts = known.take(codes), np.cumsum(lengths) - lengths
    letters, own = (np.add.reduceat(kinds & kind, starts, dtype=np.int64) // kind for kind in (LETTER, OWN))
    return Counts(letters, own)
