"""Lines of text from files, packed files and pipes: a line feed ends a line, and nothing else does."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from nmt.errors import DataError
from nmt.text.opening import called, opened

LONGEST_LINE = 1 << 24  # bytes; a longer line is no sentence, and would be held in memory whole

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_lines(path: str | Path) -> Iterator[str]:
    """The lines of a UTF-8 file without their line ends, one at a time; "-" is standard input.

    A line ends at "\\n" or "\\r\\n": U+2028, NUL, tabs and a lone "\\r" stay inside it, so that the lines of
    two files stay aligned. A byte order mark at the start is left out, and alone is no line. gzip, xz and zst are told
    by the first bytes.
    Raises `DataError`, naming the file and where it can the line, for what cannot be read or is not UTF-8.
    """
    name, number = called(path), 0
    try:
        with opened(path) as stream:
            for number, raw in enumerate(iter(partial(stream.readline, LONGEST_LINE + 1), b""), 1):
                if len(raw) > LONGEST_LINE:
                    raise DataError(f"{name}:{number}: a line of over {LONGEST_LINE:,} bytes: is this text?")
                if number == 1:
                    if _is_utf16(raw):
                        raise DataError(f"{name}: UTF-16: convert the file, with `iconv -f UTF-16 -t UTF-8`")
                    raw = raw.removeprefix(_BYTE_ORDER_MARK)
                    if not raw:  # the mark was all there is
                        return
                yield raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x} at position {error.start + 1}"
        mend = "convert the file, with `iconv -f ENCODING -t UTF-8` for example"
        raise DataError(f"{name}:{number}: not UTF-8 ({found}): {mend}") from None


def _is_utf16(line: bytes) -> bool:
    """Whether a first line is UTF-16: by its mark, or by a NUL beside each letter, which as UTF-8 would pass."""
    halves = line[0::2].rstrip(b"\n"), line[1::2].rstrip(b"\n")
    without_mark = len(line) >= 8 and any(half and not half.strip(b"\0") for half in halves) and any(map(all, halves))
    return line.startswith(_WIDE_MARKS) or without_mark
