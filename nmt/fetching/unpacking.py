"""Members of archives, taken out by name. Names inside an archive never say where anything is written."""

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from nmt.errors import DataError
from nmt.files import output_error
from nmt.text.opening import opened

# Text shrinks to a tenth or so. What grows a thousandfold is no text, and meant to fill a disk.
_GROWTH = 200
_SMALL = 1 << 20
_CHUNK = 1 << 20


class Growth:
    """How much may come out of a packed file. Raises `DataError` once it is more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = _SMALL + _GROWTH * path.stat().st_size

    def add(self, count: int) -> None:
        """Counts bytes that have come out."""
        self._left -= count
        if self._left < 0:
            raise DataError(f"{self._path}: grows over {_GROWTH}-fold when unpacked: this is no text; remove it")


def unpack(archive: Path, members: Iterable[str], folder: Path) -> dict[str, Path]:
    """Writes members of a .zip or a tar, packed or not, to files in `folder`, under names of our own; gives where.

    The whole of a tar is read, so that its checksum is too. Raises `DataError` for what is damaged, cut short, no
    archive, lacks a member, has it twice or as anything but a plain file; `OutputError` where the disk refuses.
    """
    places = {name: folder / f"{number}-{Path(name).name}" for number, name in enumerate(sorted(set(members)))}
    with open(archive, "rb") as file:
        take = _from_zip if file.read(4) == b"PK\3\4" else _from_tar
    try:
        take(archive, places)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{archive}: not a whole archive ({error}): remove it, and fetch it again") from None
    for name, path in places.items():
        if not path.exists():
            raise DataError(f"{archive}: has no member {name}: is this the right file? Remove it, and fetch it again")
    return places


def _from_tar(archive: Path, places: Mapping[str, Path]) -> None:
    growth = Growth(archive)
    with opened(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if name in places:
                if not member.isreg():
                    raise _odd(archive, name, "must be a plain file")
                taken = tar.extractfile(member)
                assert taken  # as it is of every plain file
                with taken:
                    _write(taken, places[name], growth, archive, name)
        while stream.read(_CHUNK):  # up to its end, where its checksum is
            pass


def _from_zip(archive: Path, places: Mapping[str, Path]) -> None:
    growth = Growth(archive)
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            if member.filename not in places:
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir() or kind not in (0, stat.S_IFREG) or member.flag_bits & 1:
                raise _odd(archive, member.filename, "must be a plain file without a password")
            with zipped.open(member) as taken:
                _write(taken, places[member.filename], growth, archive, member.filename)


def _write(source: IO[bytes], path: Path, growth: Growth, archive: Path, name: str) -> None:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        raise _odd(archive, name, "must be there once") from None
    except OSError as error:
        raise output_error(path, error) from None
    with open(path, "wb") as file:
        while chunk := source.read(_CHUNK):
            growth.add(len(chunk))
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                raise output_error(path, error) from None


def _odd(archive: Path, name: str, must: str) -> DataError:
    return DataError(f"{archive}: its member {name} {must}: remove the archive, and fetch it again")
