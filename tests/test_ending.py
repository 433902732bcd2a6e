"""When training ends, and which of its models are kept: the best, the last, and those of a stop."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Server, Shell

from nmt import recipe as recipes
from nmt.data import prepare
from nmt.errors import CheckpointError, NmtError, RecipeError
from nmt.model.folder import read_weights
from nmt.recipe import Recipe
from nmt.training import average, train
from nmt.training.loop import Training
from nmt.training.validation import Measurement, Validation

RECIPE = """
run: {run}
data: {{source: en, target: de, train: {text}, valid: {text}}}
tokenizer: {{vocab_size: 300}}
model: {{layers: 1, d_model: 8, heads: 2, d_ffn: 8}}
train: {{steps: 100, batch_tokens: 50, valid_every: 10, valid_bleu: 2, checkpoint_every: 5, keep: 2, log_every: 100}}
average: {{last: 2}}
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("text") / "train"
    for language in ("en", "de"):
        lines = "".join(
            f"a {kind} {animal} {language}\n" for kind in ["red", "big"] for animal in ["cat", "dog", "cow"]
        )
        Path(f"{prefix}.{language}").write_text(lines, "utf-8")
    return prefix


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """What BLEU the valid corpus gives after each update: 1 where nothing is said."""
    scores: dict[int, float] = {}

    def measure(_: Validation, __: Any, step: int) -> Measurement:
        score = scores.get(step, 1.0)
        return Measurement(10 - score, {}, score, 2 * score)

    monkeypatch.setattr(Validation, "measure", measure)
    return scores


def prepared(text: Path, run: Path, *changes: str) -> Recipe:
    recipe = recipes.loads(RECIPE.format(run=run, text=text), overrides=changes)
    prepare(recipe, workers=1, report=lambda line: None)
    return recipe


def kept(recipe: Recipe) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in Path(recipe.run, "checkpoints").glob("step-*"))


def weights(recipe: Recipe, step: int) -> dict[str, torch.Tensor]:
    return read_weights(Path(recipe.run, "checkpoints", f"step-{step:08d}", "model.safetensors"))


