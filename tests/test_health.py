"""What is not finite moves nothing and is told; what keeps coming back is left out; what cannot be mended ends."""

import json
import math
import os
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_training
import torch
from commands import Server, Shell
from test_training import assert_equal, final_weights, prepared

from nmt.data.batches import Chunk, Cursor
from nmt.errors import TrainingError
from nmt.model.folder import read_weights
from nmt.model.transformer import Transformer
from nmt.recipe import Recipe
from nmt.training import health, train
from nmt.training.entropy import entropy, mean
from nmt.training.health import Health
from nmt.training.journal import Journal
from nmt.training.learner import Learner
from nmt.training.loop import Training
from nmt.training.loss import Loss
from nmt.training.stopping import Stopping

text = test_training.text
CPU = torch.device("cpu")
SHORT = [
    "train.steps=40",
    "train.checkpoint_every=10",
    "train.log_every=1",
    "train.valid_every=20",
    "train.valid_bleu=0",
]

Break = Callable[[Loss], Loss]
BREAKS: dict[str, Break] = {
    "loss": lambda loss: loss._replace(smoothed=loss.smoothed * math.nan),
    "gradient": lambda loss: with_gradient(loss, math.inf),
    "gradient too long for its square": lambda loss: with_gradient(loss, 1e30),
}


def with_gradient(loss: Loss, times: float) -> Loss:
    loss.smoothed.register_hook(lambda gradient: gradient * times)
    return loss


