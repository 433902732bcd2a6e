"""Checkpoints are written while training goes on, and nothing that may happen meanwhile spoils them."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from commands import Shell, half_written
from safetensors.torch import load_file, save

from nmt import recipe as recipes
from nmt.errors import LostError, OutputError
from nmt.model.folder import write_weights
from nmt.training import checkpoint, train
from nmt.training.health import Fault
from nmt.training.loop import Training, Tried
from nmt.training.saving import Saving

WEIGHTS, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
LAST = "run/checkpoints/step-00000040"


@pytest.fixture
def here(fresh: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what is prepared, to train in from within the test."""
    monkeypatch.chdir(fresh.folder)
    return fresh.folder


def wait_for(is_so: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.001)


def test_training_goes_on_while_a_checkpoint_is_written_and_what_is_written_is_of_its_update(
    here: Path, trained: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, advance = checkpoint.save, Training._advance
    reached: list[int] = []

    def slowly(folder: Path, snapshot: checkpoint.Snapshot, scores: Any) -> Path:
        if snapshot.state.step < 40:
            wait_for(lambda: reached[-1] >= snapshot.state.step + 5)
        return write(folder, snapshot, scores)

    def watched(self: Training, *given: Any) -> bool:
        reached.append(self.state.step)
        return advance(self, *given)

    monkeypatch.setattr(checkpoint, "save", slowly)
    monkeypatch.setattr(Training, "_advance", watched)
    train(recipes.load("recipe.yaml"), "cpu")
    for step in (10, 20, 30, 40):
        for file in (WEIGHTS, OPTIMIZER):
            name = f"run/checkpoints/step-{step:08d}/{file}"
            assert (here / name).read_bytes() == (trained.folder / name).read_bytes()


def test_one_checkpoint_is_written_at_a_time_and_the_end_waits_for_the_last(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint.save
    under_way: list[int] = []

    def slowly(folder: Path, snapshot: checkpoint.Snapshot, scores: Any) -> Path:
        assert not under_way
        under_way.append(snapshot.state.step)
        time.sleep(0.2)
        under_way.pop()
        return write(folder, snapshot, scores)

    monkeypatch.setattr(checkpoint, "save", slowly)
    train(recipes.load("recipe.yaml", ["train.checkpoint_every=4"]), "cpu")
    assert sorted(path.name for path in (here / "run/checkpoints").glob("*")) == [
        f"step-{step:08d}" for step in (28, 32, 36, 40)
    ]


def test_a_refusal_of_the_disk_ends_training_with_the_next_update(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Path:
        raise OutputError("no room")

    monkeypatch.setattr(checkpoint, "save", refused)
    with pytest.raises(OutputError, match="no room"):
        train(recipes.load("recipe.yaml", ["train.steps=1000000", "train.checkpoint_every=5"]), "cpu")


def test_whatever_ends_training_the_checkpoint_under_way_becomes_whole_first(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, advance = checkpoint.save, Training._advance

    def slowly(folder: Path, snapshot: checkpoint.Snapshot, scores: Any) -> Path:
        time.sleep(0.5)
        return write(folder, snapshot, scores)

    def lost(self: Training, *given: Any) -> bool:
        if self.state.step == 11:
            raise LostError("the others are gone")
        return advance(self, *given)

    monkeypatch.setattr(checkpoint, "save", slowly)
    monkeypatch.setattr(Training, "_advance", lost)
    with pytest.raises(LostError, match="the others are gone"):
        train(recipes.load("recipe.yaml"), "cpu")
    assert (here / "run/checkpoints/step-00000010/state.json").exists()
    assert half_written(here) == []


def test_killed_while_a_checkpoint_is_written_training_ends_the_same_to_the_bit(fresh: Shell, trained: Shell) -> None:
    command, died = ("train", "recipe.yaml", "--device", "cpu"), 0
    for moment in (9, 12, 15, 18, 21):
        died += fresh.start(*command, dies_at=moment).wait().code == -9
    assert died == 5
    fresh(*command)
    for file in (WEIGHTS, OPTIMIZER):
        assert (fresh.folder / LAST / file).read_bytes() == (trained.folder / LAST / file).read_bytes()
    assert half_written(fresh.folder) == []


def test_what_a_thread_raises_is_raised_once_where_it_is_asked_for() -> None:
    go = Event()

    def fail() -> None:
        go.wait()
        raise OutputError("no room")

    saving = Saving()
    saving.check()
    saving.begin(fail)
    saving.check()
    go.set()
    with pytest.raises(OutputError, match="no room"):
        saving.wait()
    saving.wait()
    with pytest.raises(OutputError, match="no room"), saving:
        saving.begin(fail)


def test_a_file_of_weights_is_what_safetensors_writes_of_them(tmp_path: Path) -> None:
    weights = {"b/é": torch.randn(3, 5), "a": torch.tensor(2.0), "b": torch.empty(0, 4), "c": torch.randn(4, 6).t()}
    write_weights(tmp_path / "ours", weights)
    theirs = save({name: tensor.contiguous() for name, tensor in weights.items()})
    assert (tmp_path / "ours").read_bytes() == theirs
    assert all(torch.equal(tensor, weights[name]) for name, tensor in load_file(tmp_path / "ours").items())


def test_a_checkpoint_after_a_first_update_that_was_left_out_can_be_gone_on_from(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt = Training._try

    def wrong(self: Training, step: int, leave: bool = False) -> Tried:
        tried = attempt(self, step, leave)
        self.learner.forget()
        return tried._replace(fault=Fault(["loss"], math.nan, math.nan, [], 0))

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_try", wrong)
        train(recipes.load("recipe.yaml", ["train.steps=1"]), "cpu")
    train(recipes.load("recipe.yaml", ["train.steps=2"]), "cpu")
    assert "going on from run/checkpoints/step-00000001, 1 of 2 updates done" in capsys.readouterr().err
