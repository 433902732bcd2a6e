"""What goes wrong is told in one line with its place and its mend, and nothing is left half-written or lost."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Server, Shell, half_written

TRAIN = ("train", "recipe.yaml", "--device", "cpu")
WEIGHTS = "model.safetensors"
LAST = "run/checkpoints/step-00000040"


@pytest.fixture
def shell(server: Server, trained: Shell, tmp_path: Path) -> Shell:
    """A copy of what was trained, to spoil."""
    shutil.copytree(trained.folder, tmp_path / "copy")
    return Shell(server, tmp_path / "copy")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Bad input

Spoil = Callable[[Path], object]


def write(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def remove(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def cut(name: str, share: float = 0.5) -> Spoil:
    """Leaves the first part of a file; negative shares count bytes from its end."""
    return lambda folder: os.truncate(folder / name, int((folder / name).stat().st_size * share))


def cut_lines(name: str, count: int) -> Spoil:
    def spoil(folder: Path) -> None:
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        (folder / name).write_bytes(b"".join(lines[:-count]))

    return spoil


def nothing(folder: Path) -> None:
    """All is as it should be."""


# what is spoiled, the command, what must be told (a regular expression for the whole line)
BAD = {
    # Recipes
    "no recipe": (remove("recipe.yaml"), "prepare recipe.yaml", r"recipe\.yaml: cannot be read: No such file.*"),
    "a folder as recipe": (nothing, "train run", r"run: must be a recipe file, found a folder"),
    "an override of no key": (nothing, "train recipe.yaml --set train.step=1", r"--set .*did you mean train\.steps\?"),
    "neither recipe nor folder": (nothing, "translate nowhere", r"nowhere: .*a model folder or a recipe.*"),
    "weights as recipe": (nothing, "translate run/model/model.safetensors", r"run/model/model\.safetensors.*"),
    # Text
    "no corpus": (
        remove("train.de"), "prepare recipe.yaml",
        r"train\.de: no such file, nor train\.de\.gz, nor train\.de\.xz, nor train\.de\.zst"
    ),
    "unequal sides": (
        cut_lines("train.de", 2), "prepare recipe.yaml", r"train\.en has 300 lines but train\.de has 298: .*"
    ),
    "unequal test": (cut_lines("test.de", 1), "score recipe.yaml", r"test\.en has 20 lines but test\.de has 19: .*"),
    "not UTF-8": (write("train.en", b"a\nb\xff\n"), "prepare recipe.yaml", r"train\.en:2: not UTF-8 .*iconv.*"),
    "an empty corpus": (
        lambda folder: [(folder / name).write_bytes(b"") for name in ("train.en", "train.de")],
        "prepare recipe.yaml", r"train\.en: the corpus is empty",
    ),
    "a folder as corpus": (
        lambda folder: ((folder / "train.en").unlink(), (folder / "train.en").mkdir()),
        "prepare recipe.yaml", r"train\.en: must be a regular file.*",
    ),
    "too large a vocabulary": (
        nothing, "prepare recipe.yaml --set tokenizer.vocab_size=60000",
        r"tokenizer\.vocab_size: must be at most \d+ for so little text, found 60000",
    ),
    "no input file": (nothing, "translate run/model nowhere.en", r"nowhere\.en: cannot be read: No such file.*"),
    "a folder as input": (nothing, "translate run/model run", r"run: cannot be read: Is a directory"),
    "input of another encoding": (
        write("latin", "Grüße\n".encode("latin1")), "translate run/model latin", r"latin:1: not UTF-8 .*iconv.*"
    ),
    "a gzip cut short": (
        write("x.gz", b"\x1f\x8b\x08\0\0\0"), "translate run/model x.gz", r"x\.gz: gzip file cut short.*"
    ),
    # The order of the road
    "train before prepare": (
        remove("run"), "train recipe.yaml", r"run/data: nothing is prepared here: run `nmt prepare` first"
    ),
    "average before train": (
        remove("run/checkpoints"), "average recipe.yaml",
        r"run/checkpoints: no checkpoint is there yet: run `nmt train` first",
    ),
    "average before prepare": (remove("run"), "average recipe.yaml", r"run/checkpoints: no checkpoint is .*"),
    "translate before average": (remove("run/model"), "translate recipe.yaml", r"run/model: .*run `nmt average` .*"),
    "score before average": (remove("run/model"), "score recipe.yaml", r"run/model: .*run `nmt average` .*"),
    "prepared for another recipe": (
        nothing, "train recipe.yaml --set tokenizer.vocab_size=500",
        r"run/data: .*tokenizer\.vocab_size.*run `nmt prepare` again",
    ),
    # Checkpoints
    "another recipe": (
        nothing, "train recipe.yaml --set train.batch_tokens=700 --set model.dropout=0.2",
        r"run/checkpoints/step-00000040: made by another recipe: "
        r"model\.dropout was 0\.1, now 0\.2; train\.batch_tokens was 600, now 700\. .*run: .*",
    ),
    "average of another recipe": (
        nothing, "average recipe.yaml --set seed=2 --set data.max_ratio=8", r".*seed was 1, now 2.*"
    ),
    "a checkpoint not there": (
        nothing, "average recipe.yaml --checkpoint nowhere", r"nowhere: no such checkpoint; .*"
    ),
    **{
        f"a checkpoint with {name} {how}": (
            spoil(f"{LAST}/{name}"), "train recipe.yaml",
            rf"{LAST}: a damaged checkpoint: .*{name}.*Remove this folder.*",
        )
        for name in (WEIGHTS, "optimizer.safetensors", "state.json")
        for how, spoil in {"missing": remove, "cut short": cut}.items()
    },
    "average of a damaged checkpoint": (
        cut(f"{LAST}/{WEIGHTS}"), "average recipe.yaml", rf"{LAST}: a damaged checkpoint: .*{WEIGHTS}.*"
    ),
    # Model folders
    **{
        f"a model with {name} {how}": (
            spoil(f"run/model/{name}"), "translate run/model", rf"run/model/?(: |{re.escape(name)}: ).*",
        )
        for name in ("recipe.yaml", "tokenizer.model", WEIGHTS)
        for how, spoil in {
            "missing": remove, "cut short": cut,
            "empty": lambda name: cut(name, 0), "short of its end": lambda name: cut(name, 0.98),
        }.items()
    },
    "the weights of another model": (
        lambda folder: (folder / "run/model/recipe.yaml").write_text(
            (folder / "run/model/recipe.yaml").read_text().replace("d_ffn: 64", "d_ffn: 32")
        ),
        "translate run/model",
        r"run/model/model\.safetensors: .* has the shape \[64, 32\], where the recipe asks for \[32, 32\]: .*",
    ),
    # Options
    "no such device": (nothing, "train recipe.yaml --device tpu", r"no device is called 'tpu': use cpu, cuda, .*"),
    "a device of no use": (nothing, "translate run/model --device meta", r"no device is called 'meta': use cpu, .*"),
    "a GPU beyond the last": (nothing, "translate run/model --device cuda:99", r"cuda:99: this machine has .*"),
    "no such precision": (nothing, "translate run/model --precision fp8", r"no precision is called 'fp8': use .*"),
    "more translations than hypotheses": (
        nothing, "translate run/model --n-best 5", r"5 translations a line are more than a beam of 4 finds: .*"
    ),
    "a penalty that is no number": (
        nothing, "translate run/model valid.en --length-penalty inf",
        r"decode\.length_penalty: must be a finite number, found .*",
    ),
    # Scores
    "too few translations": (
        cut_lines("valid.de", 3), "score --reference test.de valid.de",
        r"valid\.de has 9 lines, the reference has 20; .*",
    ),
    "no reference": (nothing, "score --reference nowhere.de test.de", r"nowhere\.de: cannot be read: No such file.*"),
    "several recipes": (nothing, "score a.de b.de", r"several files to score need --reference FILE.*"),
    "standard input twice": (nothing, "score --reference - -", r".*standard input .*once.*"),
    "no such tokenization": (
        nothing, "score --reference test.de test.de --tokenize 14a",
        r"there is no tokenization '14a'; choose from .*13a.*",
    ),
    "no test set": (
        nothing, "score recipe.yaml --set data.test={}", r"data\.test: must name a test set.*"
    ),
    "a run folder that is a file": (
        write("in-the-way", b""), "prepare recipe.yaml --set run=in-the-way",
        r"in-the-way: cannot be written: a file of this name is in the way.*",
    ),
    "checkpoints that are a file": (
        lambda folder: (remove("run/checkpoints")(folder), write("run/checkpoints", b"")(folder)),
        "train recipe.yaml", r"run/checkpoints: cannot be written: a file of this name is in the way.*",
    ),
    "no folder for the model": (
        nothing, "average recipe.yaml --output no/where/model",
        r"no/where/model: cannot be written: there is no such folder: make it first",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "command", "told"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_told_in_a_line(shell: Shell, spoil: Spoil, command: str, told: str):
    spoil(shell.folder)
    before = contents(shell.folder)
    message = shell.fails(*command.split())
    assert re.fullmatch(told, message), message
    assert contents(shell.folder) == before


@pytest.mark.parametrize("name", ["recipe.yaml", "train.en", f"{LAST}/state.json", f"{LAST}/{WEIGHTS}"])
def test_what_may_not_be_read_is_told(shell: Shell, name: str):
    (shell.folder / name).chmod(0)
    if os.access(shell.folder / name, os.R_OK):
        pytest.skip("this user may read everything")
    command = ("prepare", "--force") if name == "train.en" else ("train",)
    assert "Permission denied" in shell.fails(*command, "recipe.yaml")


def test_all_that_is_wrong_with_a_recipe_is_told_at_once(shell: Shell):
    options = ("--set", "train.stps=1", "--set", "model.heads=5")
    done = shell("train", "recipe.yaml", *options, code=2)
    assert len(done.err.splitlines()) == 2
    assert "Traceback" not in done.err


# Folders of the user's own


def test_no_folder_is_replaced_that_holds_what_is_not_ours(shell: Shell):
    (shell.folder / "mine").mkdir()
    (shell.folder / "mine" / "diary").write_text("dear diary")
    before = contents(shell.folder)
    assert "diary" in shell.fails("average", "recipe.yaml", "--output", "mine")
    assert shell.fails("average", "recipe.yaml", "--output", ".")
    assert shell.fails("average", "recipe.yaml", "--output", LAST)
    (shell.folder / "mine").rename(shell.folder / "data")
    assert "data: " in shell.fails("prepare", "recipe.yaml", "--set", "run=.")
    (shell.folder / "data").rename(shell.folder / "mine")
    assert contents(shell.folder) == before


# A disk that is full


@pytest.mark.parametrize("place", [LAST, "run/model", "run/translations/held.de"])
def test_a_full_disk_is_told_and_what_was_there_stays(shell: Shell, place: str):
    shell("score", "recipe.yaml")
    commands = {
        LAST: (*TRAIN, "--set", "train.steps=80"),
        "run/model": ("average", "recipe.yaml"),
        "run/translations/held.de": ("score", "recipe.yaml"),
    }
    before = contents(shell.folder / place)
    room = 400 if place.endswith(".de") else 50_000
    message = shell.fails(*commands[place], largest=room)
    assert re.fullmatch(r"run/\S+: cannot be written: the file is larger than .*", message)
    assert contents(shell.folder / place) == before


def test_after_a_full_disk_training_goes_on_from_the_last_checkpoint(shell: Shell):
    shell.fails(*TRAIN, "--set", "train.steps=60", largest=50_000)
    assert "going on from run/checkpoints/step-00000040" in shell(*TRAIN, "--set", "train.steps=41").err


def test_output_that_cannot_be_written_is_told(shell: Shell):
    lines = (shell.folder / "valid.en").read_bytes()
    if Path("/dev/full").exists():
        message = shell.fails("translate", "run/model", stdin=lines, out="/dev/full")
        assert message == "standard output: cannot be written: the disk is full: free some space and run it again"
    (shell.folder / "out").touch()
    how = {"out": str(shell.folder / "out"), "largest": 200}  # bytes, of standard error too
    message = shell.fails("translate", "run/model", "--on-suspect", "off", stdin=lines, **how)
    assert message.startswith("standard output: cannot be written: ")


def test_what_was_translated_before_the_fault_is_not_lost(shell: Shell):
    (shell.folder / "latin").write_bytes("Grüße\n".encode("latin1"))
    done = shell("translate", "run/model", "valid.en", "latin", "--batch-size", 1, "--beam", 1, code=2)
    assert done.err.startswith("nmt: error: latin:1: not UTF-8")


# Training that is stopped


def metrics(folder: Path) -> list[tuple[str, int]]:
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [(line["kind"], line["step"]) for line in map(json.loads, lines)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stopped_at_any_time_and_run_again_training_ends_the_same_to_the_bit(
    fresh: Shell, trained: Shell, number: signal.Signals
):
    code = -number if number == signal.SIGKILL else 128 + number
    for text in ("0 of 40 updates done", "update       5", "update      15", "valid loss", "update      35"):
        done = fresh(*TRAIN, code=code, signal=(number, text))
        assert number == signal.SIGKILL or f"stopped by {number.name} with " in done.err.splitlines()[-1]
    fresh(*TRAIN)
    for name in (WEIGHTS, "optimizer.safetensors"):
        assert (fresh.folder / LAST / name).read_bytes() == (trained.folder / LAST / name).read_bytes()
    assert half_written(fresh.folder) == []
    found = metrics(fresh.folder)
    assert len(found) == len(set(found))
    assert [step for kind, step in found if kind == "train"] == list(range(5, 41, 5))
    assert found == metrics(trained.folder)


def test_a_validation_that_a_stop_cut_off_is_made_up_for(fresh: Shell, trained: Shell):
    metrics_of = fresh.folder / "run" / "metrics.jsonl"
    fresh(*TRAIN)
    lines = metrics_of.read_text().splitlines(keepends=True)
    metrics_of.write_text("".join(lines[:-1]) + '{"kind": "val')
    assert "valid loss" in fresh(*TRAIN).err
    assert metrics(fresh.folder) == metrics(trained.folder)
    assert "valid loss" not in fresh(*TRAIN).err


def test_what_a_killed_process_left_half_written_goes_with_the_next_checkpoint(shell: Shell):
    (shell.folder / "run/checkpoints/.step-00000040.0123abcd.tmp").mkdir()
    shell(*TRAIN, "--set", "train.steps=41")
    assert half_written(shell.folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_preparation_keeps_what_was_there_and_what_it_has_done(shell: Shell, number: signal.Signals):
    before = contents(shell.folder)
    shell("prepare", "recipe.yaml", "--force", "--workers", 1, code=128 + number, signal=(number, "learning"))
    assert (shell.folder / "run/data.partial/plan.json").exists()
    shutil.rmtree(shell.folder / "run/data.partial")
    assert contents(shell.folder) == before
    assert half_written(shell.folder) == []


def test_stopping_does_not_wait_for_a_long_update_or_validation(fresh: Shell):
    slow = ("--set", "train.batch_tokens=400000", "--set", "train.valid_every=1", "--set", "train.log_every=1")
    running = fresh.start(*TRAIN, *slow).wait_for("0 of 40 updates done")
    begun = time.monotonic()
    assert running.kill(signal.SIGTERM).code == 143
    assert time.monotonic() - begun < 3
