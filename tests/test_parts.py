"""Laws of preparing in parts: stopped anywhere and run again, or shared out, it gives the same bytes."""

import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from commands import Server, Shell, half_written

from nmt.data import Manifest, prepare
from nmt.data.unfinished import Unfinished
from nmt.errors import DataError, NmtError, OutputError
from nmt.files import Lock
from nmt.processes import Shard
from nmt.recipe import Recipe, load

SMALL = {"nmt.data.encoding.BLOCK_PAIRS": 20, "nmt.data.parts.PART_PAIRS": 70}
PREPARE = ("prepare", "recipe.yaml", "--workers", 1)


@pytest.fixture(scope="session")
def corpora(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of two corpora, with duplicates in and between them, dirt, and overlap."""
    folder = tmp_path_factory.mktemp("corpora")
    for path in corpus.glob("*.??"):
        shutil.copy(path, folder)
    for language in ("en", "de"):
        lines = (folder / f"train.{language}").read_text().splitlines()
        held = (folder / f"valid.{language}").read_text().splitlines()
        more = [
            *lines[10:80],
            f"Q&amp;A {language}",
            f"<b>{language}</b>",
            *held[:3],
            *lines[:9],
            *lines[:9],
            "",
            "new",
        ]
        (folder / f"more.{language}").write_text("".join(f"{line}\n" for line in more))
    recipe = (corpus / "recipe.yaml").read_text().replace("train: train,", "train: [train, more],")
    (folder / "recipe.yaml").write_text(recipe)
    return folder


@pytest.fixture(scope="session")
def whole(server: Server, corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed preparation gives."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(corpora, folder / "copy")
    Shell(server, folder / "copy")(*PREPARE, change=SMALL)
    return contents(folder / "copy")


@pytest.fixture
def shell(server: Server, corpora: Path, tmp_path: Path) -> Shell:
    """The corpora, of which nothing is prepared yet."""
    shutil.copytree(corpora, tmp_path / "copy")
    return Shell(server, tmp_path / "copy")


def contents(folder: Path, data: str = "run/data") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / data).iterdir()}


# Stopped and run again


def test_the_whole_has_several_parts_and_what_is_dropped_across_them(whole: dict[str, bytes]) -> None:
    assert {"train-00004.source.tokens.npy", "valid-00000.target.offsets.npy"} <= whole.keys()
    dropped = whole["dropped.txt"].decode()
    assert dropped.count("\tduplicate\t") == 20
    for kind in ("tags", "empty", "repaired entities", "overlap with data.valid"):
        assert f"\t{kind}\t" in dropped


def test_killed_at_ten_moments_one_after_the_other_it_gives_the_same_bytes(
    shell: Shell, whole: dict[str, bytes]
) -> None:
    dice = random.Random(1)
    for _ in range(10):
        done = shell.start(*PREPARE, change=SMALL, dies_at=dice.randint(1, 60)).wait()
        assert done.code in (0, -signal.SIGKILL)
    shell(*PREPARE, change=SMALL)
    assert contents(shell.folder) == whole
    assert half_written(shell.folder) == []


@pytest.mark.parametrize("moment", random.Random(2).sample(range(1, 220), 10))
def test_killed_at_any_moment_and_run_again_it_gives_the_same_bytes(
    shell: Shell, whole: dict[str, bytes], moment: int
) -> None:
    shell(*PREPARE, change=SMALL, dies_at=moment, code=-signal.SIGKILL)
    learned = (shell.folder / "run/data.partial/survey.json").exists() or (shell.folder / "run/data").exists()
    done = shell(*PREPARE, change=SMALL)
    assert contents(shell.folder) == whole
    assert [path.name for path in (shell.folder / "run").iterdir()] == ["data"]
    assert ("learning" in done.err) == (not learned)


def test_what_is_done_is_not_done_again(shell: Shell, whole: dict[str, bytes]) -> None:
    partial = shell.folder / "run/data.partial"
    shell(*PREPARE, change=SMALL, code=143, signal=(signal.SIGTERM, "train: 300 pairs read"))
    before = {path: path.stat().st_mtime_ns for path in partial.glob("*.npy")}
    before |= {path: path.stat().st_mtime_ns for path in partial.glob("*.model")}
    assert len(before) > 20
    done = shell(*PREPARE, change=SMALL, code=143, signal=(signal.SIGTERM, "train: 300 pairs read"))
    assert "learning" not in done.err
    assert "going on: 6 of 6 parts are there already" in done.err
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("change", ["the recipe", "the text", "told so"])
def test_what_was_done_for_other_choices_or_text_is_not_used(shell: Shell, change: str) -> None:
    shell(*PREPARE, change=SMALL, code=143, signal=(signal.SIGTERM, "train: 300 pairs read"))
    options = {"the recipe": ("--set", "seed=2"), "told so": ("--force",)}.get(change, ())
    if change == "the text":
        (shell.folder / "valid.en").write_text((shell.folder / "valid.en").read_text().upper())
    done = shell(*PREPARE, *options, change=SMALL)
    assert "learning" in done.err
    assert "going on" not in done.err


def test_a_damaged_part_or_tokenizer_is_made_again(shell: Shell, whole: dict[str, bytes]) -> None:
    for name in ("train-00001.target.tokens.npy", "train-00002.json", "tokenizer.model", "survey.json"):
        shell(*PREPARE, change=SMALL, code=143, signal=(signal.SIGTERM, "train: 300 pairs read"))
        path = shell.folder / "run/data.partial" / name
        path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    shell(*PREPARE, change=SMALL)
    assert contents(shell.folder) == whole


@pytest.mark.parametrize("room", [1_000, 2_000, 4_000, 8_000])
def test_after_a_full_disk_it_goes_on_to_the_same_bytes(shell: Shell, whole: dict[str, bytes], room: int) -> None:
    message = shell.fails(*PREPARE, change=SMALL, largest=room)
    assert message.startswith("run/data: cannot be written: ") or "data.partial" in message
    assert not (shell.folder / "run/data").exists()
    shell(*PREPARE, change=SMALL)
    assert contents(shell.folder) == whole


# Shared out


@pytest.fixture
def here(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe, to be prepared by this process."""
    monkeypatch.chdir(shell.folder)
    for name, value in SMALL.items():
        monkeypatch.setattr(name, value)
    return load("recipe.yaml")


def silent(_: str) -> None:
    pass


def share(recipe: Recipe, *shares: str) -> None:
    for one in shares:
        prepare(recipe, shard=one, workers=1, report=silent)


@pytest.mark.parametrize("shares", [["1/1"], ["2/3", "3/3", "1/3"], ["1/2", "2/5", "4/5", "3/5"]])
def test_shares_joined_are_the_whole(here: Recipe, whole: dict[str, bytes], shares: list[str]) -> None:
    share(here, *shares, *(shares[:1] if len(shares) < 4 else ["2/2"]))
    assert not Path("run/data").exists()
    prepare(here, merge=True, report=silent)
    assert contents(Path()) == whole
    assert [path.name for path in Path("run").iterdir()] == ["data"]


def test_shares_at_the_same_time_wait_for_one_tokenizer(shell: Shell, whole: dict[str, bytes]) -> None:
    running = [shell.start(*PREPARE, "--shard", f"{number}/3", change=SMALL) for number in (1, 2, 3)]
    done = [one.wait() for one in running]
    assert [one.code for one in done] == [0, 0, 0], [one.err for one in done]
    assert sum("learning" in one.err for one in done) == 1
    shell(*PREPARE, "--merge", change=SMALL)
    assert contents(shell.folder) == whole


def spoil(how: str) -> None:
    folder = Path("run/data.partial")
    if how == "missing":
        (folder / "train-00001.json").unlink()
    elif how == "a file is missing":
        (folder / "train-00001.kept.npz").unlink()
    elif how == "damaged":
        path = folder / "train-00001.source.tokens.npy"
        path.write_bytes(path.read_bytes()[:-2] + b"??")
    else:
        path = folder / "train-00001.json"
        path.write_text(
            path.read_text().replace('"tokenizer.model": {', '"tokenizer.model": {"bytes": 1, "sha256": "0"}, "x": {')
        )


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("missing", r"train-00001: missing"),
        ("a file is missing", r"train-00001\.kept\.npz: missing or damaged"),
        ("damaged", r"train-00001\.source\.tokens\.npy: missing or damaged"),
        ("another tokenizer", r"train-00001: made with another vocabulary"),
    ],
)
def test_a_part_that_is_not_as_it_should_be_is_named_and_mended(
    here: Recipe, whole: dict[str, bytes], how: str, told: str
) -> None:
    share(here, "1/2", "2/2")
    spoil(how)
    with pytest.raises(DataError, match=rf"run/data\.partial/{told}: run nmt prepare --shard again"):
        prepare(here, merge=True, report=silent)
    share(here, "1/2", "2/2")
    prepare(here, merge=True, report=silent)
    assert contents(Path()) == whole


