"""What was fetched, turned into parallel text: PREFIX.lang, each side a file, line N translating line N."""

import hashlib
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from nmt.errors import DataError
from nmt.fetching.catalogue import HoldOut, Part
from nmt.fetching.unpacking import Growth, unpack
from nmt.files import make_folder, output_error, whole_file
from nmt.text.lines import LONGEST_LINE
from nmt.text.opening import opened

_SEGMENT = re.compile(rb"<seg [^>]*>(.*)</seg>")
# Lines about a talk: these say nothing in words, the others hold its title and what it is about.
_ABOUT = re.compile(rb"\s*</?(?:url|talkid|keywords|speaker|reviewer|translator|transcript|doc|file)\b")
_IN_WORDS = re.compile(rb"</?(?:title|description)>")
_SCRATCH = ".unpacking-*.tmp"

Row = tuple[bytes | None, ...]


class Written(NamedTuple):
    """A side of a parallel text: its lines, bytes and SHA-256."""

    lines: int
    bytes: int
    sha256: str


def write_part(prefix: str, part: Part, downloads: Path, folder: Path) -> dict[str, Written]:
    """Writes PREFIX.lang of a part into `folder`, and of what it holds out; gives what was written, by path.

    Raises `DataError` where the text is not what the part says, or its sides differ in length, and `OutputError`
    where the disk refuses; then no file is written, and those that were there are untouched.
    """
    _tidy(part, (prefix, *part.prefixes), downloads, folder)
    try:
        scratch = tempfile.TemporaryDirectory(prefix=_SCRATCH[:-5], suffix=".tmp", dir=downloads)
    except OSError as error:
        raise output_error(downloads, error) from None
    with scratch as unpacked, ExitStack() as stack:
        made = _located(part, downloads, Path(unpacked))
        sides = [chain.from_iterable(_READINGS[part.read](path) for path in made[lang]) for lang in part.sides]
        writers = {name: _Writer(stack, folder, name, part) for name in (prefix, *part.prefixes)}
        choose = _chooser(part, prefix)
        rows = tqdm(zip_longest(*sides), prefix, part.lines, unit=" lines", unit_scale=True, leave=False, disable=None)
        lengths: Counter[str] = Counter()
        for row in rows:
            if None in row:
                _count_rest(row, part, sides, lengths)
                break
            writers[choose(row)].write(row)
        counts = {lang: sum(writer.lines for writer in writers.values()) + lengths[lang] for lang in part.sides}
        _check(prefix, part, counts)
        return dict(chain.from_iterable(writer.written() for writer in writers.values()))


def _tidy(part: Part, prefixes: Iterable[str], downloads: Path, folder: Path) -> None:
    """Removes what a process that was killed here has left under its temporary names: it may be gigabytes."""
    for left in downloads.glob(_SCRATCH):
        shutil.rmtree(left, ignore_errors=True)
    for path in (folder / f"{prefix}.{lang}" for prefix in prefixes for lang in part.sides):
        for left in path.parent.glob(f".{path.name}.????????.tmp"):
            with suppress(OSError):
                left.unlink()


def _located(part: Part, downloads: Path, scratch: Path) -> dict[str, list[Path]]:
    """The files that each side is made of, taken out of their archives."""
    members = defaultdict(set)
    for made in chain.from_iterable(part.sides.values()):
        download, _, member = made.partition("/")
        if member:
            members[download].add(member)
    places = {}
    for download, names in members.items():
        inside = scratch / download
        make_folder(inside)
        unpacked = unpack(downloads / download, names, inside)
        places.update({f"{download}/{name}": path for name, path in unpacked.items()})
    return {lang: [places.get(name, downloads / name) for name in made] for lang, made in part.sides.items()}


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, which may be packed, as they are but for their line feeds."""
    growth = Growth(path)
    with opened(path) as stream:
        for number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE + 1), b""), 1):
            if len(line) > LONGEST_LINE:
                raise DataError(f"{path}:{number}: a line of over {LONGEST_LINE:,} bytes: is this text?")
            growth.add(len(line))
            yield line.removesuffix(b"\n")


def _segments(path: Path) -> Iterator[bytes]:
    """The segments of a test set in SGML, as sacreBLEU reads them: spaces put in order, entities left as they are."""
    for number, line in enumerate(_lines(path), 1):
        if line.lstrip().startswith(b"<seg "):
            found = _SEGMENT.search(line)
            if not found:
                raise DataError(f"{path}:{number}: must be a whole <seg> on one line")
            yield " ".join(found[1].decode("utf-8", "replace").split()).encode()


def _talks(path: Path) -> Iterator[bytes]:
    """The lines of talks, with their titles and descriptions but without other mark-up."""
    for line in _lines(path):
        if not _ABOUT.match(line):
            yield _IN_WORDS.sub(b"", line).strip()


_READINGS: dict[str, Callable[[Path], Iterator[bytes]]] = {"lines": _lines, "segments": _segments, "talks": _talks}


class _Writer:
    """Files that take rows, a column each; they appear when all has gone well."""

    def __init__(self, stack: ExitStack, folder: Path, prefix: str, part: Part) -> None:
        make_folder((folder / prefix).parent)
        self._names = [f"{prefix}.{lang}" for lang in part.sides]
        self._files: list[IO[bytes]] = [stack.enter_context(whole_file(folder / name)) for name in self._names]
        self._states = [hashlib.sha256() for _ in self._names]
        self._bytes = [0] * len(self._names)
        self.lines = 0

    def write(self, row: Iterable[Any]) -> None:
        """Writes a row."""
        for column, text in enumerate(row):
            line = text + b"\n"
            self._files[column].write(line)
            self._states[column].update(line)
            self._bytes[column] += len(line)
        self.lines += 1

    def written(self) -> Iterator[tuple[str, Written]]:
        """What was written, by name."""
        for name, state, count in zip(self._names, self._states, self._bytes, strict=True):
            yield name, Written(self.lines, count, state.hexdigest())


def _chooser(part: Part, prefix: str) -> Callable[[Row], str]:
    """Where a row goes. Sentences that differ only in case and signs go together, whatever the machine or the order."""
    held: HoldOut | None = part.hold_out
    if held is None:
        return lambda row: prefix
    column = list(part.sides).index(held.by)
    shares = [name for name, percent in held.percent.items() for _ in range(percent)]
    shares += [prefix] * (100 - len(shares))

    def choose(row: Row) -> str:
        text = (row[column] or b"").decode("utf-8", "replace")
        bare = "".join(filter(str.isalnum, text.casefold())) or text
        return shares[int.from_bytes(hashlib.blake2b(bare.encode(), digest_size=8).digest()) % 100]

    return choose


def _count_rest(row: Row, part: Part, sides: Sequence[Iterator[bytes]], lengths: Counter[str]) -> None:
    """Counts the lines of the sides that are longer, to say how long they are."""
    for lang, text, side in zip(part.sides, row, sides, strict=True):
        if text is not None:
            lengths[lang] = 1 + sum(1 for _ in side)


def _check(prefix: str, part: Part, counts: dict[str, int]) -> None:
    told = ", ".join(f"{count:,} in {lang}" for lang, count in counts.items())
    if len(set(counts.values())) > 1:
        raise DataError(f"{prefix}: its sides must have equally many lines, found {told}: nothing of it is written")
    if part.lines not in (None, *counts.values()):
        raise DataError(f"{prefix}: must have {part.lines:,} lines, found {told}: nothing of it is written")
    if not any(counts.values()):
        raise DataError(f"{prefix}: no line of text was found: nothing of it is written")
