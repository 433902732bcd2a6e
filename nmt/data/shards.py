"""Prepared text on disk: shards of token ids, read through memory maps, and a manifest to vouch for them.

A shard is four arrays of numpy. For each side, `train-00000.source.tokens.npy` has the ids of its sentences
laid end to end, without BOS and EOS, and `train-00000.source.offsets.npy` where each of them begins (and one
entry more, the end). Beside the shards lie the tokenizer and `manifest.json`.
"""

import hashlib
import json
import mmap
from bisect import bisect_right
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from nmt.errors import DataError
from nmt.files import read_json, write_json
from nmt.text.lexicon import LEXICON

FORMAT = 1
MANIFEST = "manifest.json"
DROPPED = "dropped.txt"  # examples for the user; nothing depends on it
FILES = (MANIFEST, "tokenizer*.model", "*.npy", LEXICON, DROPPED)  # all that a folder of prepared text holds
SIDES = ("source", "target")

MEND = "run `nmt prepare` again"


class Stream(NamedTuple):
    """Sentences of one side laid end to end: all their ids, and the length of each."""

    tokens: np.ndarray
    lengths: np.ndarray


class StreamPair(NamedTuple):
    """Sentence pairs: as many sentences on either side, the n-th of one translating the n-th of the other."""

    source: Stream
    target: Stream


def select(kept: StreamPair, wanted: np.ndarray) -> StreamPair:
    """The pairs of `kept` that are `wanted`."""
    if wanted.all():
        return kept
    sides = (Stream(side.tokens[np.repeat(wanted, side.lengths)], side.lengths[wanted]) for side in kept)
    return StreamPair(*sides)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Record):
    """What a file is known by."""

    bytes: int
    sha256: str


class InputRecord(FileRecord):
    """A raw file that was read, and when it was last modified (nanoseconds since 1970)."""

    modified: int


class CorpusRecord(_Record):
    """A corpus: how many pairs were read from it, and how many of them dropped, and repaired, for which reason."""

    name: str
    pairs: int
    dropped: dict[str, int]
    repaired: dict[str, int] = {}


class OverlapRecord(_Record):
    """What training text shares with a held-out corpus: how many of its sources, and how many of its pairs."""

    sources: int  # that the corpus has, counted once each
    found: int  # of them in training text
    pairs: int  # with the same translation
    training: int  # training pairs with one of those sources


class ShardRecord(_Record):
    """A shard: its files begin with `name`."""

    name: str
    pairs: int
    source_tokens: int
    target_tokens: int


class SplitRecord(_Record):
    """All that is there to train on ("train") or to measure progress on ("valid")."""

    corpora: tuple[CorpusRecord, ...]
    shards: tuple[ShardRecord, ...]

    @property
    def pairs(self) -> int:
        """Pairs kept."""
        return sum(shard.pairs for shard in self.shards)

    @property
    def source_tokens(self) -> int:
        """Tokens of the source side, without BOS and EOS."""
        return sum(shard.source_tokens for shard in self.shards)

    @property
    def target_tokens(self) -> int:
        """Tokens of the target side, without BOS and EOS."""
        return sum(shard.target_tokens for shard in self.shards)


class Manifest(_Record):
    """What a folder of prepared text holds, and what it was made from."""

    format: int
    choices: dict[str, Any]  # those of the recipe that decide what is in the folder
    inputs: dict[str, InputRecord]
    vocabulary: dict[str, int]
    splits: dict[str, SplitRecord]
    overlap: dict[str, OverlapRecord] = {}  # of held-out corpora, by their keys in the recipe
    files: dict[str, FileRecord]

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The manifest of a folder. Raises `DataError` where it or a file it names is not whole."""
        path = Path(folder) / MANIFEST
        if not path.exists():
            raise DataError(f"{folder}: nothing is prepared here: run `nmt prepare` first")
        try:
            manifest = cls.model_validate(read_json(path))
        except (ValidationError, DataError):
            raise DataError(f"{path}: damaged, or of another version of nmt: {MEND}") from None
        if manifest.format != FORMAT:
            raise DataError(f"{path}: written by another version of nmt: {MEND}")
        for name, record in manifest.files.items():
            _check_size(Path(folder) / name, record.bytes)
        return manifest

    def save(self, folder: str | Path) -> None:
        """Writes it into `folder`; it goes last, for it says that the rest is whole. Raises `OutputError`."""
        write_json(Path(folder) / MANIFEST, self.model_dump(mode="json"))


class ShardWriter:
    """Lays pairs down in one shard as they come: on disk, but for their lengths. A context manager.

    Only with `close` a shard is there. Raises `OSError` where the disk refuses.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._sides = [_SideWriter(*_files(folder, name, side)) for side in SIDES]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for side in self._sides:
            side.file.close()

    def add(self, part: StreamPair) -> None:
        """Appends pairs, in order."""
        for side, stream in zip(self._sides, part, strict=True):
            side.add(stream)

    def close(self) -> ShardRecord:
        """Ends the files; gives what the shard is known by."""
        (pairs, source), (_, target) = (side.close() for side in self._sides)
        return ShardRecord(name=self._name, pairs=pairs, source_tokens=source, target_tokens=target)


