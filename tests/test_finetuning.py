"""Fine-tuning begins with a model's weights, and leaves alone what it is told to."""

from pathlib import Path

import pytest
import torch

from nmt import recipe as recipes
from nmt.data import prepare
from nmt.errors import ModelError, RecipeError
from nmt.model.folder import read_weights
from nmt.recipe import Layout, Recipe
from nmt.training import average, train
from nmt.training.loop import Training

RECIPE = """
run: {run}
data: {{source: en, target: de, train: {text}, valid: {text}}}
tokenizer: {{vocab_size: 300}}
model: {{layers: 1, d_model: 16, heads: 2, d_ffn: 32, dropout: 0.1}}
train: {{steps: 4, batch_tokens: 100, valid_every: 100, valid_bleu: 2, checkpoint_every: 4, log_every: 4}}
"""


def prepared(text: Path, run: Path, *changes: str) -> Recipe:
    recipe = recipes.loads(RECIPE.format(run=run, text=text), overrides=changes)
    prepare(recipe, workers=1, report=lambda line: None)
    return recipe


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("text") / "train"
    numbers = [f"{a} {b} {c}" for a in ("one", "two", "ten") for b in ("red", "big") for c in ("cats", "dogs", "cows")]
    for language in ("en", "de"):
        Path(f"{prefix}.{language}").write_text("".join(f"{line} {language}\n" for line in numbers), "utf-8")
    return prefix


@pytest.fixture(scope="module")
def model(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained model."""
    recipe = prepared(text, tmp_path_factory.mktemp("first") / "run")
    train(recipe, "cpu")
    return average(recipe, report=lambda line: None)


def tuned(recipe: Recipe) -> dict[str, torch.Tensor]:
    train(recipe, "cpu")
    return read_weights(Layout.of(recipe).checkpoints / "step-00000004" / "model.safetensors")


def test_training_begins_with_the_weights_of_the_model_it_is_given(model: Path, text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", f"train.init={model}", "seed=1", "model.dropout=0.3")
    found = dict(Training(recipe, torch.device("cpu")).learner.model.named_parameters())
    given = read_weights(model / "model.safetensors")
    assert found.keys() == given.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in given.items())


@pytest.mark.parametrize("embeddings", ["shared", "decoder", "separate"])
def test_for_symbols_that_are_new_rows_are_drawn_and_all_else_is_the_models(
    embeddings: str, model: Path, text: Path, tmp_path: Path
) -> None:
    if embeddings != "shared":
        first = prepared(text, tmp_path / "first", f"model.embeddings={embeddings}")
        train(first, "cpu")
        model = average(first)
    changes = f"tokenizer={{reuse: {model}, symbols: [<new>, <x>]}}", f"model.embeddings={embeddings}"
    tagged = f"data.train={{path: {text}, tag: <2de>}}"
    recipe = prepared(text, tmp_path / "run", *changes, tagged, f"train.init={model}")
    training = Training(recipe, torch.device("cpu"))
    told = f"from the weights in {model}, with rows drawn for what is new in the vocabulary: <new>, <x>, <2de>, 0 of"
    assert told in training.describe()
    given, found = read_weights(model / "model.safetensors"), dict(training.learner.model.named_parameters())
    assert found.keys() == given.keys()
    tables = {name for name, tensor in given.items() if len(tensor) == 300}
    assert len(tables) == {"shared": 1, "decoder": 2, "separate": 3}[embeddings]
    for name, tensor in given.items():
        assert torch.equal(found[name][: len(tensor)], tensor)
        assert len(found[name]) == len(tensor) + (3 if name in tables else 0)
    fresh = Training(prepared(text, tmp_path / "fresh", *changes, tagged), torch.device("cpu")).learner.model
    for name in tables:  # as they would have been at the beginning
        assert torch.equal(found[name][300:], dict(fresh.named_parameters())[name][300:])
        assert found[name][300:].std() > 0.1
    train(recipe, "cpu")
    again = Training(recipe, torch.device("cpu"))
    assert "going on from" in again.describe()
    source = "encoder.embedding.table.weight"
    assert not torch.equal(again.learner.model.state_dict()[source][302], fresh.state_dict()[source][302])  # <2de>
    average(recipe)


@pytest.mark.parametrize("part", ["embeddings", "encoder", "decoder"])
def test_what_is_frozen_stays_and_the_rest_learns(part: str, model: Path, text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", f"train.init={model}", f"train.freeze={part}")
    before, after = read_weights(model / "model.safetensors"), tuned(recipe)
    # A bias of keys has no influence on softmax, and hardly moves: judge by the matrices.
    stayed = {name for name, tensor in before.items() if torch.equal(tensor, after[name]) and tensor.dim() == 2}
    belongs = {"embeddings": ".embedding.", "encoder": "encoder.layers.", "decoder": "decoder.layers."}[part]
    assert stayed == {name for name, tensor in before.items() if belongs in name and tensor.dim() == 2}


def test_another_model_or_vocabulary_is_refused_with_what_differs(model: Path, text: Path, tmp_path: Path) -> None:
    wider = prepared(text, tmp_path / "wider", f"train.init={model}", "model.d_ffn=64", "model.norm=pre")
    with pytest.raises(ModelError, match=r"another model: model\.d_ffn is 32 there and 64 here; model\.norm is post"):
        train(wider, "cpu")
    larger = prepared(text, tmp_path / "larger", f"train.init={model}", "tokenizer.symbols=<new>")
    with pytest.raises(ModelError, match=r"its vocabulary is not this run's, .*take its tokenizer, by tokenizer.reuse"):
        train(larger, "cpu")
    less = prepared(text, tmp_path / "less", f"tokenizer={{reuse: {model}, symbols: [<new>]}}")
    train(less, "cpu")
    back = prepared(text, tmp_path / "back", f"train.init={average(less)}")
    with pytest.raises(ModelError, match="its vocabulary is not this run's"):
        train(back, "cpu")
    with pytest.raises(ModelError, match="nowhere: there is no model here"):
        train(prepared(text, tmp_path / "wrong", "train.init=nowhere"), "cpu")


def test_a_recipe_that_freezes_all_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"train\.freeze: must leave something to learn"):
        recipes.loads(RECIPE.format(run="run", text="text"), overrides=["train.freeze=[embeddings, encoder, decoder]"])


def test_of_a_projection_that_stays_no_gradient_is_computed(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nmt.training.loss._add_product", lambda *_: pytest.fail("a product for nothing"))
    train(prepared(text, tmp_path / "run", "train.freeze=embeddings"), "cpu")
