"""The bytes of files, whatever they are packed with, and of standard input."""

import gzip
import io
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from nmt.errors import DataError
from nmt.files import whole_file

BUFFER = 1 << 20  # bytes unpacked at once: one by one, lines would be asked of a slow Python object
SUFFIXES = (".gz", ".xz", ".zst")  # that a corpus may have besides its name; what is unpacked, the bytes tell

Unpacked = tuple[Any, tuple[type[Exception], ...]]  # the file, and what it raises when damaged


class _Packing(NamedTuple):
    """A way of packing: its name, how such a file begins, what unpacks it, and the mend where Python lacks that."""

    name: str
    magic: tuple[bytes, ...]
    unpack: Callable[[BinaryIO], Unpacked] | None
    mend: str


def _gzip(stream: BinaryIO) -> Unpacked:
    return gzip.GzipFile(fileobj=stream), (gzip.BadGzipFile, zlib.error)


def _xz(stream: BinaryIO) -> Unpacked:
    import lzma  # some builds of Python lack it

    return lzma.LZMAFile(stream), (lzma.LZMAError,)


def _zstd(stream: BinaryIO) -> Unpacked:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    return zstd.ZstdFile(stream), (zstd.ZstdError,)


_SKIPPABLE = tuple(bytes([first, *b"\x2a\x4d\x18"]) for first in range(0x50, 0x60))  # what pzstd begins with
_PACKINGS = (
    _Packing("gzip", (b"\x1f\x8b",), _gzip, ""),
    _Packing("xz", (b"\xfd7zXZ\x00",), _xz, "unpack it first, with `xz -d`"),
    _Packing(
        "zst",
        (b"\x28\xb5\x2f\xfd", *_SKIPPABLE),
        _zstd,
        "`pip install backports.zstd`, or unpack it first, with `zstd -d`",
    ),
    _Packing("bzip2", tuple(b"BZh%d1AY&SY" % size for size in range(1, 10)), None, "unpack it first, with `bunzip2`"),
    _Packing("zip", (b"PK\x03\x04",), None, "unpack it first, with `unzip`"),
)
_LONGEST_MAGIC = max(len(magic) for packing in _PACKINGS for magic in packing.magic)


def called(path: str | Path) -> str:
    """What a file is called in messages, on one line whatever its name."""
    name = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))
    return "standard input" if name == "-" else name


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked if it is gzip, xz or zst, as its first bytes tell; "-" is standard input.

    Raises `DataError`, also from within the block, for what cannot be read, is damaged or cut short.
    """
    name, kind = called(path), ""
    faults: tuple[type[Exception], ...] = ()
    try:
        with raw(path) as stream:
            start = stream.peek(_LONGEST_MAGIC)
            packing = next((packing for packing in _PACKINGS if start.startswith(packing.magic)), None)
            if packing is None:
                yield stream
                return
            kind = packing.name
            try:
                unpacked, faults = packing.unpack(stream) if packing.unpack else (None, ())
            except ImportError:
                unpacked = None
            if unpacked is None:
                raise DataError(f"{name}: a {kind} file, which cannot be read here: {packing.mend}")
            yield io.BufferedReader(cast(io.RawIOBase, unpacked), BUFFER)
    except EOFError:
        raise DataError(f"{name}: {kind} file cut short: copy or make it again") from None
    except faults as error:
        raise DataError(f"{name}: {kind} file damaged ({error}): copy or make it again") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from None


@contextmanager
def raw(path: str | Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file as they are; "-" is standard input. Raises `OSError`, `DataError` where that is closed.

    Standard input is read through a buffer of our own: Python's would be locked by a thread that waits for more, and
    Python cannot end while it is.
    """
    if str(path) != "-":
        with open(path, "rb") as file:
            yield file
    elif sys.stdin is None:
        raise DataError("standard input is closed: name a file instead of -")
    else:
        buffer = io.BufferedReader(cast(io.BufferedReader, sys.stdin.buffer).raw)
        try:
            yield buffer
        finally:
            buffer.detach()


def keep_standard_input(path: Path) -> None:
    """Copies standard input to a file, for text is read more than once. Raises `DataError` where there is none."""
    with raw("-") as stream, whole_file(path) as file:
        if not stream.isatty():
            shutil.copyfileobj(stream, file)
        if not file.tell():
            raise DataError("standard input is empty: pipe the text in, or name a file instead of -")