def test_without_merge_what_is_missing_is_made(here: Recipe, whole: dict[str, bytes]) -> None:
    share(here, "2/3")
    prepare(here, workers=1, report=silent)
    assert contents(Path()) == whole


def test_there_is_nothing_to_merge_before_shares_or_for_another_recipe(here: Recipe) -> None:
    with pytest.raises(DataError, match=r"run/data\.partial: nothing to merge: run nmt prepare --shard first"):
        prepare(here, merge=True, report=silent)
    share(here, "1/1")
    with pytest.raises(DataError, match=r"nothing to merge: the recipe has changed in seed"):
        prepare(load("recipe.yaml", ["seed=2"]), merge=True, report=silent)
    Path("train.de").write_text(Path("train.de").read_text().replace("e", "a", 1))
    with pytest.raises(DataError, match=r"nothing to merge: train\.de has changed"):
        prepare(here, merge=True, report=silent)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", "", "1/", "/2", "1/0", "²/3"])
def test_a_share_that_is_none_is_told(here: Recipe, text: str) -> None:
    with pytest.raises(NmtError, match=r"--shard: must be I/N, such as 2/8"):
        Shard.parse(text)


# Others at work


@contextmanager
def at_work(recipe: Recipe, shard: str | None) -> Iterator[None]:
    unfinished = Unfinished(Path("run/data"), recipe, [])
    with unfinished.sharing(Shard.parse(shard), lambda _: None) if shard else unfinished.alone():
        yield