class _SideWriter:
    """One side of a shard: an array of tokens that grows on disk, and the offsets of the sentences in it."""

    def __init__(self, tokens: Path, offsets: Path) -> None:
        self.file = open(tokens, "wb")  # noqa: SIM115 - the shard closes it
        self._offsets = offsets
        self._kind: np.dtype[Any] = np.dtype(np.uint16)
        self._tokens = 0
        self._lengths: list[np.ndarray] = []
        self._head()

    def add(self, stream: Stream) -> None:
        self._kind = stream.tokens.dtype
        self._tokens += len(stream.tokens)
        self._lengths.append(stream.lengths)
        self.file.write(stream.tokens.data)

    def close(self) -> tuple[int, int]:
        """Gives the number of sentences, and of tokens."""
        self.file.seek(0)
        self._head()
        self.file.close()
        lengths = np.concatenate([np.zeros(1, np.int64), *self._lengths])
        np.save(self._offsets, np.cumsum(lengths, dtype=np.int64))
        return len(lengths) - 1, self._tokens

    def _head(self) -> None:
        """What numpy begins a file with: of one size, however many tokens there are."""
        head = {"descr": np.lib.format.dtype_to_descr(self._kind), "fortran_order": False, "shape": (self._tokens,)}
        np.lib.format.write_array_header_1_0(self.file, head)


def read_shard(folder: Path, name: str) -> StreamPair:
    """All pairs of a shard, tokens as read-only views of the files. Raises `DataError` where it is not whole."""
    sides = ([_mapped(path) for path in _files(folder, name, side)] for side in SIDES)
    return StreamPair(*(Stream(tokens, np.diff(offsets).astype(np.int32)) for tokens, offsets in sides))


def shard_files(name: str) -> list[str]:
    """The names of a shard's files."""
    return [path.name for side in SIDES for path in _files(Path(), name, side)]


class Shards:
    """The prepared pairs of a split, read from disk as they are asked for."""

    def __init__(self, folder: Path, split: SplitRecord) -> None:
        self._sides = [[_Sentences(folder, shard.name, side) for shard in split.shards] for side in SIDES]
        self._starts = list(accumulate((shard.pairs for shard in split.shards), initial=0))

    @classmethod
    def open(cls, folder: str | Path, split: str) -> Self:
        """The pairs of "train" or "valid". Raises `DataError` where anything is missing or not whole."""
        return cls(Path(folder), Manifest.load(folder).splits[split])

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """The number of source and of target tokens of each pair, as two arrays [pairs] of int32."""
        source, target = ([shard.lengths() for shard in side] for side in self._sides)
        return np.concatenate(source), np.concatenate(target)

    def lengths_of(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of source and of target tokens of these pairs [n], as two arrays [n] of int64."""
        numbers = np.searchsorted(self._starts, pairs, side="right") - 1
        source, target = np.empty((2, len(pairs)), np.int64)
        for number in np.unique(numbers).tolist():
            here = numbers == number
            within = pairs[here] - self._starts[number]
            for side, lengths in zip(self._sides, (source, target), strict=True):
                lengths[here] = side[number].lengths_of(within)
        return source, target

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The source and the target ids of a pair, without BOS and EOS, as read-only views of the files."""
        shard = bisect_right(self._starts, index) - 1
        source, target = (side[shard][index - self._starts[shard]] for side in self._sides)
        return source, target

    def let_go(self) -> None:
        """Lets go of what was read so far, or in time all of the text counts as memory of this process."""
        for side in self._sides:
            for shard in side:
                shard.let_go()


class _Sentences:
    """One side of one shard."""

    def __init__(self, folder: Path, name: str, side: str) -> None:
        self._tokens, self._offsets = (_mapped(path) for path in _files(folder, name, side))
        if self._offsets[-1] != len(self._tokens):
            raise DataError(f"{folder / name}: the shard's {side} side is damaged: {MEND}")

    def __getitem__(self, index: int) -> np.ndarray:
        return self._tokens[self._offsets[index] : self._offsets[index + 1]]

    def let_go(self) -> None:
        for array in (self._tokens, self._offsets):
            pages = getattr(array.base, "_mmap", None)
            if pages is not None and hasattr(pages, "madvise"):  # not on every system
                pages.madvise(mmap.MADV_DONTNEED)

    def lengths_of(self, indices: np.ndarray) -> np.ndarray:
        return self._offsets[indices + 1] - self._offsets[indices]

    def lengths(self) -> np.ndarray:
        return np.diff(self._offsets).astype(np.int32)


def fingerprint(folder: str | Path) -> str:
    """What tells training data apart: equal for equal tokenizers and shards, whenever and wherever made."""
    records = Manifest.load(folder).files.items()
    files = {name: record.sha256 for name, record in records if not name.startswith("valid-")}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def record_files(folder: Path, names: Iterable[str] | None = None) -> dict[str, FileRecord]:
    """What the files of a folder are known by, under their names: all, or some."""
    paths = sorted(path for path in folder.iterdir() if path.name != DROPPED)
    if names is not None:
        paths = [folder / name for name in sorted(names)]
    return {path.name: FileRecord(bytes=path.stat().st_size, sha256=sha256(path)) for path in paths}


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path, name: str, side: str) -> tuple[Path, Path]:
    return folder / f"{name}.{side}.tokens.npy", folder / f"{name}.{side}.offsets.npy"


def _mapped(path: Path) -> np.ndarray:
    try:
        # As a plain array: slicing numpy's memmap class costs several times as much.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError):
        raise DataError(f"{path}: missing or damaged: {MEND}") from None


def _check_size(path: Path, size: int) -> None:
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        state = "missing" if found is None else f"cut short or changed ({found:,} bytes instead of {size:,})"
        raise DataError(f"{path}: {state}: {MEND}")
