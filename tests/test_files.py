"""A file is written whole or not at all, whatever goes wrong."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from nmt.errors import DataError, OutputError
from nmt.files import alone_in, read_json, whole_file, whole_folder, write_json


def here(folder: Path) -> dict[str, str]:
    """Every file under a folder, hidden ones too, with what it holds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in files}


def write(path: Path, content: bytes, failure: type[BaseException] | None = None) -> None:
    with whole_file(path) as file:
        file.write(content)
        if failure:
            raise failure


def fill(path: Path, content: bytes, failure: type[BaseException] | None = None) -> None:
    with whole_folder(path) as folder:
        (folder / "file").write_bytes(content)
        if failure:
            raise failure


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file may grow beyond 10 kB: what a full disk is to a writer, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_appears_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert here(tmp_path) == {"file": "new"}


def test_text_is_written_as_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    with whole_file(tmp_path / "file", "w") as file:
        file.write("Ärger\n")
    assert (tmp_path / "file").read_bytes() == "Ärger\n".encode()


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_inside_the_block_leaves_the_old_file_untouched(tmp_path: Path, failure: type[BaseException]) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(failure):
        write(tmp_path / "file", b"half", failure)
    assert here(tmp_path) == {"file": "old"}


@pytest.mark.usefixtures("little_room")
def test_a_disk_that_fills_up_is_told_and_leaves_the_old_file_untouched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OutputError, match=r"file: cannot be written: .*: write somewhere else"):
        write(tmp_path / "file", bytes(1_000_000))
    assert here(tmp_path) == {"file": "old"}


@pytest.mark.usefixtures("little_room")
def test_a_disk_that_fills_up_is_told_also_when_torch_writes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(OutputError, match="cannot be written"), whole_file(tmp_path / "file") as file:
        torch.save(torch.zeros(100_000), file)
    assert here(tmp_path) == {}


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOSPC, "the disk is full: free some space"),
        (errno.EDQUOT, "quota is used up: free some space"),
        (errno.EACCES, "permission denied: write somewhere else"),
        (errno.EROFS, "the disk is read-only: write somewhere else"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_refusal_to_sync_is_told_with_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, mend: str
) -> None:
    def refuse(descriptor: int) -> NoReturn:
        raise OSError(number, os.strerror(number))

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match=mend) as told, whole_file(tmp_path / "file") as file:
        file.write(b"new")
    assert str(told.value).startswith(f"{tmp_path / 'file'}: cannot be written: ")
    assert "\n" not in str(told.value)
    assert here(tmp_path) == {"file": "old"}


def test_a_folder_that_is_missing_a_file_in_its_place_and_a_folder_as_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OutputError, match="no such folder: make it first"):
        write_json(tmp_path / "none" / "file", 1)
    with pytest.raises(OutputError, match="a part of this path is a file"):
        write_json(tmp_path / "file" / "inner", 1)
    with pytest.raises(OutputError, match="this is a folder: name a file"):
        write_json(tmp_path, 1)
    with (
        pytest.raises(OutputError, match="a file of this name is in the way"),
        whole_folder(tmp_path / "file"),
    ):
        pass
    assert here(tmp_path) == {"file": "old"}


def test_an_input_missing_inside_the_block_is_not_called_an_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "file"):
        (tmp_path / "input").read_text()
    assert here(tmp_path) == {}


def test_our_own_errors_pass_through_unchanged(tmp_path: Path) -> None:
    def read() -> NoReturn:
        try:
            raise OSError(errno.EIO, "in the input")
        except OSError:
            raise DataError("the input is broken")  # noqa: B904 - the context is the point

    with pytest.raises(DataError, match="the input is broken"), whole_file(tmp_path / "file"):
        read()


def test_a_link_stays_a_link_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    with whole_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert here(tmp_path / "elsewhere") == {"file": "new"}


def test_a_folder_is_swapped_in_whole(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "stale").write_text("old")
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("new")
        assert here(tmp_path / "folder") == {"stale": "old"}
    assert here(tmp_path) == {"folder/inner/file": "new"}


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_inside_the_block_leaves_the_old_folder_untouched(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("old")
    with pytest.raises(failure):
        fill(tmp_path / "folder", b"half", failure)
    assert here(tmp_path) == {"folder/file": "old"}


def test_a_swap_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, final = os.rename, tmp_path / "folder"

    def refuse_the_new(source: Path, target: Path) -> None:
        if target == final and (source / "new").exists():
            raise OSError(errno.ENOSPC, "full", str(source), None, str(target))
        rename(source, target)

    final.mkdir()
    (final / "file").write_text("old")
    monkeypatch.setattr(os, "rename", refuse_the_new)
    with pytest.raises(OutputError, match="the disk is full"), whole_folder(final) as folder:
        (folder / "new").write_text("new")
    assert here(tmp_path) == {"folder/file": "old"}


@pytest.mark.usefixtures("little_room")
def test_a_disk_that_fills_up_leaves_the_old_folder_untouched(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("old")
    with pytest.raises(OutputError, match="folder: cannot be written"):
        fill(tmp_path / "folder", bytes(1_000_000))
    assert here(tmp_path) == {"folder/file": "old"}


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    value = {"Zahl": 1, "Liste": [1.5, None, True], "Text": "Ärger \u2028"}
    write_json(tmp_path / "file", value)
    assert read_json(tmp_path / "file") == value


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"[1] and more"])
def test_json_that_is_cut_short_or_none_is_told_with_its_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match="file: not whole JSON") as told:
        read_json(tmp_path / "file")
    assert "\n" not in str(told.value)


def test_json_that_is_missing_is_told_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="file: cannot be read: No such file"):
        read_json(tmp_path / "file")


def test_a_folder_is_kept_for_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with alone_in(folder), pytest.raises(OutputError, match="another process is at work in it"), alone_in(folder):
        pytest.fail("two are in it")
    with alone_in(folder):
        assert folder.is_dir()
