"""Lines of text from plain files, gzip files and pipes: a line feed ends a line, and nothing else does."""

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from nmt.errors import DataError

LONGEST_LINE = 1 << 24  # bytes; a longer line is no sentence, and would be held in memory whole

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"


def read_lines(path: str | Path) -> Iterator[str]:
    """The lines of a UTF-8 file without their line ends, one at a time; "-" is standard input.

    A line ends at "\\n" or "\\r\\n": U+2028, NUL, tabs and a lone "\\r" stay inside it, so that the lines of
    two files stay aligned. A byte order mark at the start is left out. Gzip is told by the first bytes.
    Raises `DataError`, naming the file and where it can the line, for what cannot be read or is not UTF-8.
    """
    name, number = "standard input" if str(path) == "-" else str(path), 0
    try:
        with _opened(path) as stream:
            for number, raw in enumerate(iter(partial(stream.readline, LONGEST_LINE + 1), b""), 1):
                if len(raw) > LONGEST_LINE:
                    raise DataError(f"{name}:{number}: a line of over {LONGEST_LINE:,} bytes: is this text?")
                if number == 1:
                    raw = raw.removeprefix(_BYTE_ORDER_MARK)
                yield raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x} at position {error.start + 1}"
        mend = "convert the file, with `iconv -f ENCODING -t UTF-8` for example"
        raise DataError(f"{name}:{number}: not UTF-8 ({found}): {mend}") from None
    except EOFError:
        raise DataError(f"{name}: gzip file cut short: copy or make it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: gzip file damaged ({error}): copy or make it again") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from None


@contextmanager
def _opened(path: str | Path) -> Iterator[BinaryIO]:
    if str(path) != "-":
        with open(path, "rb") as file:
            yield _unzipped(file)
    elif sys.stdin is None:
        raise DataError("standard input is closed: name a file instead of -")
    else:
        yield _unzipped(cast(io.BufferedReader, sys.stdin.buffer))


def _unzipped(stream: io.BufferedReader) -> BinaryIO:
    if not stream.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC):
        return stream
    return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stream)), 1 << 20)