@pytest.mark.parametrize(
    ("other", "ours", "told"),
    [
        (None, {}, "another process is at work in it"),
        (None, {"shard": "1/2"}, "another process is at work in it"),
        (None, {"merge": True}, "another process is at work in it"),
        ("1/2", {}, "another process is at work in it"),
        ("1/2", {"merge": True}, "another process is at work in it"),
        ("1/2", {"shard": "1/2"}, "another process is at work in it"),
        ("1/2", {"shard": "1/3"}, "another process is at work in it"),
        ("1/2", {"shard": "2/2"}, ""),
    ],
)
def test_who_is_at_work_keeps_out_all_but_other_shares(
    here: Recipe, other: str | None, ours: dict[str, Any], told: str
) -> None:
    share(here, "1/2")
    expected: AbstractContextManager[object] = pytest.raises(OutputError, match=told) if told else nullcontext()
    with at_work(here, other), expected:
        prepare(here, workers=1, report=silent, **ours)


def test_a_share_of_other_choices_is_refused_while_others_are_at_work(here: Recipe) -> None:
    share(here, "1/2")
    with at_work(here, "1/2"), pytest.raises(OutputError, match=r"others are at work.* on something else.* seed"):
        share(load("recipe.yaml", ["seed=2"]), "2/2")
    share(load("recipe.yaml", ["seed=2"]), "2/2")


def test_a_lock_whose_file_was_taken_away_is_not_held_by_whoever_waited_for_it(tmp_path: Path) -> None:
    first, second, third = (Lock(tmp_path / "folder" / "lock") for _ in range(3))
    assert first.acquire()
    assert not second.acquire()
    shutil.rmtree(tmp_path / "folder")
    assert third.acquire()
    first.release()
    assert not second.acquire()
    third.release()
    assert second.acquire(wait=True)


def test_what_an_interrupted_preparation_left_goes_with_the_next_that_finds_nothing_to_do(here: Recipe) -> None:
    prepare(here, workers=1, report=silent)
    share(load("recipe.yaml", ["seed=2"]), "1/2")
    Path("run/.data.0123abcd.tmp").mkdir()
    assert isinstance(prepare(here, report=silent), Manifest)
    assert [path.name for path in Path("run").iterdir()] == ["data"]
