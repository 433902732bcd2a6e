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
        check_place(final, ours)
        temporary.mkdir()
        yield temporary
        _put(temporary, final)


@contextmanager
def refusals_told(path: str | Path, temporary: Path) -> Iterator[None]:
    """Raises what the disk refuses to write in `temporary`, or at `path`, as `OutputError` that names `path`."""
    try:
        yield
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None or not _is_about(refusal, temporary, Path(os.path.realpath(path))):
            raise  # an input that is missing, say: not for us to explain
        raise output_error(path, refusal) from error


def put_folder(new: Path, path: str | Path) -> None:
    """Forces a folder to disk and puts it in the place of `path`, on the same disk. Raises `OSError`."""
    final = Path(os.path.realpath(path))
    _put(new, final)
    _sync_folder(final.parent)


def check_place(path: str | Path, ours: Sequence[str]) -> None:
    """Raises `OutputError` where a file is in the place of the folder `path`, or what fits none of the patterns."""
    folder = Path(os.path.realpath(path))
    if folder.is_file():
        raise output_error(path, FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)))
    for name in sorted(os.listdir(folder)) if folder.exists() else ():
        if not any(fnmatch(name, pattern) for pattern in ours):
            raise OutputError(f"{path}: would be replaced, but holds {name}, which is not ours: write somewhere else")


def make_folder(path: str | Path) -> None:
    """Makes a folder, and those it lies in, where they are missing. Raises `OutputError`."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from None


def remove(path: Path) -> None:
    """Removes a file or a folder, if that can be done."""
    with suppress(OSError):  # whatever went wrong before is what there is to tell
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def sync(path: Path) -> None:
    """Forces what was written to a file onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps others who ask for the same folder out while the block runs; the system lets go when the process dies.

    Raises `OutputError` where another process is in it. Windows has no such locks, and lets everybody in.
    """
    descriptor = os.open(folder, os.O_RDONLY) if fcntl else -1
    try:
        if not _flock(descriptor):
            raise _taken(folder)
        yield
    finally:
        if fcntl:
            os.close(descriptor)


class Lock:
    """A file that processes lock to keep others out, on other machines too where the file system does that.

    What is locked is let go by `release`, and by the system when the process dies. Where there are no such locks
    (Windows, some network file systems), everybody gets them.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor = path, -1

    def acquire(self, *, shared: bool = False, wait: bool = False) -> bool:
        """Locks the file, or changes the lock held; whether that could be done, which is sure if told to `wait`."""
        if fcntl is None:
            return True
        while True:
            if self._descriptor < 0:
                make_folder(self._path.parent)
                try:
                    self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
                except FileNotFoundError:  # the folder has just been taken away
                    continue
                except OSError as error:
                    raise output_error(self._path, error) from None
            if not _flock(self._descriptor, shared, wait):
                return False
            if self._is_there():
                return True
            self.release()  # of a file that is no more: whoever held it took it away

    def release(self) -> None:
        """Lets go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a `Lock` while the block runs. Raises `OutputError` where another process has it, unless told to `wait`."""
    lock = Lock(path)
    try:
        if not lock.acquire(wait=wait):
            raise _taken(path.parent)
        yield
    finally:
        lock.release()


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
        with refusals_told(path, temporary):
            yield temporary, final
            _sync_folder(final.parent)
    finally:
        remove(temporary)


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


def _flock(descriptor: int, shared: bool = False, wait: bool = False) -> bool:
    """Locks what is open; whether that could be done. Where there are no locks, it could."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
            raise
    return True


def _taken(folder: Path) -> OutputError:
    return OutputError(f"{folder}: another process is at work in it: wait for it, or stop it")


def _free_name(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"


def _put(new: Path, path: Path) -> None:
    """Forces a folder to disk, and puts it in the place of the one at `path`."""
    _sync_tree(new)
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
    remove(aside)


def _sync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place) / name)
        _sync_folder(Path(place))


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and its entries are kept by the file system
        sync(folder)
