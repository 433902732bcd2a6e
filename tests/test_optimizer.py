"""Gradients become updates: Adam, Muon, and the running mean of the weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from nmt import recipe as recipes
from nmt.data import prepare
from nmt.model.folder import read_weights
from nmt.model.transformer import Transformer
from nmt.recipe import Model, Recipe
from nmt.training import average, train
from nmt.training.loop import Training
from nmt.training.muon import Muon
from nmt.training.optimizer import _for_muon

RECIPE = """
run: {run}
data: {{source: en, target: de, train: {text}, valid: {text}}}
tokenizer: {{vocab_size: 300}}
model: {{layers: 1, d_model: 16, heads: 2, d_ffn: 32, dropout: 0.1}}
train: {{steps: 40, batch_tokens: 100, schedule: {{warmup: 20}}, valid_every: 20, valid_bleu: 2, checkpoint_every: 10,
        keep: 4, log_every: 20}}
average: {{last: 2}}
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("text") / "train"
    numbers = [f"{a} {b} {c}" for a in ["one", "two", "three"] for b in ["red", "blue"] for c in ["cats", "dogs"]]
    for language in ("en", "de"):
        Path(f"{prefix}.{language}").write_text("".join(f"{line} {language}\n" for line in numbers), "utf-8")
    return prefix


def prepared(text: Path, run: Path, *changes: str) -> Recipe:
    recipe = recipes.loads(RECIPE.format(run=run, text=text), overrides=changes)
    prepare(recipe, workers=1, report=lambda line: None)
    return recipe


def stored(recipe: Recipe, step: int, file: str = "model") -> dict[str, torch.Tensor]:
    return read_weights(Path(recipe.run, "checkpoints", f"step-{step:08d}", f"{file}.safetensors"))


@pytest.mark.parametrize("change", ["train.optimizer.name=muon", "train.ema=0.9"])
def test_with_it_a_resumed_training_is_the_undisturbed_one_to_the_bit(change: str, text: Path, tmp_path: Path) -> None:
    whole = prepared(text, tmp_path / "whole", change)
    train(whole, "cpu")
    for steps in (17, 40):
        parts = prepared(text, tmp_path / "parts", change, f"train.steps={steps}")
        train(parts, "cpu")
    for one, other in ((stored(whole, 40), stored(parts, 40)), tuple(_averaged(r) for r in (whole, parts))):
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _averaged(recipe: Recipe) -> dict[str, torch.Tensor]:
    return read_weights(average(recipe, report=lambda line: None) / "model.safetensors")


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_muon_steps_as_pytorch_s_own_does_with_each_matrix_of_several_in_one(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(1)
    ours = nn.Parameter(torch.randn(2 * shape[0], shape[1], generator=draw))
    theirs = [nn.Parameter(part.detach().clone()) for part in ours.split(shape[0])]
    choices = {"lr": 0.1, "weight_decay": 0.2, "momentum": 0.9}
    muon = Muon([[shape[0]] * 2], [ours], **choices)
    reference = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **choices)
    before = ours.detach().clone()
    for _ in range(5):
        ours.grad = torch.randn(ours.shape, generator=draw)
        for one, gradient in zip(theirs, ours.grad.split(shape[0]), strict=True):
            one.grad = gradient.clone()
        muon.step()
        reference.step()
    expected = torch.cat([one.detach() for one in theirs])
    assert (ours - expected).norm() < 0.02 * (before - expected).norm()  # that one iterates in bf16


def test_muon_takes_what_is_one_matrix_to_the_model_as_one() -> None:
    model = Transformer(Model(layers=1, d_model=16, heads=2, d_ffn=32, activation="swiglu"), 50, 50)
    found = _for_muon(recipes.loads(RECIPE.format(run="r", text="t"), overrides=["train.optimizer.name=muon"]), model)
    assert found["decoder.layers.0.self_attention.inputs.weight"] == [16, 16, 16]
    assert found["decoder.layers.0.feed_forward.inner.weight"] == [32, 32]
    assert found["decoder.layers.0.cross_attention.output.weight"] == [16]
    weights = dict(model.named_parameters())
    assert all(sum(rows) == len(weights[name]) for name, rows in found.items())