class Poison:
    """Breaks the loss of updates by the place of their data: counted in updates since the beginning of training."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places: Sequence[int] = ()
        self.how = BREAKS["loss"]
        self.stops: dict[int, Callable[[], object]] = {}  # what else happens there, once
        self._cursors = [Cursor()]
        self._now = 0
        plain_try, plain_loss = Training._try, Learner._loss

        def tried(training: Training, step: int) -> Any:
            while training.state.cursor not in self._cursors:
                self._cursors.append(training._sampler.update(self._cursors[-1])[1])
            self._now = self._cursors.index(training.state.cursor)
            self.stops.pop(self._now, lambda: None)()
            return plain_try(training, step)

        def loss(learner: Learner, model: Transformer, chunk: Chunk, *how: float) -> Loss:
            found = plain_loss(learner, model, chunk, *how)
            return self.how(found) if model.training and self._now in self.places else found

        monkeypatch.setattr(Training, "_try", tried)
        monkeypatch.setattr(Learner, "_loss", loss)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Poison:
    return Poison(monkeypatch)


def advance(training: Training) -> None:
    with Journal(training.layout, training.recipe, training.state) as journal:
        assert training._advance(journal, Stopping())


def everything(training: Training) -> dict[str, torch.Tensor]:
    weights = {name: parameter.detach().clone() for name, parameter in training.learner.model.named_parameters()}
    return weights | {name: tensor.clone() for name, tensor in training.learner.optimizer.tensors().items()}


def lines(recipe: Recipe, name: str) -> list[dict[str, Any]]:
    """Of metrics.jsonl or skipped.jsonl, without what the clock says."""
    path = Path(recipe.run, name)
    values = map(json.loads, path.read_text("utf-8").splitlines() if path.exists() else ())
    return [{k: v for k, v in line.items() if k not in ("time", "target_tokens_per_second")} for line in values]


def by_hand(recipe: Recipe, places: Sequence[int]) -> dict[str, torch.Tensor]:
    """The weights after updates on the data of these places, one after the other."""
    training = Training(recipe, CPU)
    cursors = [Cursor()]
    for _ in range(max(places)):
        cursors.append(training._sampler.update(cursors[-1])[1])
    for step, place in enumerate(places, 1):
        batch = training._batch(step, cursors[place])
        training.learner.apply(step, training.learner.gradients(step, batch.chunks))
    return {name: parameter.detach() for name, parameter in training.learner.model.named_parameters()}


# One update


@pytest.mark.parametrize("how", BREAKS)
def test_a_gradient_that_is_not_finite_moves_nothing(how: str, poison: Poison, text: Path, tmp_path: Path) -> None:
    poison.places, poison.how = [2], BREAKS[how]
    training = Training(prepared(text, tmp_path / "run", "train.clip_norm=1"), CPU)
    advance(training)
    advance(training)
    before, state = everything(training), training.state
    advance(training)
    assert_equal(before, everything(training))
    assert training.state.step == state.step + 1
    assert training.state.cursor == training._sampler.update(state.cursor)[1]
    advance(training)
    assert not any(torch.equal(before[name], moved) for name, moved in everything(training).items())
    [line] = lines(training.recipe, "skipped.jsonl")
    assert line["step"] == 3
    assert line["not_finite"] == (["loss", "gradient"] if how == "loss" else ["gradient"])
    assert line["gradient_norm"] == {"loss": "nan", "gradient": "nan"}.get(how, "inf")
    assert isinstance(line["loss"], str) == (how == "loss")


def test_the_lines_of_a_skipped_update_are_told(
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = prepared(text, tmp_path / "run", *SHORT, "train.steps=2", "train.chunk_tokens=60")
    training = Training(recipe, CPU)
    batch = training._batch(1, Cursor())
    bad = batch.chunks[1]
    plain = Learner._loss

    def loss(learner: Learner, model: Transformer, chunk: Chunk, *how: float) -> Loss:
        found = plain(learner, model, chunk, *how)
        return BREAKS["loss"](found) if np.array_equal(chunk.labels, bad.labels) else found

    monkeypatch.setattr(Learner, "_loss", loss)
    train(recipe, "cpu")
    [line] = lines(recipe, "skipped.jsonl")
    sources, targets = (Path(f"{text}.{language}").read_text("utf-8").splitlines() for language in ("en", "de"))
    numbers = batch.pairs[1].tolist()
    assert 1 < len(numbers) < sum(map(len, batch.pairs))
    assert [told["pair"] for told in line["lines"]] == numbers
    assert [(told["source"], told["target"]) for told in line["lines"]] == [(sources[n], targets[n]) for n in numbers]
    [told] = [one for one in capsys.readouterr().err.splitlines() if "skipped" in one]
    assert told.startswith("update       1  skipped, with loss and gradient not finite: ")
    assert f"pair {numbers[0]} ({sources[numbers[0]]} = " in told
    assert told.endswith(f": see {recipe.run}/skipped.jsonl")


def test_of_many_lines_only_some_are_written_down(
    poison: Poison,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "PAIRS", 3)
    poison.places = [0]
    training = Training(prepared(text, tmp_path / "run"), CPU)
    advance(training)
    [line] = lines(training.recipe, "skipped.jsonl")
    assert len(line["lines"]) == 3 < line["pairs"]


# Several in a row


@pytest.mark.parametrize(("first", "back"), [(4, 0), (13, 10), (18, 10), (25, 20)])
def test_after_three_in_a_row_training_goes_back_but_the_data_goes_on(
    first: int,
    back: int,
    poison: Poison,
    text: Path,
    tmp_path: Path,
) -> None:
    # With 18, a checkpoint is due between the second and the third: it holds the weights that failed twice.
    poison.places = range(first, first + 3)
    dropout = "train.bpe_dropout=0.1"  # how pairs are cut depends on the update they are in
    recipe = prepared(text, tmp_path / "run", *SHORT, dropout, "train.keep=1", "average.last=1")
    train(recipe, "cpu")
    twin = prepared(text, tmp_path / "twin", *SHORT, dropout)
    assert_equal(final_weights(recipe), by_hand(twin, [*range(back), *range(first + 3, first + 43 - back)]))
    assert [line["step"] for line in lines(recipe, "skipped.jsonl")] == list(range(first + 1, first + 4))
    steps = [line["step"] for line in lines(recipe, "metrics.jsonl") if line["kind"] == "train"]
    assert steps == list(range(1, 41))


def test_two_in_a_row_are_only_skipped(poison: Poison, text: Path, tmp_path: Path) -> None:
    poison.places = [3, 4, 6, 7]
    training = Training(prepared(text, tmp_path / "run"), CPU)
    for _ in range(9):
        advance(training)
    assert training.state.step == 9
    assert training.state.health == Health(row=0, skips=4)


def test_weights_that_are_not_finite_are_never_saved_but_gone_back_on(
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, broken = Learner.apply, [20]

    def apply(learner: Learner, step: int, sums: Any) -> Any:
        found = plain(learner, step, sums)
        if step in broken:
            broken.remove(step)
            with torch.no_grad():
                learner.model.output.weight[-1, 0] = math.inf
        return found

    monkeypatch.setattr(Learner, "apply", apply)
    recipe = prepared(text, tmp_path / "run", *SHORT)
    train(recipe, "cpu")
    assert (
        "update      20  the weights are no longer finite: back to the weights of update 10" in capsys.readouterr().err
    )
    for path in Path(recipe.run, "checkpoints").iterdir():
        for name in ("model.safetensors", "optimizer.safetensors"):
            assert all(tensor.isfinite().all() for tensor in read_weights(path / name).values())
    twin = prepared(text, tmp_path / "twin", *SHORT)
    assert_equal(final_weights(recipe), by_hand(twin, [*range(10), *range(20, 50)]))


def test_a_training_that_cannot_be_mended_ends(poison: Poison, text: Path, tmp_path: Path) -> None:
    poison.places = range(15, 1000)
    recipe = prepared(text, tmp_path / "run", *SHORT)
    with pytest.raises(TrainingError, match=r"update 13: it was rewound 3 times"):
        train(recipe, "cpu")
    assert len(lines(recipe, "skipped.jsonl")) == 12
    poison.places = ()
    train(recipe, "cpu")  # from the last checkpoint, on other data than before
    assert sorted(path.name for path in Path(recipe.run, "checkpoints").iterdir())[-1] == "step-00000040"


def test_rewinds_count_until_training_gets_past_the_first_of_them() -> None:
    state = Health().skipped().rewound(130)
    assert state == Health(row=0, skips=1, rewinds=1, broke=130)
    assert state.taken(130).rewound(120) == Health(0, 1, 2, 130)
    assert state.taken(131) == Health(skips=1)


# Interrupted and resumed


def of_itself(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def crash() -> None:
    raise RuntimeError("as if the power had failed")


@pytest.mark.parametrize("stop", [of_itself(signal.SIGTERM), crash], ids=["SIGTERM", "crash"])
def test_interrupted_and_resumed_across_skips_and_rewinds_training_ends_the_same_to_the_bit(
    stop: Callable[[], None],
    poison: Poison,
    text: Path,
    tmp_path: Path,
) -> None:
    changes = [*SHORT, "train.keep=1", "average.last=1"]
    poison.places = [2, 3, 6, 7, 8, 14, 24, 25, 26, 31, 32, 33]  # skips, and rewinds to the beginning and to 10
    whole, parts = (prepared(text, tmp_path / name, *changes) for name in ("whole", "parts"))
    train(whole, "cpu")
    for place in (3, 8, 9, 14, 26, 29, 33, 34, 50):
        poison.stops[place] = stop
        try:
            assert train(parts, "cpu") == signal.SIGTERM
        except RuntimeError:
            assert stop is crash
        assert not poison.stops
    train(parts, "cpu")
    last = "checkpoints/step-00000040"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert_equal(*(read_weights(Path(recipe.run, last, name)) for recipe in (whole, parts)))
    assert lines(whole, "skipped.jsonl") == lines(parts, "skipped.jsonl")
    found = [[(line["kind"], line["step"]) for line in lines(recipe, "metrics.jsonl")] for recipe in (whole, parts)]
    assert found[0] == found[1]
    names = [sorted(path.name for path in Path(recipe.run, "checkpoints").iterdir()) for recipe in (whole, parts)]
    assert names[0] == names[1] == ["step-00000040"]


def test_what_was_given_up_by_a_rewind_is_not_taken_up_again(poison: Poison, text: Path, tmp_path: Path) -> None:
    poison.places = [13, 14, 15]
    recipe = prepared(text, tmp_path / "run", *SHORT)
    for place in (15, 18):  # before the rewind, with 15 updates done, and after it, with 12
        poison.stops[place] = of_itself(signal.SIGTERM)
        train(recipe, "cpu")
    assert Training(recipe, CPU).state.step == 12


def test_a_checkpoint_from_before_health_was_noted_still_loads(text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", *SHORT, "train.steps=3")
    train(recipe, "cpu")
    path = Path(recipe.run, "checkpoints/step-00000003/state.json")
    state = json.loads(path.read_text())
    assert state.pop("health") == Health()._asdict()
    path.write_text(json.dumps(state))
    assert Training(recipe, CPU).state.health == Health()


# From outside


@pytest.mark.parametrize("scale", ["1e30", "1e42"])
def test_an_absurd_learning_rate_ends_in_a_line_of_advice(
    server: Server, trained: Shell, tmp_path: Path, scale: str
) -> None:
    """The first overflows what the layers compute, the second the weights themselves."""
    untrained = shutil.ignore_patterns("checkpoints", "model", "*.jsonl")
    shutil.copytree(trained.folder, tmp_path / "copy", ignore=untrained)
    shell = Shell(server, tmp_path / "copy")
    done = shell("train", "recipe.yaml", "--device", "cpu", "--set", f"train.schedule.scale={scale}", code=2)
    *before, last = done.err.splitlines()
    assert re.fullmatch(r"nmt: error: training broke off at update \d: .* lower train\.schedule\.scale.*", last)
    for advice in ("train.schedule.warmup", "train.clip_norm", "fp32", "run/skipped.jsonl"):
        assert advice in last
    assert len([line for line in before if "back to the first weights" in line]) == 3
    skipped = [json.loads(line) for line in (shell.folder / "run/skipped.jsonl").read_text().splitlines()]
    told = [line for line in before if "skipped, " in line and "see run/skipped.jsonl" in line]
    assert len(told) == len(skipped) > 0
    sources = (shell.folder / "train.en").read_text().splitlines()
    assert {line["source"] for one in skipped for line in one["lines"]} <= set(sources)
    assert list((shell.folder / "run/checkpoints").iterdir()) == []


# What is logged


def test_the_longest_gradient_since_the_last_line_is_logged(text: Path, tmp_path: Path) -> None:
    each, some = (
        prepared(text, tmp_path / every, "train.steps=10", f"train.log_every={every}") for every in ("1", "5")
    )
    for recipe in (each, some):
        train(recipe, "cpu")
    norms = [line["gradient_norm"] for line in lines(each, "metrics.jsonl") if line["kind"] == "train"]
    logged = [line["gradient_norm_max"] for line in lines(some, "metrics.jsonl") if line["kind"] == "train"]
    assert logged == [max(norms[:5]), max(norms[5:])]
    assert max(norms[:5]) != norms[4]


def test_the_number_of_skipped_updates_is_logged(poison: Poison, text: Path, tmp_path: Path) -> None:
    poison.places = [2, 5]
    recipe = prepared(text, tmp_path / "run", "train.steps=8", "train.log_every=4")
    train(recipe, "cpu")
    logged = [line for line in lines(recipe, "metrics.jsonl") if line["kind"] == "train"]
    assert [line["skipped_updates"] for line in logged] == [1, 2]
    assert all(math.isfinite(line["loss"]) for line in logged)


@pytest.mark.parametrize("window", [0, 4])
def test_the_entropy_of_attention_is_logged_for_each_layer(window: int, text: Path, tmp_path: Path) -> None:
    changes = ["train.steps=2", "train.valid_bleu=0", "model.layers={encoder: 3, decoder: 2}"]
    recipe = prepared(text, tmp_path / "run", *changes, f"model.window={window}")
    train(recipe, "cpu")
    [found] = [line["attention_entropy"] for line in lines(recipe, "metrics.jsonl") if line["kind"] == "valid"]
    assert {kind: len(layers) for kind, layers in found.items()} == {"encoder": 3, "decoder": 2, "cross": 2}
    for layers in found.values():
        assert all(0.1 < value < math.log(12) for value in layers)  # no sentence is longer
    if window:  # two tokens before and two behind; in the decoder none behind
        assert max(found["encoder"]) <= math.log(5)
        assert max(found["decoder"]) <= math.log(3)


def test_the_entropy_of_uniform_attention_is_the_logarithm_of_its_keys_and_of_one_hot_attention_0() -> None:
    assert mean(entropy(torch.full((6, 4, 5), 1 / 5)), np.array([4, 2, 3])) == pytest.approx(math.log(5))
    assert mean(entropy(torch.eye(5).expand(6, 5, 5)), np.array([5, 2, 3])) == 0


def test_the_entropy_of_padding_does_not_count() -> None:
    heads, lengths = 2, np.array([4, 1])
    weights = torch.zeros(2 * heads, 4, 8)
    weights[:, :, 0] = 1
    weights[2:, 1:] = 1 / 8  # the second sentence has one token: the rest are no queries
    assert mean(entropy(weights), lengths) == 0
    weights[3, 0] = 1 / 8  # one of five queries, with one of two heads
    assert mean(entropy(weights), lengths) == pytest.approx(math.log(8) / 10)


def test_the_entropy_of_blocks_counts_the_queries_of_all_of_them() -> None:
    lengths = np.array([5, 2])  # in blocks of two: 2, 2, 1 and 2
    weights = torch.zeros(4, 2, 6)
    weights[:, :, 0] = 1
    weights[2, 1] = 1 / 6
    assert mean(entropy(weights), lengths) == 0
    weights[3, 1] = 1 / 6
    assert mean(entropy(weights), lengths) == pytest.approx(math.log(6) / 7)
