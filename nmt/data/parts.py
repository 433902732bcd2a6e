"""Parts of the text: what is encoded in one go, by whichever process, and is whole on disk before it counts.

Where a part begins and ends is a function of the text alone. So it does not matter who makes which part, or when.
A part is a shard of the pairs that are kept so far, and beside it what joining has to know of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from nmt.data.accounts import Found
from nmt.data.encoding import Block, Encoded, blocks
from nmt.data.shards import FileRecord, ShardRecord, ShardWriter, record_files, sha256, shard_files
from nmt.errors import DataError
from nmt.files import read_json, sync, write_json
from nmt.text import Corpus
from nmt.text.corpora import Pair
from nmt.text.duplicates import Hashes

PART_PAIRS = 250_000
PART_CHARACTERS = 64_000_000  # of both sides


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Span(NamedTuple):
    """Pairs in a row: so many of corpus number `corpus` of a split, from number `first` on."""

    corpus: int
    first: int
    pairs: int


class Part(_Record):
    """Some text of a split, which may begin in one corpus and end in another. Its files begin with `name`."""

    name: str
    split: str
    spans: tuple[Span, ...]

    @property
    def pairs(self) -> int:
        """The pairs of text."""
        return sum(span.pairs for span in self.spans)


class Made(_Record):
    """A part that is whole on disk: what was found in the text, the files, and by which learned ones they were made."""

    shard: ShardRecord
    found: tuple[Found, ...]
    learned: dict[str, FileRecord]
    files: dict[str, FileRecord]

    @classmethod
    def load(cls, folder: Path, name: str) -> Self:
        """The record of a part. Raises `DataError` where it is missing or damaged."""
        path = folder / _record_file(name)
        if not path.exists():
            raise DataError(f"{folder / name}: missing")
        try:
            return cls.model_validate(read_json(path))
        except (ValidationError, DataError):
            raise DataError(f"{path}: damaged") from None

    @classmethod
    def check(cls, folder: Path, part: Part, learned: dict[str, FileRecord]) -> None:
        """Raises `DataError`, naming the part or its file, unless it is whole and was made by these."""
        made = cls.load(folder, part.name)
        if made.learned != learned:
            raise DataError(f"{folder / part.name}: made with another vocabulary")
        for name, record in made.files.items():
            if not is_whole(folder / name, record):
                raise DataError(f"{folder / name}: missing or damaged")


class Kept(NamedTuple):
    """Of the pairs of a part that are kept so far: their places in its text, which were repaired, and their hashes."""

    places: np.ndarray
    repaired: np.ndarray
    hashes: Hashes

    @classmethod
    def load(cls, folder: Path, name: str) -> Self:
        """Those of a part that is whole."""
        with np.load(folder / _kept_file(name), allow_pickle=False) as file:
            return cls(file["places"], file["repaired"], Hashes(*(file[field] for field in Hashes._fields)))


class Cutter:
    """Cuts the text of a split into parts while it is read."""

    def __init__(self, split: str) -> None:
        self._split = split
        self._done: list[Part] = []
        self._spans: list[Span] = []
        self._pairs = self._characters = 0

    def read(self, number: int, pairs: Iterable[Pair]) -> Iterator[Block]:
        """The pairs of corpus `number`, in blocks; the corpora must come in order."""
        first = 0
        for block in blocks(number, pairs, self._split == "train"):
            count = len(block.pairs)
            if self._spans and self._spans[-1].corpus == number:
                self._spans[-1] = self._spans[-1]._replace(pairs=self._spans[-1].pairs + count)
            else:
                self._spans.append(Span(number, first, count))
            first += count
            self._pairs += count
            self._characters += sum(len(source) + len(target) for source, target in block.pairs)
            if self._pairs >= PART_PAIRS or self._characters >= PART_CHARACTERS:
                self._cut()
            yield block

    def parts(self) -> list[Part]:
        """All parts, once everything has been read."""
        if self._spans:
            self._cut()
        return self._done

    def _cut(self) -> None:
        name = f"{self._split}-{len(self._done):05d}"
        self._done.append(Part(name=name, split=self._split, spans=tuple(self._spans)))
        self._spans = []
        self._pairs = self._characters = 0


def text_of(parts: Sequence[Part], split: str, corpora: Sequence[Corpus]) -> Iterator[Block]:
    """The text of some parts of a split in blocks, each with its part's place in `parts`; the rest is read over.

    Raises `DataError` where a corpus has fewer pairs than it had.
    """
    spans = [(place, span) for place, part in enumerate(parts) if part.split == split for span in part.spans]
    for number, corpus in enumerate(corpora):
        pairs, at = corpus.pairs(), 0
        for place, span in spans:
            if span.corpus != number:
                continue
            wanted, read = islice(pairs, span.first - at, span.first - at + span.pairs), 0
            for block in blocks(number, wanted, split == "train", place):
                read += len(block.pairs)
                yield block
            if read != span.pairs:
                raise changed(corpus.files[0])
            at = span.first + span.pairs


def changed(path: Path) -> DataError:
    """What is said of a file that is another one than it was."""
    return DataError(f"{path}: changed while it was being read: run it again")


class PartWriter:
    """Writes a part. A context manager; only with `close` the part is there."""

    def __init__(self, folder: Path, part: Part, learned: dict[str, FileRecord]) -> None:
        self._folder, self._part, self._learned = folder, part, learned
        (folder / _record_file(part.name)).unlink(missing_ok=True)  # what it vouches for is about to change
        self._found: list[Found] = []
        self._kept: list[Kept] = []
        self._read = 0
        self._shard = ShardWriter(folder, part.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shard.__exit__()

    def add(self, block: Block, encoded: Encoded) -> None:
        """Appends a block."""
        if not self._found or self._found[-1].corpus != block.corpus:
            span = next(span for span in self._part.spans if span.corpus == block.corpus)
            self._found.append(Found(corpus=span.corpus, first=span.first))
        self._found[-1].add(block.pairs, encoded.reasons, encoded.repaired)
        self._shard.add(encoded.kept)
        places = np.flatnonzero(encoded.reasons == 0)
        if encoded.hashes:
            repaired = encoded.repaired[places]
            self._kept.append(Kept((self._read + places).astype(np.uint32), repaired, encoded.hashes))
        self._read += len(block.pairs)

    def close(self) -> None:
        """Ends the part: its files are forced to disk, and then its record, which vouches for them."""
        shard, names = self._shard.close(), shard_files(self._part.name)
        if self._kept:
            names.append(_kept_file(self._part.name))
            self._save_kept()
        for name in names:
            sync(self._folder / name)
        files = record_files(self._folder, names)
        made = Made(shard=shard, found=tuple(self._found), learned=self._learned, files=files)
        write_json(self._folder / _record_file(self._part.name), made.model_dump(mode="json"))

    def _save_kept(self) -> None:
        places, repaired, known = zip(*self._kept, strict=True)
        hashes = Hashes(*map(np.concatenate, zip(*known, strict=True)))
        with open(self._folder / _kept_file(self._part.name), "wb") as file:
            np.savez(file, places=np.concatenate(places), repaired=np.concatenate(repaired), **hashes._asdict())


def is_whole(path: Path, record: FileRecord) -> bool:
    """Whether a file is what it was when it was recorded."""
    return path.is_file() and path.stat().st_size == record.bytes and sha256(path) == record.sha256


def _record_file(name: str) -> str:
    return f"{name}.json"


def _kept_file(name: str) -> str:
    return f"{name}.kept.npz"
