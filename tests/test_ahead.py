"""Batches that are made ahead are those that would have been made when they are asked for."""

import threading
import time
from pathlib import Path

import pytest
import test_training
import torch

from nmt.data.batches import Cursor
from nmt.model.folder import read_weights
from nmt.training import loop, train
from nmt.training.ahead import Ahead, Batch
from nmt.training.fitting import fitting
from nmt.training.learner import Learner
from nmt.training.loop import Training
from nmt.training.world import World

text = test_training.text


def made(step: int, begin: Cursor) -> Batch:
    return Batch(step, begin, Cursor(begin.epoch, begin.taken + step), [], {}, (step, step))


def test_batches_come_in_order_and_are_made_before_they_are_asked_for() -> None:
    asked: list[int] = []

    def make(step: int, begin: Cursor) -> Batch:
        asked.append(step)
        assert threading.current_thread() is not threading.main_thread()
        return made(step, begin)

    cursor = Cursor()
    with Ahead(make, 2) as ahead:
        for step in range(1, 6):
            batch = ahead.take(step, cursor)
            assert batch == made(step, cursor)
            cursor = batch.end
            give_up = time.monotonic() + 30
            while asked != [*range(1, step + 3)]:
                assert time.monotonic() < give_up
                time.sleep(0.001)


def test_what_was_not_foreseen_is_made_anew_and_gone_on_from() -> None:
    with Ahead(made, 3) as ahead:
        for step, cursor in ((1, Cursor()), (2, Cursor(0, 1)), (1, Cursor(0, 3)), (2, Cursor(0, 4)), (9, Cursor(4, 4))):
            assert ahead.take(step, cursor) == made(step, cursor)


def test_an_error_comes_with_the_batch_it_is_of_and_not_before() -> None:
    def make(step: int, begin: Cursor) -> Batch:
        return made(step, begin) if step < 3 else made(1 // (step - step), begin)

    with Ahead(make, 2) as ahead:
        cursor = ahead.take(2, ahead.take(1, Cursor()).end).end
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                ahead.take(3, cursor)


def test_without_a_thread_nothing_is_made_that_was_not_asked_for() -> None:
    asked: list[int] = []
    with Ahead(lambda step, begin: asked.append(step) or made(step, begin), 0) as ahead:  # type: ignore[func-returns-value]
        ahead.take(1, Cursor())
    assert asked == [1]


def test_training_with_batches_made_ahead_is_the_same_to_the_bit(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = "train.steps=12", "train.bpe_dropout=0.1", "train.checkpoint_every=5"
    plain, ahead = (test_training.prepared(text, tmp_path / name, *changes) for name in ("plain", "ahead"))
    train(plain, "cpu")
    monkeypatch.setattr(loop, "Ahead", lambda make, depth: Ahead(make, 2))
    train(ahead, "cpu")
    for kind in ("model", "optimizer"):
        ours, theirs = (
            read_weights(Path(recipe.run, "checkpoints", "step-00000012", f"{kind}.safetensors"))
            for recipe in (ahead, plain)
        )
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize(("room", "fits"), [(10**9, 4096), (3000, 2000), (900, 500), (0, 250)])
def test_the_largest_chunk_that_fits_is_found_and_nothing_stays_of_looking_for_it(
    room: int, fits: int, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = test_training.prepared(text, tmp_path / "run", "train.batch_tokens=4000", "train.steps=3")
    undisturbed = test_training.prepared(text, tmp_path / "undisturbed", "train.batch_tokens=4000", "train.steps=3")
    train(undisturbed, "cpu")
    training, plain = Training(recipe, torch.device("cpu")), Learner._loss
    learner = training.learner

    def limited(learner: Learner, model: object, chunk: object, *rest: float) -> object:
        found = plain(learner, model, chunk, *rest)  # type: ignore[arg-type]
        if len(chunk.source) > room:  # type: ignore[attr-defined]
            found.smoothed.backward()
            raise torch.OutOfMemoryError
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "_loss", limited)
        assert fitting(recipe, learner, 4096) == fits
    assert all(parameter.grad is None for parameter in learner.model.parameters())
    assert not learner.optimizer.tensors()
    monkeypatch.setattr(loop, "Training", lambda *_: training)
    train(recipe, "cpu")
    same = (test_training.final_weights(one) for one in (recipe, undisturbed))
    test_training.assert_equal(*same)


def test_processes_agree_on_the_smallest_of_their_chunks(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(test_training.prepared(text, tmp_path / "run"), torch.device("cpu"))
    monkeypatch.setattr(World, "gather", lambda world, value: [value, 777, 5000])
    assert fitting(training.recipe, training.learner, 4096) == 777