def test_muon_moves_the_matrices_inside_layers_in_all_directions_alike_and_adam_the_rest(
    text: Path, tmp_path: Path
) -> None:
    changes = "train.steps=1", "train.schedule={warmup: 1, name: inverse-sqrt, rate: 0.01}"
    recipes_ = [prepared(text, tmp_path / name, *changes, f"train.optimizer.name={name}") for name in ("adam", "muon")]
    before = {
        name: p.detach().clone()
        for name, p in Training(recipes_[0], torch.device("cpu")).learner.model.named_parameters()
    }
    for recipe in recipes_:
        train(recipe, "cpu")
    adam, muon = (stored(recipe, 1) for recipe in recipes_)
    differing = {name for name in adam if not torch.equal(adam[name], muon[name])}
    assert differing == {name for name, tensor in adam.items() if tensor.dim() == 2 and "embedding" not in name}
    name = "encoder.layers.0.feed_forward.inner.weight"
    scales = torch.linalg.svdvals(muon[name] - before[name])
    # Newton-Schulz leaves singular values between about 0.7 and 1.2, but of the one direction that LayerNorm cancels.
    assert scales[0] / scales[-2] < 2.5
    root_mean_square = (muon[name] - before[name]).square().mean().sqrt()
    assert 0.5 < root_mean_square / (0.01 * 0.2) < 1.5  # as Adam's steps are on the whole


def test_the_running_mean_is_what_its_formula_says_and_is_what_is_measured_and_averaged(
    text: Path, tmp_path: Path
) -> None:
    recipe = prepared(text, tmp_path / "run", "train.ema=0.5", "train.steps=30")
    training = Training(recipe, torch.device("cpu"))
    learner = training.learner
    expected = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    apply = learner.apply

    def noting(step: int, sums: object) -> object:
        update = apply(step, sums)  # type: ignore[arg-type]
        kept = min(0.5, (1 + step) / (10 + step))
        for name, parameter in learner.model.named_parameters():
            expected[name].mul_(kept).add_(parameter.detach(), alpha=1 - kept)
        return update

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nmt.training.learner.Learner.apply", lambda self, step, sums: noting(step, sums))
        patch.setattr("nmt.training.loop.Training", lambda *_: training)
        train(recipe, "cpu")
    for name, tensor in stored(recipe, 30, "mean").items():
        torch.testing.assert_close(tensor, expected[name])
        assert not torch.equal(tensor, stored(recipe, 30)[name])
    assert {*learner.measured.parameters()}.isdisjoint(learner.model.parameters())
    means = [stored(recipe, step, "mean") for step in (20, 30)]
    for name, tensor in _averaged(recipe).items():
        torch.testing.assert_close(tensor, (means[0][name] + means[1][name]) / 2)


def _one_update(recipe: Recipe) -> tuple[Training, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A training that has done an update; its weights before, and the gradients that the optimizer was given."""
    training = Training(recipe, torch.device("cpu"))
    learner, seen = training.learner, {}
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    step = learner.optimizer.step

    def noting(rate: float) -> None:
        seen.update({name: p.grad.clone() for name, p in learner.model.named_parameters() if p.grad is not None})
        step(rate)

    learner.optimizer.step = noting  # type: ignore[method-assign]
    batch = training._batch(1, training.state.cursor)
    learner.apply(1, learner.gradients(1, batch.chunks, batch.tokens))
    return training, before, seen


def test_longer_gradients_are_scaled_to_the_norm_and_shorter_ones_left(text: Path, tmp_path: Path) -> None:
    free, clipped, roomy = (
        _one_update(prepared(text, tmp_path / str(norm), f"train.clip_norm={norm}"))[2] for norm in (0.0, 0.01, 1000.0)
    )
    length = torch.nn.utils.get_total_norm(free.values())
    assert length > 0.02
    assert torch.nn.utils.get_total_norm(clipped.values()) == pytest.approx(0.01, rel=1e-3)
    for name, gradient in free.items():
        torch.testing.assert_close(clipped[name], gradient * (0.01 / length), rtol=1e-3, atol=1e-9)
        torch.testing.assert_close(roomy[name], gradient)


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_weights_decay_by_a_share_of_the_learning_rate_whatever_the_gradient(
    name: str, text: Path, tmp_path: Path
) -> None:
    rate = "train.schedule={name: inverse-sqrt, warmup: 1, rate: 0.01}", f"train.optimizer.name={name}"
    plain, decayed = (
        _one_update(prepared(text, tmp_path / str(decay), *rate, f"train.optimizer.weight_decay={decay}"))
        for decay in (0.0, 0.5)
    )
    after, before = dict(plain[0].learner.model.named_parameters()), plain[1]
    for key, parameter in decayed[0].learner.model.named_parameters():
        torch.testing.assert_close(parameter, after[key] - 0.01 * 0.5 * before[key])