def test_training_ends_when_patience_does(
    said: dict[int, float], text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = prepared(text, tmp_path / "run", "train.patience=3")
    said |= {10: 2.0, 20: 5.0, 30: 4.0, 40: 5.0, 50: 4.5, 60: 9.0}
    train(recipe, "cpu")
    assert kept(recipe)[-1] == 50  # three measurings with nothing better than that of update 20
    assert "no better bleu 5.00 than that of update 20 for train.patience, 3 measurings" in capsys.readouterr().err
    train(recipe, "cpu")
    assert kept(recipe)[-1] == 50
    train(prepared(text, tmp_path / "run", "train.patience=4", "train.steps=70"), "cpu")
    assert kept(recipe)[-1] == 70


@pytest.mark.parametrize("by", ["loss", "chrf"])
def test_patience_is_judged_by_what_the_recipe_says(
    by: str, said: dict[int, float], text: Path, tmp_path: Path
) -> None:
    recipe = prepared(text, tmp_path / "run", "train.patience=1", f"train.best_by={by}")
    said |= {10: 2.0, 20: 3.0, 30: 2.5}
    train(recipe, "cpu")
    assert kept(recipe)[-1] == 30


def test_the_best_checkpoints_are_kept_beside_the_last_and_averaged(
    said: dict[int, float], text: Path, tmp_path: Path
) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=60", "train.keep_best=2", "average.best=2")
    said |= {10: 2.0, 20: 7.0, 30: 5.0, 40: 7.0, 50: 6.0}
    train(recipe, "cpu")
    assert kept(recipe) == [20, 40, 55, 60]
    mean = read_weights(average(recipe, report=lambda line: None) / "model.safetensors")
    for name, tensor in weights(recipe, 20).items():
        torch.testing.assert_close(mean[name], (tensor + weights(recipe, 40)[name]) / 2)
    best = read_weights(average(recipe, best=1, report=lambda line: None) / "model.safetensors")
    assert all(torch.equal(tensor, best[name]) for name, tensor in weights(recipe, 20).items())
    last = read_weights(average(recipe, last=1, report=lambda line: None) / "model.safetensors")
    assert all(torch.equal(tensor, last[name]) for name, tensor in weights(recipe, 60).items())


def test_where_no_figures_say_which_are_best_that_is_told(said: dict[int, float], text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=10")
    train(recipe, "cpu")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: says of no checkpoint .* average the last"):
        average(recipe, best=1)


def test_stopped_and_resumed_training_keeps_the_same_best_and_ends_at_the_same_update(
    said: dict[int, float], text: Path, tmp_path: Path
) -> None:
    said |= {10: 2.0, 20: 7.0, 30: 5.0, 40: 6.0, 50: 6.0}
    change = "train.patience=3", "train.keep_best=1"
    whole = prepared(text, tmp_path / "whole", *change)
    train(whole, "cpu")
    parts = prepared(text, tmp_path / "parts", *change)
    advance = Training._advance
    for end in (13, 20, 31, 49, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                Training, "_advance", lambda self, *given, end=end: self.state.step < end and advance(self, *given)
            )
            train(parts, "cpu")
    assert kept(whole) == kept(parts) == [20, 45, 50]
    assert all(torch.equal(tensor, weights(parts, 50)[name]) for name, tensor in weights(whole, 50).items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("train.keep_best=2", None),
        ("train.valid_every=12", "train.keep_best: must be 0 unless train.valid_every is a multiple .* found 1"),
        ("train.valid_bleu=0", r"train\.best_by: must be loss, for train\.valid_bleu is 0, found .bleu."),
        ("average.best=2", r"average\.best: must be at most train\.keep_best \(1\), found 2"),
    ],
)
def test_what_cannot_be_judged_or_kept_is_refused(change: str, told: str | None) -> None:
    given = RECIPE.format(run="run", text="text")
    if told is None:
        recipes.loads(given, overrides=["train.keep_best=1", change])
        return
    with pytest.raises(RecipeError, match=told):
        recipes.loads(given, overrides=["train.keep_best=1", change])


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_a_signal_of_the_scheduler_saves_and_leaves(name: str, text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=100000")
    number = signal.Signals[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Validation, "measure", lambda *_: os.kill(os.getpid(), number))
        assert train(recipe, "cpu") == number
    assert kept(recipe)[-1] == 10


def test_when_the_time_is_up_training_saves_and_leaves(text: Path, tmp_path: Path, capsys: Any) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=100000", "train.valid_every=100000")
    assert train(recipe, "cpu", seconds=2.0) == signal.SIGALRM
    done = kept(recipe)[-1]
    assert f"the time is up with {done} updates done and saved; run it again to go on" in capsys.readouterr().err
    assert train(prepared(text, tmp_path / "run", f"train.steps={done + 5}"), "cpu", seconds=1000.0) is None
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0  # nothing is left ticking


@pytest.mark.parametrize(
    ("time", "seconds"), [("7h30m", 27_000), ("90m", 5400), ("45s", 45), ("1d12h", 129_600), ("0.5h", 1800)]
)
def test_times_are_read_as_people_write_them(time: str, seconds: float) -> None:
    from nmt.cli.options import seconds as read

    assert read(time) == seconds


@pytest.mark.parametrize("time", ["", "7", "h", "3 h", "-1h", "1h-3m", "soon", "0s", "0h0m"])
def test_what_is_no_time_is_told(time: str) -> None:
    from nmt.cli.options import seconds as read

    with pytest.raises(NmtError, match="--max-time must be a time such as 7h30m"):
        read(time)


def test_the_command_ends_with_the_code_of_the_alarm_when_the_time_is_up(
    server: Server, trained: Shell, tmp_path: Path
) -> None:
    shutil.copytree(trained.folder, tmp_path / "copy")
    change = "--set", "train.steps=100000", "--max-time", "1s"
    done = Shell(server, tmp_path / "copy")("train", "recipe.yaml", "--device", "cpu", *change, code=142)
    assert "the time is up" in done.err
