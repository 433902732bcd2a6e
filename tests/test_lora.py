"""Low-rank adaptation: only what is added learns, and the merged model is the one that was trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import test_finetuning
import test_known_answer as known
import test_world as world
import torch
from torch import Tensor

from nmt import recipe as recipes
from nmt.data import prepare
from nmt.data.batches import Chunk, pack
from nmt.data.shards import Shards
from nmt.errors import CheckpointError, ModelError, RecipeError
from nmt.model.folder import load, read_weights, weights_of
from nmt.model.transformer import Transformer
from nmt.recipe import Layout, Recipe
from nmt.training import average, finetuning, learner, train
from nmt.training.learner import Learner
from nmt.training.loop import Training
from nmt.training.lora import adapt, merged, stored
from nmt.translation import Translator

text = test_finetuning.text
RECIPE = """
run: {run}
data: {{source: en, target: de, train: {text}, valid: {text}}}
tokenizer: {{vocab_size: 300}}
model: {{layers: 2, d_model: 16, heads: 2, d_k: 4, d_v: 12, d_ffn: 24, activation: swiglu, dropout: 0.1}}
train: {{steps: 12, batch_tokens: 100, schedule: {{name: inverse-sqrt, warmup: 2, rate: 0.02}}, valid_every: 100,
        valid_bleu: 2, checkpoint_every: 4, keep: 3, log_every: 4}}
average: {{last: 2}}
"""
LORA = "train.lora={rank: 3, alpha: 6}"
ATTENTION = 3 * (2 * (2 * 4 + 16) + (2 * 12 + 16) + (2 * 12 + 16))  # r (R + C) for queries, keys, values, output
FFN = 3 * (2 * (24 + 16) + (16 + 24))  # gate, value, and back


def prepared(text: Path, run: Path, *changes: str) -> Recipe:
    recipe = recipes.loads(RECIPE.format(run=run, text=text), overrides=changes)
    prepare(recipe, workers=1, report=lambda line: None)
    return recipe


@pytest.fixture(scope="module")
def base(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained model."""
    recipe = prepared(text, tmp_path_factory.mktemp("first") / "run")
    train(recipe, "cpu")
    return average(recipe, report=lambda line: None)


