"""Parallel corpora: two files of equally many lines, or one file of columns, JSON lines, TMX or XLIFF."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nmt.errors import DataError
from nmt.recipe import Corpus as Entry
from nmt.recipe.schema import Jsonl, Prefix, Tmx, Tsv, Xliff
from nmt.text.lines import read_lines
from nmt.text.opening import SUFFIXES, called
from nmt.text.units import UNTRANSLATED, tmx_pairs, xliff_pairs

Pair = tuple[str, str]

_SURROGATE = re.compile("[\ud800-\udfff]")
# How the names of files usually end, for whoever gave one where a prefix belongs.
_KIND_OF_SUFFIX = {
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".tmx": "tmx",
    ".xliff": "xliff",
    ".xlf": "xliff",
}


@dataclass(frozen=True)
class Corpus:
    """Parallel text on disk: `files` are its source and its target side, or its one file; `entry` says of what kind."""

    name: str
    files: tuple[Path, ...]
    entry: Entry
    source: str
    target: str

    def pairs(self, skipped: Counter[str] | None = None) -> Iterator[Pair]:
        """The (source, target) pairs as they stand in the files, one at a time; no side holds a line feed.

        Units without a translation, of kinds of files that have such, are passed over, and counted in `skipped`.
        Raises `DataError`, naming file and line, for what cannot be read; for sides of unequal length, naming both
        counts; and for a file of units none of which has both languages.
        """
        file, skipped = self.files[0], Counter() if skipped is None else skipped
        match self.entry:
            case Tsv():
                return _columns(file)
            case Jsonl(source=source, target=target):
                return _values(file, source or self.source, target or self.target, skipped)
            case Tmx():
                return tmx_pairs(file, self.source, self.target, skipped)
            case Xliff():
                return xliff_pairs(file, self.source, self.target, skipped)
        return read_sides(*self.files)


def locate(entry: Entry, source: str, target: str) -> Corpus:
    """The corpus that `entry` of a recipe stands for; its languages are `source` and `target`, or what it says itself.

    A prefix stands for PREFIX.source and PREFIX.target, or where there is no such file for the same with .gz, .xz
    or .zst. Raises `DataError` where a file is missing.
    """
    said = ""
    if not isinstance(entry, str) and entry.languages:
        source, target = entry.languages
        said = f" ({source}-{target})"
    if not isinstance(entry, str | Prefix):
        file = Path(entry.file)
        return Corpus(called(file) + said, (file if entry.file == "-" else _existing(file),), entry, source, target)
    prefix, files = entry if isinstance(entry, str) else entry.path, []
    for path in (Path(f"{prefix}.{language}") for language in (source, target)):
        packed = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
        files.append(_existing(path, *packed, mend=_kind_meant(prefix)))
    return Corpus(prefix + said, tuple(files), entry, source, target)


def read_pairs(entry: Entry, source: str, target: str) -> Iterator[Pair]:
    """The (source, target) pairs of the corpus that `entry` of a recipe stands for, one at a time.

    Raises `DataError`, as `locate` and `Corpus.pairs` do.
    """
    return locate(entry, source, target).pairs()


def tagged(tag: str, line: str) -> str:
    """A source sentence with its tag before it; as it is where there is none."""
    return f"{tag} {line}" if tag else line


def _existing(*candidates: Path, mend: str = "") -> Path:
    for path in candidates:
        if os.path.exists(path):  # Path.exists raises where a folder may not be searched
            return path
    others = "".join(f", nor {called(path)}" for path in candidates[1:])
    raise DataError(f"{called(candidates[0])}: no such file{others}{mend}")


def _kind_meant(prefix: str) -> str:
    """What to write, where the name of a file stands in the place of a prefix."""
    if prefix == "-":
        return "; standard input is one file: write {tsv: -}, or of what kind it is"
    name = next((prefix.removesuffix(suffix) for suffix in SUFFIXES if prefix.endswith(suffix)), prefix)
    kind = _KIND_OF_SUFFIX.get(Path(name).suffix.lower())
    return f"; did you mean {{{kind}: {prefix}}}?" if kind and os.path.exists(prefix) else ""


def read_sides(source: str | Path, target: str | Path) -> Iterator[Pair]:
    """The pairs of lines of two files. Raises `DataError` where one has more of them, and as `read_lines` does."""
    counts = [0, 0]
    for one, other in zip_longest(read_lines(source), read_lines(target)):
        counts[0] += one is not None
        counts[1] += other is not None
        if one is not None and other is not None:
            yield one, other
    if counts[0] != counts[1]:
        raise DataError(
            f"{source} has {counts[0]:,} lines but {target} has {counts[1]:,}: "
            "each line of one must be the translation of the same line of the other"
        )


def _columns(path: Path) -> Iterator[Pair]:
    for number, line in enumerate(read_lines(path), 1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise DataError(f"{called(path)}:{number}: must be two columns with a tab between, found {len(columns)}")
        yield columns[0], columns[1]


def _values(path: Path, source: str, target: str, skipped: Counter[str]) -> Iterator[Pair]:
    """The values of two keys on each line of JSON; a line with null for one of them is untranslated."""
    for number, line in enumerate(read_lines(path), 1):
        if not line or line.isspace():
            continue
        try:
            value = _object(line)
            one, other = _value(value, source), _value(value, target)
        except ValueError as error:
            raise DataError(f"{called(path)}:{number}: {error}") from None
        if one is None or other is None:
            skipped[UNTRANSLATED] += 1
        else:
            yield one, other


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"must be a JSON object on one line: {error.msg} at position {error.colno}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
        raise ValueError("must be a JSON object on one line, found what is too large or too deep to read") from None
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object on one line, found {_shown(value)}")
    return value


def _value(line: dict[str, Any], key: str) -> str | None:
    """The text under a key, or a path of keys with dots between; halves of a surrogate pair are no text."""
    value: Any = line
    for part in [key] if key in line else key.split("."):
        if not isinstance(value, dict) or part not in value:
            mend = "name it in the recipe, as in {jsonl: FILE, source: KEY}"
            raise ValueError(f"no key {key} among {_shown(list(line))}: {mend}")
        value = value[part]
        if value is None:
            return None
    if not isinstance(value, str):
        raise ValueError(f"{key}: must be text, found {_shown(value)}")
    return _SURROGATE.sub(" ", value).replace("\n", " ")


def _shown(value: Any) -> str:
    """A JSON value as it is told of, on one line."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
