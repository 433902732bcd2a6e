#!/usr/bin/env python3
"""Make a small English-German corpus from the translations of LibreOffice.

The input is one component of Debian's source package of LibreOffice.  Any machine with apt can
fetch it; the entries for sources ("deb-src") must be switched on for the first two commands::

    apt-get update
    apt-get source --print-uris libreoffice | grep orig-translations | tr -d "'" > component
    read -r uri file size hash < component
    /usr/lib/apt/apt-helper download-file "$uri" "$file" "$hash"

Then, with the name that is now in ``$file``::

    python data/extract_libreoffice.py libreoffice_7.4.7.orig-translations.tar.xz data/

This writes ``data/libreoffice/{train,valid,test}.{en,de}.gz``: one sentence a line, line N of one
language beside line N of the other.  The same archive always gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

ROOT = PurePosixPath("translations/source/de")
SPLITS = ("train", "valid", "test")

# Installer scripts, emoji names, lists of languages: hardly any sentences, and little to learn from.
SKIPPED_MODULES = {"dictionaries", "extras", "instsetoo_native", "scp2", "setup_native", "sysui"}

VALID_SHARE = 0.038
TEST_SHARE = 0.045

MIN_WORDS, MAX_WORDS = 3, 60
MAX_RATIO = 2.0  # of the words, and of the letters, of the longer side to those of the shorter
SLACK_WORDS, SLACK_LETTERS = 3, 15  # short texts may differ by that much, whatever their ratio


# --- Reading PO files -----------------------------------------------------------------------------


@dataclass
class Entry:
    """One message of a PO file."""

    location: str = ""
    fuzzy: bool = False
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """An English text, its German translation, and the document that both stand in."""

    document: str
    en: str
    de: str


PO_KEYWORD = re.compile(r'(msgctxt|msgid|msgid_plural|msgstr(?:\[\d+\])?)\s+(".*")$')
PO_ESCAPE = re.compile(r"\\(.)")
PO_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def unquote(text: str) -> str:
    """Return what a quoted string of a PO file stands for."""
    return PO_ESCAPE.sub(lambda match: PO_ESCAPED.get(match[1], match[1]), text[1:-1])


def read_entries(lines: Iterable[str]) -> Iterator[Entry]:
    """Yield the messages of one PO file, without its header and its obsolete messages."""
    entry, keyword = Entry(), ""
    for line in (*map(str.strip, lines), ""):
        if match := PO_KEYWORD.match(line):
            keyword = match[1]
            entry.fields[keyword] = unquote(match[2])
        elif line.startswith('"'):
            entry.fields[keyword] += unquote(line)
        elif line.startswith("#:"):
            entry.location = entry.location or line[2:].strip()
        elif line.startswith("#,"):
            entry.fuzzy |= "fuzzy" in line
        elif not line:  # An empty line ends a message; "#~" (obsolete) is passed over like a comment.
            if entry.fields.get("msgid"):
                yield entry
            entry, keyword = Entry(), ""


def document_name(po_name: PurePosixPath, location: str) -> str:
    """Return a name, unique in the archive, for the document that a message stands in."""
    file = location.split()[0] if location else po_name.name
    file = re.sub(r":\d+$", "", file)
    # The interface's messages tell the full path of their file; those of the help only its last part.
    return file if "/" in file else f"{po_name.with_suffix('')}/{file}"


def read_archive(archive: Path, dropped: Counter[str]) -> Iterator[Pair]:
    """Yield all usable messages of the archive; count the others in ``dropped``."""
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if name.suffix != ".po" or not name.is_relative_to(ROOT):
                continue
            name = name.relative_to(ROOT)
            file = tar.extractfile(member)
            if file is None or name.parts[0] in SKIPPED_MODULES:
                continue
            for entry in read_entries(file.read().decode("utf-8").splitlines()):
                if reason := unusable(entry):
                    dropped[reason] += 1
                else:
                    document = document_name(name, entry.location)
                    yield Pair(document, entry.fields["msgid"], entry.fields["msgstr"])


def unusable(entry: Entry) -> str | None:
    """Say why a message cannot be used at all."""
    if entry.fuzzy:
        return "fuzzy translation"
    if "msgid_plural" in entry.fields:
        return "plural forms"
    if not entry.fields.get("msgstr"):
        return "not translated"
    if "<bookmark_value>" in entry.fields["msgid"]:
        return "entry of the help's index"
    return None


# --- From marked-up text to plain text ------------------------------------------------------------

IMAGE = re.compile(r"<image\b[^>]*>.*?</image>|<image\b[^>]*/>", re.DOTALL)
SWITCH = re.compile(r"<switchinline\b[^>]*>.*?</switchinline>", re.DOTALL)
DEFAULT = re.compile(r"<defaultinline>(.*?)</defaultinline>", re.DOTALL)
LINE_BREAK = re.compile(r"<br\s*/?>|\n")
# Tags that only dress up the text inside them.
DRESSING = re.compile(
    r"</?(?:emph|ahelp|link|variable|item|menuitem|keycode|literal|widget|input|b|i|em|strong)\b[^<>]*>"
)
PRODUCT_NAME = re.compile(r"%PRODUCTNAME|\$\[officename\]|\$\{PRODUCTNAME\}")
ACCELERATOR = re.compile(r"[_~](?=\w)")
# In menu paths German writes the dots of an entry ("Optionen..."); English mostly leaves them out.
MENU_DOTS = re.compile(r"(?<=\w)\s?\.{3}(?!\w)")
SPACE_BEFORE_STOP = re.compile(r" +([.,;!?])(?=\s|$)")
PLAIN = str.maketrans({
    "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‟": '"', "‘": "'", "’": "'", "‚": "'",
    "›": "'", "‹": "'", "…": "...", "‑": "-", "−": "-", "–": "-", "\xa0": " ", "\u202f": " ", "\xad": None,
    "\u200b": None, "\u2060": None,
})  # fmt: skip


def default_case(match: re.Match[str]) -> str:
    """Resolve a switch of the help (by system or program) to the text for all other cases."""
    default = DEFAULT.search(match[0])
    return default[1] if default else match[0]  # Without one, the tags stay and the pair is dropped.


def plain_text(text: str) -> str:
    """Strip the mark-up that can be stripped safely; keep line breaks as such."""
    text = IMAGE.sub(" ", text)
    text = SWITCH.sub(default_case, text)
    text = LINE_BREAK.sub("\n", text)
    text = DRESSING.sub("", text)
    text = PRODUCT_NAME.sub("LibreOffice", html.unescape(text))
    text = MENU_DOTS.sub("", text.translate(PLAIN))
    lines = (SPACE_BEFORE_STOP.sub(r"\1", " ".join(line.split())) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def without_accelerator(text: str) -> str:
    """Remove the mark of the key to press ("_Save") from a label of the interface."""
    # More than one such mark: a name with underscores, which is dropped later.
    return ACCELERATOR.sub("", text) if len(ACCELERATOR.findall(text)) == 1 else text


# --- From paragraphs to sentences -----------------------------------------------------------------

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-ZÄÖÜ])")
# A stop after these, or after a single letter or a number, does not end a sentence.
ABBREVIATED = re.compile(
    r"(?:^|[\s(])(?:\w|\d+|e\.g|i\.e|z\.B|d\.h|u\.a|etc|usw|bzw|vgl|ca|ggf|evtl|inkl|max|min|vs|Nr|No|"
    r"Abb|Bsp|Mr|Dr|St|approx)\.$"
)


def sentences(line: str) -> list[str]:
    """Split a line of text into sentences."""
    found: list[str] = []
    for part in SENTENCE_END.split(line):
        if found and ABBREVIATED.search(found[-1]):
            found[-1] += " " + part
        else:
            found.append(part)
    return found


def lopsided(en: str, de: str) -> bool:
    """Tell whether one text is so much longer than the other that it can hardly mean the same."""
    words = sorted((len(en.split()), len(de.split())))
    letters = sorted((len(en), len(de)))
    more_words = words[1] > MAX_RATIO * words[0] and words[1] > words[0] + SLACK_WORDS
    return more_words or letters[1] > MAX_RATIO * letters[0] + SLACK_LETTERS


def align(en: str, de: str) -> list[tuple[str, str]]:
    """Pair off the sentences of two paragraphs; keep lines whole where the sentences do not match."""
    en_lines, de_lines = en.split("\n"), de.split("\n")
    if len(en_lines) != len(de_lines):
        return [(en, de)]
    pairs: list[tuple[str, str]] = []
    for en_line, de_line in zip(en_lines, de_lines, strict=True):
        en_parts, de_parts = sentences(en_line), sentences(de_line)
        parts = list(zip(en_parts, de_parts, strict=False))
        if len(en_parts) == len(de_parts) and not any(lopsided(*part) for part in parts):
            pairs += parts
        else:
            pairs.append((en_line, de_line))
    return pairs


# --- What is left out -----------------------------------------------------------------------------

WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
NUMBER = re.compile(r"\d+")
# All but letters of West European languages, digits, and the punctuation of prose.
UNCLEAN = re.compile(r"""[^A-Za-zÀ-ÖØ-öø-ÿẞ0-9\s.,;:!?'"()/%&+-]""")
PLACEHOLDER = re.compile(r"%[\w(]|(?<!\d)(?<!\d )%")
ADDRESS = re.compile(r"://|www\.|/\w+/|(?:^|\s)[/.]\w|\w/(?:\s|$)|[^\W\d]{2}\.[^\W\d]{2}|\w:\w", re.I)
# The optional endings of words: "page(s)", "Seite(n)".
PLURAL = re.compile(r"(?<=\w)\((?:s|n|e|r|en|er|es|in|innen)\)")
# Calls such as "SUM(", names such as "getName", lists such as "A1;B2", and Basic's "As String".
CODE = re.compile(r"\w'?\(|\bAs [A-Z]\w+(?: As\b|,|$)|\b[a-z]+[A-Z]|\w;\w|\(\)")
SHOUTED = re.compile(r"\b[A-ZÄÖÜ]{2,}\b")
# Words that the other language does not have; "die" and "in", say, would tell nothing.
ENGLISH = re.compile(r"\b(?:the|of|and|to|this|with|you|your|for|are|from|is|or|be|The|This|With|Your)\b")
GERMAN = re.compile(r"\b(?:und|oder|nicht|ist|sind|eine|einen|einer|für|wird|werden|Sie)\b")
FINAL_STOP = re.compile(r"([.:!?]*)['\")]*$")
MAX_SHOUTED = 0.33
MAX_NUMBERS = 0.25


def uncleanness(text: str) -> str | None:
    """Say what, in one language's text, is not clean prose."""
    if "\n" in text or "<" in text or ">" in text:
        return "mark-up or line break left"
    if PLACEHOLDER.search(text):
        return "placeholder"
    if ADDRESS.search(text):
        return "path, address or file name"
    if UNCLEAN.search(text):
        return "odd character"
    if CODE.search(PLURAL.sub("", text)):
        return "code or formula"
    tokens = text.split()
    if sum(bool(NUMBER.search(token)) for token in tokens) > MAX_NUMBERS * len(tokens):
        return "mostly numbers"
    if len(SHOUTED.findall(text)) > MAX_SHOUTED * len(tokens):
        return "mostly capital letters"
    if text.count('"') % 2 or text.count("(") != text.count(")"):
        return "unbalanced quotes or brackets"
    if not text[0].isalpha():
        return "does not start with a letter"
    return None


def final_stop(text: str) -> str:
    """Return the punctuation that ends a text."""
    match = FINAL_STOP.search(text)
    return match[1] if match else ""


def unlikeness(en: str, de: str) -> str | None:
    """Say what makes two texts doubtful as translations of each other."""
    if en.casefold() == de.casefold():
        return "both sides equal"
    if ENGLISH.search(de):
        return "English words in the German"
    if GERMAN.search(en):
        return "German words in the English"
    if final_stop(en) != final_stop(de):
        return "final punctuation differs"
    if sorted(NUMBER.findall(en)) != sorted(NUMBER.findall(de)):
        return "numbers differ"
    if PLURAL.sub("", en).count("(") != PLURAL.sub("", de).count("("):
        return "brackets differ"
    if lopsided(en, de):
        return "lengths differ"
    return None


def doubt(en: str, de: str) -> str | None:
    """Say why a pair is left out; None for a pair that is kept."""
    if not en or not de:
        return "no text left"
    for text in (en, de):
        if len(WORD.findall(text)) < MIN_WORDS or len(text.split()) > MAX_WORDS:
            return f"fewer than {MIN_WORDS} or more than {MAX_WORDS} words"
    return uncleanness(en) or uncleanness(de) or unlikeness(en, de)


def clean_pairs(pairs: Iterable[Pair], dropped: Counter[str]) -> Iterator[Pair]:
    """Yield the clean sentence pairs of the messages; count the others in ``dropped``."""
    for pair in pairs:
        texts = [plain_text(pair.en), plain_text(pair.de)]
        if not pair.document.startswith("helpcontent2/"):
            texts = [without_accelerator(text) for text in texts]
        for en, de in align(*texts):
            if reason := doubt(en, de):
                dropped[reason] += 1
            else:
                yield Pair(pair.document, en, de)


# --- The three splits -----------------------------------------------------------------------------


def split_of(document: str) -> str:
    """Assign a document to a split, by a hash of its name alone."""
    share = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big") / 2**64
    if share < TEST_SHARE:
        return "test"
    return "valid" if share < TEST_SHARE + VALID_SHARE else "train"


def folded(text: str) -> str:
    """Return the words of a text, without case and punctuation, to find repeated texts by."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def split_pairs(pairs: Iterable[Pair], dropped: Counter[str]) -> dict[str, list[Pair]]:
    """Divide the pairs by document, and let no text of one split appear in another.

    A source is kept once in each split, with its first translation.  What stands in more than one
    split stays in the first of train, valid and test, whether the source or the target is the same.
    """
    by_split: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    for pair in pairs:
        by_split[split_of(pair.document)].append(pair)
    earlier: set[tuple[str, str]] = set()
    for split in SPLITS:
        kept: dict[str, Pair] = {}
        for pair in by_split[split]:
            source = folded(pair.en)
            if source in kept:
                dropped["repeated source"] += 1
            elif ("en", source) in earlier or ("de", folded(pair.de)) in earlier:
                dropped[f"in {split}, but also in an earlier split"] += 1
            else:
                kept[source] = pair
        by_split[split] = list(kept.values())
        earlier |= {("en", source) for source in kept} | {("de", folded(p.de)) for p in kept.values()}
    return by_split


# --- Writing --------------------------------------------------------------------------------------


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write compressed lines; neither a time nor a name goes into the file, only the text."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as file:
        file.write("".join(f"{line}\n" for line in lines).encode("utf-8"))


def report(splits: dict[str, list[Pair]], dropped: Counter[str], out: IO[str]) -> None:
    """Print what was kept and what was dropped."""
    for split, pairs in splits.items():
        documents = len({pair.document for pair in pairs})
        en, de = (sum(len(text.split()) for text in side) for side in sides(pairs))
        print(f"{split:6} {len(pairs):7} pairs {documents:5} documents {en:8} / {de} words", file=out)
    print("dropped:", file=out)
    for reason, count in dropped.most_common():
        print(f"{count:8}  {reason}", file=out)


def sides(pairs: list[Pair]) -> tuple[list[str], list[str]]:
    """Return the English and the German texts."""
    return [pair.en for pair in pairs], [pair.de for pair in pairs]


def main() -> None:
    """Read the archive, and write the corpus."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("archive", type=Path, help="libreoffice_VERSION.orig-translations.tar.xz")
    parser.add_argument("data", type=Path, help="folder to make the folder libreoffice in")
    args = parser.parse_args()

    dropped: Counter[str] = Counter()
    splits = split_pairs(clean_pairs(read_archive(args.archive, dropped), dropped), dropped)
    folder: Path = args.data / "libreoffice"
    folder.mkdir(parents=True, exist_ok=True)
    for split, pairs in splits.items():
        for language, lines in zip(("en", "de"), sides(pairs), strict=True):
            write_lines(folder / f"{split}.{language}.gz", lines)
    report(splits, dropped, sys.stdout)


if __name__ == "__main__":
    main()