@pytest.fixture
def tuned(base: Path, text: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe that adapts that model, its text prepared."""
    return lambda name, *changes: prepared(text, tmp_path / name, f"train.init={base}", LORA, *changes)


def states(model: Transformer, chunk: Chunk) -> Tensor:
    from nmt.model.streams import Cut

    cuts = (Cut.of(lengths) for lengths in (chunk.source_lengths, chunk.target_lengths))
    source, target = (torch.from_numpy(np.asarray(ids)).long() for ids in (chunk.source, chunk.decoder_input))
    with torch.no_grad():
        out: Tensor = model.eval()(source, next(cuts), target, next(cuts))
        return out


def files(recipe: Recipe, step: int, name: str = "model") -> dict[str, Tensor]:
    return read_weights(Layout.of(recipe).checkpoints / f"step-{step:08d}" / f"{name}.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def test_before_the_first_update_the_adapted_model_is_the_base_model(base: Path, tuned: Callable[..., Recipe]) -> None:
    recipe = tuned("run")
    training = Training(recipe, torch.device("cpu"))
    chunk = pack(Shards.open(Layout.of(recipe).data, "train"), range(9))
    assert torch.equal(states(training.learner.model, chunk), states(load(base).model, chunk))


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ((), 6 * ATTENTION + 4 * FFN),
        (("train.lora.targets=attention",), 6 * ATTENTION),
        (("train.lora.targets=ffn",), 4 * FFN),
        (("train.freeze=decoder",), 2 * ATTENTION + 2 * FFN),
        (("train.lora.rank=1", "train.freeze=[encoder, embeddings]"), (4 * ATTENTION + 2 * FFN) // 3),
    ],
)
def test_as_many_parameters_learn_as_the_formula_says(
    changes: tuple[str, ...], count: int, tuned: Callable[..., Recipe]
) -> None:
    training = Training(tuned("run", *changes), torch.device("cpu"))
    total, learning = training.learner.parameter_counts
    assert learning == count == sum(tensor.numel() for tensor in stored(training.learner.model).values())
    assert total == count + sum(tensor.numel() for tensor in merged(training.learner.model).values())
    assert f"{count / 1e6:.2f} of {total / 1e6:.1f} M parameters on cpu" in training.describe()


def test_what_is_added_to_a_matrix_is_of_no_higher_rank_and_queries_keys_and_values_each_have_their_own(
    base: Path, tuned: Callable[..., Recipe]
) -> None:
    recipe = tuned("run", "train.lora.rank=1")
    train(recipe, "cpu")
    before, after = read_weights(base / "model.safetensors"), _averaged(recipe, last=1)
    name = "decoder.layers.1.cross_attention.inputs.weight"
    parts = (after[name] - before[name]).split([8, 8, 24])
    for part in parts:
        values = torch.linalg.svdvals(part)
        assert values[0] > 1e-4
        assert values[1] < 1e-3 * values[0]
    assert torch.linalg.matrix_rank(torch.cat(parts), rtol=1e-3) == 3


def test_a_checkpoint_holds_what_was_added_and_the_base_stays_to_the_bit(
    base: Path, tuned: Callable[..., Recipe]
) -> None:
    recipe = tuned("run", "average.last=3")
    before = (base / "model.safetensors").read_bytes()
    train(recipe, "cpu")
    assert (base / "model.safetensors").read_bytes() == before
    kept = files(recipe, 12)
    assert {name.rpartition(".")[2] for name in kept} == {"a", "b"}
    assert sum(tensor.numel() for tensor in kept.values()) == 6 * ATTENTION + 4 * FFN
    assert {name.partition("/")[2] for name in files(recipe, 12, "optimizer")} == kept.keys()
    given, made = read_weights(base / "model.safetensors"), _averaged(recipe)
    differing = {name for name in given if not torch.equal(given[name], made[name])}
    layers = ("inputs", "output", "inner", "outer")
    aimed = {name for name in given if name.split(".")[-2] in layers and name.endswith("weight") and "." in name}
    assert differing == {name for name in aimed if name != "output.weight"}


@pytest.mark.parametrize("changes", [(), ("train.ema=0.5",), ("train.precision=bf16",), ("train.lora.dropout=0.3",)])
def test_the_merged_model_is_the_adapted_one_and_translates_alike(
    changes: tuple[str, ...], text: Path, tuned: Callable[..., Recipe]
) -> None:
    recipe = tuned("run", "train.lora.alpha=60", *changes)
    train(recipe, "cpu")
    training = Training(recipe, torch.device("cpu"))
    last = Layout.of(recipe).checkpoints / "step-00000012"
    folder = average(recipe, named=[last], report=lambda line: None)
    found, adapted = load(folder), training.learner.measured
    plain = merged(adapted)
    assert same(plain, read_weights(folder / "model.safetensors"))
    chunk = pack(Shards.open(Layout.of(recipe).data, "train"), range(18))
    torch.testing.assert_close(states(adapted, chunk), states(found.model, chunk), rtol=0, atol=1e-6)
    learns = Learner(recipe, found.model, torch.device("cpu"), training.learner.precision)
    assert training.learner.negative_log_likelihood([chunk]) == learns.negative_log_likelihood([chunk])
    lines = Path(f"{text}.en").read_text("utf-8").splitlines()
    during = Translator.of(adapted, found.tokenizers, recipe, torch.device("cpu"), torch.float32, lambda warning: None)
    assert during.translate(lines, beam=2) == Translator.load(folder, "cpu", "fp32").translate(lines, beam=2)


def _averaged(recipe: Recipe, last: int | None = None) -> dict[str, Tensor]:
    return read_weights(average(recipe, last, report=lambda line: None) / "model.safetensors")


def test_the_average_is_that_of_the_merged_models_not_of_what_they_are_made_of(tuned: Callable[..., Recipe]) -> None:
    recipe = tuned("run", "average.last=3")
    train(recipe, "cpu")
    model, _ = finetuning.new_model(recipe, Training(recipe, torch.device("cpu"))._tokenizers)
    each = []
    for step in (4, 8, 12):
        for name, parameter in stored(model).items():
            parameter.data.copy_(files(recipe, step)[name])
        each.append(merged(model))
    for name, tensor in _averaged(recipe).items():
        torch.testing.assert_close(tensor, sum(one[name] for one in each) / 3)


@pytest.mark.parametrize(
    "changes", [("train.lora.dropout=0.3",), ("train.ema=0.9", "train.r_drop=1", "train.clip_norm=1")]
)
def test_a_stopped_and_resumed_training_is_the_undisturbed_one_to_the_bit(
    changes: tuple[str, ...], tuned: Callable[..., Recipe]
) -> None:
    whole = tuned("whole", *changes)
    train(whole, "cpu")
    for steps in (5, 12):
        parts = tuned("parts", *changes, f"train.steps={steps}")
        train(parts, "cpu")
        torch.manual_seed(steps)
    assert same(files(whole, 12), files(parts, 12))
    assert same(_averaged(whole), _averaged(parts))


def test_dropout_thins_what_is_added_while_training_and_only_then(tuned: Callable[..., Recipe]) -> None:
    training = Training(tuned("run", "train.lora.dropout=0.5"), torch.device("cpu"))
    layer = training.learner.model.train().encoder.layers[0].feed_forward.outer  # type: ignore[union-attr]
    low = layer.parametrizations.weight[0]  # type: ignore[union-attr,index]
    torch.nn.init.ones_(low.b)  # type: ignore[arg-type]
    base = layer.parametrizations.weight.original  # type: ignore[union-attr]
    drawn = torch.stack([layer.weight - base for _ in range(400)])  # type: ignore[operator]
    assert {tuple(one[0].nonzero().shape) for one in drawn} != {(24, 1)}
    assert ((drawn == 0).all(1) == (drawn[:, 0] == 0)).all()  # whole columns
    layer.eval()
    torch.testing.assert_close(drawn.mean(0), layer.weight - base, rtol=0.3, atol=0.1)  # type: ignore[operator]


def test_going_back_to_the_beginning_leaves_nothing_added(tuned: Callable[..., Recipe]) -> None:
    recipe = tuned("run", "train.ema=0.9")
    training = Training(recipe, torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in weights_of(training.learner.model).items()}
    train(recipe, "cpu")
    learns = Training(recipe, torch.device("cpu")).learner
    assert not same(before, weights_of(learns.model))
    learns.restart(weights_of(finetuning.new_model(recipe, training._tokenizers)[0]))
    assert same(before, weights_of(learns.model))
    assert same(before, weights_of(learns.measured))


def test_a_running_mean_shares_what_stays_as_it_is(tuned: Callable[..., Recipe]) -> None:
    learns = Training(tuned("run", "train.ema=0.9"), torch.device("cpu")).learner
    ours, mean = ({name: p.data_ptr() for name, p in m.named_parameters()} for m in (learns.model, learns.measured))
    assert {name for name in ours if ours[name] != mean[name]} == stored(learns.model).keys()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([LORA], r"train\.lora\.rank: must be 0, or train\.init must name the model that is adapted, found 3"),
        (
            [LORA, "train.init=m", "train.freeze=[encoder, decoder]"],
            r"train\.lora\.rank: must be 0 where train\.freeze",
        ),
        (
            [LORA, "train.init=m", "train.optimizer.name=muon"],
            r"train\.optimizer\.name: must be adam where train\.lora\.rank is above 0",
        ),
        (["train.lora.targets=embeddings"], r"train\.lora\.targets\[0\]: must be attention or ffn"),
        (["train.lora.targets=[]"], r"train\.lora\.targets: must have at least 1 entry"),
        (["train.lora.rnak=3"], r"train\.lora\.rnak: unknown key; did you mean train.lora.rank"),
    ],
)
def test_what_does_not_go_together_is_told_in_a_line(changes: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told) as raised:
        recipes.loads(RECIPE.format(run="run", text="text"), overrides=changes)
    assert "\n" not in str(raised.value)


def test_a_base_model_that_has_changed_or_gone_is_told(base: Path, text: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    recipe = prepared(text, tmp_path / "run", f"train.init={copy}", LORA)
    train(recipe, "cpu")
    assert json.loads((Layout.of(recipe).checkpoints / "step-00000012" / "state.json").read_text())["base"]
    other = prepared(text, tmp_path / "other", "seed=2")
    train(other, "cpu")
    average(other, output=copy, report=lambda line: None)
    for command in (train, average):
        with pytest.raises(CheckpointError, match="has since changed: bring it back as it was, or remove"):
            command(recipe)
    shutil.rmtree(copy)
    with pytest.raises(ModelError, match=r"train\.init: .*copy/model\.safetensors: there is no such file"):
        average(recipe)


def test_symbols_that_could_never_learn_are_refused(base: Path, text: Path, tmp_path: Path) -> None:
    reuse = [f"tokenizer={{reuse: {base}, symbols: [<new>]}}", f"train.init={base}"]
    for change, key in ((LORA, "train.lora"), ("train.freeze=embeddings", "train.freeze")):
        recipe = prepared(text, tmp_path / key, *reuse, change)
        with pytest.raises(ModelError, match=rf"does not know <new>, and could not learn it, for with {key}"):
            Training(recipe, torch.device("cpu"))


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(tuned: Callable[..., Recipe], tmp_path: Path) -> None:
    changes = "train.optimizer.eps=1e-3", "train.chunk_tokens=40"
    whole, parts = (tuned(name, *changes) for name in ("whole", "parts"))
    train(whole, "cpu")
    path = tmp_path / "parts.yaml"
    path.write_text(recipes.dump(parts), "utf-8")
    codes, said = world.ended(world.start(2, path))
    assert codes == [0, 0], said
    for name, tensor in files(parts, 12).items():
        torch.testing.assert_close(tensor, files(whole, 12)[name], rtol=1e-3, atol=1e-5)


# A task whose answer is known


def taught(recipe: Recipe, model: Transformer, task: Callable[[list[known.Sequence]], Chunk], updates: int) -> Learner:
    """What learns the task, at the rate of `known.PEAK` that falls to nothing."""
    learns = Learner(recipe, model, torch.device("cpu"), torch.float32)
    draw = np.random.default_rng(1)
    with pytest.MonkeyPatch.context() as patch:
        peak = 4 * known.PEAK if recipe.train.lora.rank else known.PEAK
        fall = lambda step: min(step / 50, (updates + 1 - step) / (updates - 50))  # noqa: E731
        patch.setattr(learner, "learning_rate", lambda _, step: peak * fall(step))
        for step in range(1, updates + 1):
            learns.apply(step, learns.gradients(step, {0: task(known.drawn(draw, 80))}))
    return learns


def forwards(sequences: list[known.Sequence]) -> Chunk:
    """To say a sequence as it is."""
    chunk = known.chunk(sequences)
    turned = known.chunk([x[::-1] for x in sequences])
    return chunk._replace(decoder_input=turned.decoder_input, labels=turned.labels)


@pytest.mark.slow
def test_a_model_that_says_sequences_backwards_learns_to_say_them_forwards_by_a_tenth_of_its_parameters() -> None:
    recipe = recipes.loads(known.RECIPE, overrides=["model.norm=pre"])
    torch.manual_seed(1)
    model = Transformer(recipe.model, known.SPECIALS + known.SYMBOLS, known.SPECIALS + known.SYMBOLS)
    taught(recipe, model, known.chunk, 300)
    held_out = known.drawn(np.random.default_rng(2), 200)
    assert known.answers(model, held_out) != [x.tolist() for x in held_out]
    adapted = recipes.loads(known.RECIPE, overrides=["model.norm=pre", "train.init=model", "train.lora={rank: 3}"])
    adapt(model, adapted.train.lora)
    learns = taught(adapted, model, forwards, 300)
    total, learning = learns.parameter_counts
    assert learning < total / 10
    right = [said == x.tolist() for said, x in zip(known.answers(model, held_out), held_out, strict=True)]
    assert np.mean(right) >= 0.95
