"""Files that appear whole or not at all.

Everything `nmt` keeps is written beside its final place, forced to disk and renamed, so that a crash, a full
disk or Ctrl-C never leaves half of one. A file is the old or the new one at every moment; a folder, which cannot be
renamed over another, is for an instant neither.
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from nmt.errors import DataError, NmtError, OutputError

_MENDS = {
    errno.ENOSPC: "the disk is full: free some space and run it again",
    errno.EDQUOT: "your disk quota is used up: free some space and run it again",
    errno.EFBIG: "the file is larger than this disk or your limits allow: write somewhere else",
    errno.EACCES: "permission denied: write somewhere else, or change the permissions of the folder",
    errno.EPERM: "not permitted: write somewhere else, or change the permissions of the folder",
    errno.EROFS: "the disk is read-only: write somewhere else",
    errno.ENOENT: "there is no such folder: make it first",
    errno.ENOTDIR: "a part of this path is a file, not a folder: write somewhere else",
    errno.EISDIR: "this is a folder: name a file",
    errno.EEXIST: "a file of this name is in the way: move it, or write somewhere else",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}


def output_error(path: str | Path, error: OSError) -> OutputError:
    """The `OutputError` that tells why `path` could not be written, and the mend."""
    reason = _MENDS.get(error.errno or 0) or error.strerror or f"{error}: is the disk full?"
    return OutputError(f"{path}: cannot be written: {reason}")


@contextmanager
def whole_file(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a file that takes the place of `path` when the block ends well, and vanishes when it does not.

    `mode` is "wb" for bytes or "w" for UTF-8 text with "\\n" line ends.
    Raises `OutputError` where the disk refuses; whatever the failure, what `path` held before is untouched.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with _replacing(path) as (temporary, final):
        if final.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))
        with open(temporary, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)


@contextmanager
def whole_folder(path: str | Path, ours: Sequence[str] = ("*",)) -> Iterator[Path]:
    """Gives an empty folder to fill, which takes the place of `path` when the block ends well.

    A folder already at `path` is moved aside, and removed only once the new one stands in its place; one that holds
    anything whose name fits none of the patterns `ours` is the user's, and is refused.
    Raises `OutputError` where the disk refuses; whatever the failure, what `path` held before is untouched.
    """
    with _replacing(path) as (temporary, final):
        if final.is_file():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
        _check_ours(final, ours)
        temporary.mkdir()
        yield temporary
        _sync_tree(temporary)
        _swap(temporary, final)


def make_folder(path: str | Path) -> None:
    """Makes a folder, and those it lies in, where they are missing. Raises `OutputError`."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from None


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps others who ask for the same folder out while the block runs; the system lets go when the process dies.

    Raises `OutputError` where another process is in it. Windows has no such locks, and lets everybody in.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise OutputError(f"{folder}: another process is at work in it: wait for it, or stop it") from None
    finally:
        os.close(descriptor)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all. Raises `OutputError`."""
    with whole_file(path, "w") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_json(path: str | Path) -> Any:
    """The value of a JSON file. Raises `DataError` where it is missing, cut short or not JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # of JSON, or of bytes that are not UTF-8
        raise DataError(f"{path}: not whole JSON, perhaps cut short ({error})") from None


@contextmanager
def _replacing(path: str | Path) -> Iterator[tuple[Path, Path]]:
    """Gives a free name beside `path` and the place it is to take; tells the disk's refusals in words.

    Renaming is atomic only within one disk, so the name is a sibling of what `path` is, or links to.
    """
    final = Path(os.path.realpath(path))
    temporary = _free_name(final)
    try:
        yield temporary, final
        _sync_folder(final.parent)
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None or not _is_about(refusal, temporary, final):
            raise  # an input that is missing, say: not for us to explain
        raise output_error(path, refusal) from error
    finally:
        _remove(temporary)


def _refusal(error: BaseException | None) -> OSError | None:
    """The OSError that `error` is, or was raised upon: torch.save buries the disk's under its own."""
    while error is not None and not isinstance(error, OSError | NmtError):
        error = error.__cause__ if error.__suppress_context__ else error.__context__
    return error if isinstance(error, OSError) else None


def _is_about(error: OSError, temporary: Path, final: Path) -> bool:
    if not isinstance(error.filename, str):  # a write or a sync names no file: it is the one we opened
        return True
    blamed = Path(error.filename)
    return blamed in (final, final.parent) or blamed.is_relative_to(temporary)


def _check_ours(folder: Path, ours: Sequence[str]) -> None:
    for name in sorted(os.listdir(folder)) if folder.exists() else ():
        if not any(fnmatch(name, pattern) for pattern in ours):
            raise OutputError(f"{folder}: would be replaced, but holds {name}, which is not ours: write somewhere else")


def _free_name(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"


def _remove(path: Path) -> None:
    with suppress(OSError):  # whatever went wrong before is what there is to tell
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _swap(new: Path, path: Path) -> None:
    if not path.exists():
        os.rename(new, path)
        return
    aside = _free_name(path)
    os.rename(path, aside)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(aside, path)
        raise
    _remove(aside)


def _sync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            _sync(Path(place) / name)
        _sync_folder(Path(place))


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and its entries are kept by the file system
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
