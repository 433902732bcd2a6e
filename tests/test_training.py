"""Training is exact: chunks, interruptions and averaging change nothing they should not."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nmt import Translator
from nmt import recipe as recipes
from nmt.data import prepare
from nmt.data.batches import Chunk, pack, split
from nmt.data.shards import Shards
from nmt.errors import CheckpointError, DataError, DeviceError, NmtError
from nmt.kernels import gradients as kernels
from nmt.model.folder import read_weights
from nmt.model.transformer import Transformer
from nmt.recipe import Recipe
from nmt.training import average, train
from nmt.training.learner import Learner
from nmt.training.loop import Training
from nmt.training.loss import Loss, cross_entropy
from nmt.training.schedule import learning_rate

RECIPE = """
run: {run}
data: {{source: en, target: de, train: {text}, valid: {text}}}
tokenizer: {{vocab_size: 400}}
model: {{layers: 2, d_model: 16, heads: 2, d_ffn: 32, dropout: 0.2}}
train: {{steps: 200, batch_tokens: 200, schedule: {{warmup: 50, scale: 2.0}}, valid_every: 1000, valid_bleu: 4,
        checkpoint_every: 50, keep: 4, log_every: 20}}
average: {{last: 2}}
"""
NOISE = "train.noise={upper: 0.2, no_final_punctuation: 0.2, typos: 0.1, placeholders: 0.2, tags: 0.2}"
# Adam's first steps divide a gradient by its own size: with a tiny eps, rounding alone could turn a step round.
# In bf16, the default of some processors, the gradients of each chunk are rounded; and a kink, a last bit may cross.
SMOOTH = ["train.precision=fp32", "model.dropout=0.0", "model.activation=gelu", "train.optimizer.eps=1e-3"]
SUBJECTS = {"the man": "der mann", "a dog": "ein hund", "the girl": "das mädchen", "my friend": "mein freund"}
VERBS = {"sees": "sieht", "loves": "liebt", "finds": "findet", "paints": "malt", "follows": "verfolgt"}
OBJECTS = {"the house": "das haus", "a tree": "einen baum", "the ball": "den ball", "nothing": "nichts"}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sentences of a small language, as a corpus."""
    prefix = tmp_path_factory.mktemp("text") / "train"
    pairs = [
        (f"{s} {v} {o} .", f"{SUBJECTS[s]} {VERBS[v]} {OBJECTS[o]} .") for s in SUBJECTS for v in VERBS for o in OBJECTS
    ]
    for side, language in enumerate(("en", "de")):
        Path(f"{prefix}.{language}").write_text("".join(pair[side] + "\n" for pair in pairs), "utf-8")
    return prefix


def prepared(text: Path, run: Path, *changes: str) -> Recipe:
    recipe = recipes.loads(RECIPE.format(run=run, text=text), overrides=changes)
    prepare(recipe, workers=1, report=lambda line: None)
    return recipe


def final_weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    return read_weights(sorted(Path(recipe.run, "checkpoints").iterdir())[-1] / "model.safetensors")


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.mark.parametrize("multiple", [1, 64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_the_loss_and_its_gradient_are_torchs_own(
    smoothing: float, block: int, multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nmt.training.loss.BLOCK_NUMBERS", {"cpu": block})
    monkeypatch.setattr("nmt.training.loss.MULTIPLE", {"cpu": multiple})
    torch.manual_seed(1)
    states = torch.randn(23, 16, requires_grad=True)
    projection = torch.randn(37, 16, requires_grad=True)
    targets = torch.randint(0, 37, (23,))
    loss = cross_entropy(states, projection, targets, smoothing)
    (loss.smoothed / 3).backward()
    ours = states.grad, projection.grad
    states.grad = projection.grad = None
    logits = F.linear(states, projection)
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    (expected / 3).backward()
    torch.testing.assert_close(loss.smoothed, expected)
    torch.testing.assert_close(loss.nll, F.cross_entropy(logits, targets, reduction="sum"))
    torch.testing.assert_close(ours, (states.grad, projection.grad))


@pytest.mark.parametrize("multiple", [1, 64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_r_drop_and_its_gradient_are_what_autograd_makes_of_the_formula(
    smoothing: float, block: int, multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nmt.training.loss.BLOCK_NUMBERS", {"cpu": block})
    monkeypatch.setattr("nmt.training.loss.MULTIPLE", {"cpu": multiple})
    torch.manual_seed(1)
    states = torch.randn(2 * 23, 16, requires_grad=True)
    projection = torch.randn(37, 16, requires_grad=True)
    targets = torch.randint(0, 37, (23,))
    loss = cross_entropy(states, projection, targets, smoothing, consistency=3.0)
    (loss.smoothed / 3).backward()
    ours = states.grad, projection.grad
    states.grad = projection.grad = None
    both = F.linear(states, projection)
    nll = [F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum") for logits in both.chunk(2)]
    one, other = torch.log_softmax(both, 1).chunk(2)
    apart = F.kl_div(other, one, reduction="sum", log_target=True) + F.kl_div(
        one, other, reduction="sum", log_target=True
    )
    expected = sum(nll) / 2 + 3.0 * apart / 4  # Liang et al. 2021, equation 4, halved
    (expected / 3).backward()
    torch.testing.assert_close(loss.smoothed, expected)
    torch.testing.assert_close(ours, (states.grad, projection.grad))


def test_r_drop_without_dropout_is_training_without_it(text: Path, tmp_path: Path) -> None:
    runs = [prepared(text, tmp_path / str(a), *SMOOTH, "train.steps=20", f"train.r_drop={a}") for a in (0.0, 5.0)]
    for recipe in runs:
        train(recipe, "cpu")
    plain, twice = map(final_weights, runs)
    for name, tensor in plain.items():
        torch.testing.assert_close(tensor, twice[name], rtol=1e-3, atol=1e-5)


def test_r_drop_draws_the_two_predictions_together(text: Path, tmp_path: Path) -> None:
    def apart(consistency: float) -> float:
        """How far two passes differ after training with `consistency`: R-Drop's own term, with α 1."""
        recipe = prepared(text, tmp_path / str(consistency), f"train.r_drop={consistency}")
        train(recipe, "cpu")
        training = Training(recipe, torch.device("cpu"))
        chunk = pack(Shards.open(training.layout.data, "train"), range(80))
        training.learner.model.train()
        losses = []
        for alpha in (1.0, 1e-9):
            torch.manual_seed(1)
            losses.append(training.learner.loss(chunk, 0.0, alpha).smoothed.item())
        return losses[0] - losses[1]

    assert apart(5.0) < apart(0.0) / 2


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Has torch take so many threads, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(("changes", "cores"), [((), 1), (("train.bpe_dropout=0.2", NOISE), 1), ((), 2)])
def test_a_stopped_and_resumed_training_is_the_undisturbed_one_to_the_bit(
    changes: tuple[str, ...], cores: int, text: Path, tmp_path: Path, threads: Callable[[int], None]
) -> None:
    threads(cores)
    undisturbed = prepared(text, tmp_path / "whole", *changes)
    train(undisturbed, "cpu")
    for steps in (100, 170):  # where a checkpoint is due, and where none is
        train(prepared(text, tmp_path / "parts", *changes, f"train.steps={steps}"), "cpu")
        torch.manual_seed(steps)  # a new process begins anywhere
    resumed = prepared(text, tmp_path / "parts", *changes)
    train(resumed, "cpu")
    assert_equal(final_weights(undisturbed), final_weights(resumed))
    assert_equal(*(read_weights(average(recipe) / "model.safetensors") for recipe in (undisturbed, resumed)))


def test_the_number_of_cores_changes_no_update(text: Path, tmp_path: Path, threads: Callable[[int], None]) -> None:
    found = []
    for cores in (1, 2, 3):
        threads(cores)
        recipe = prepared(text, tmp_path / str(cores), *SMOOTH, "train.steps=20")
        train(recipe, "cpu")
        found.append(final_weights(recipe))
    for other in found[1:]:
        for name, tensor in found[0].items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-5)


class SmallDevice:
    """Fails, as a full GPU does, in the midst of computing the gradients of more than so many sentences."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sentences: int) -> None:
        plain = Learner._loss

        def loss(learner: Learner, model: Any, chunk: Any, *rest: float) -> Any:
            found = plain(learner, model, chunk, *rest)
            if torch.is_grad_enabled() and len(chunk.source_lengths) > sentences:
                found.smoothed.backward()
                raise torch.OutOfMemoryError("out of memory")
            return found

        monkeypatch.setattr(Learner, "_loss", loss)


def test_out_of_memory_splits_the_chunks_and_changes_no_update(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = *SMOOTH, "train.steps=20"
    roomy = prepared(text, tmp_path / "roomy", *changes)
    train(roomy, "cpu")
    tight = prepared(text, tmp_path / "tight", *changes)
    SmallDevice(monkeypatch, sentences=9)
    capsys.readouterr()
    train(tight, "cpu")
    assert capsys.readouterr().err.count("out of memory: each chunk is computed in 4 parts from here on") == 1
    for name, tensor in final_weights(roomy).items():
        torch.testing.assert_close(final_weights(tight)[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("where", "mend"),
    [((Learner, "apply"), r"train\.chunk_tokens, now 2048"),
     ((Learner, "negative_log_likelihood"), r"train\.chunk_tokens, now 2048"),
     ((Translator, "_found"), r"decode\.batch_size, now 64")],
)  # fmt: skip
def test_out_of_memory_elsewhere_is_told_with_the_mend(
    where: tuple[Any, str], mend: str, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(*where, full)
    with pytest.raises(DeviceError, match=f"cpu: out of memory.*: lower {mend}"):
        train(prepared(text, tmp_path / "run", "train.chunk_tokens=auto"), "cpu")


def test_a_device_too_small_for_one_pair_is_told(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = prepared(text, tmp_path / "run")
    SmallDevice(monkeypatch, sentences=0)
    with pytest.raises(DeviceError, match=r"too little memory for one pair at a time: lower data\.max_length"):
        train(recipe, "cpu")


def test_another_seed_trains_another_model(text: Path, tmp_path: Path) -> None:
    one, other = (prepared(text, tmp_path / str(seed), "train.steps=3", f"seed={seed}") for seed in (1, 2))
    for recipe in (one, other):
        train(recipe, "cpu")
    assert any(
        not torch.equal(a, b) for a, b in zip(final_weights(one).values(), final_weights(other).values(), strict=True)
    )


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_chunk_size_changes_nothing(dropout: float, text: Path, tmp_path: Path) -> None:
    weights = []
    for chunk in (10, 50, 100_000):
        changes = [*SMOOTH, f"train.bpe_dropout={dropout}", f"train.chunk_tokens={chunk}", "train.steps=5"]
        recipe = prepared(text, tmp_path / str(chunk), *changes)
        train(recipe, "cpu")
        weights.append(final_weights(recipe))
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], atol=1e-5, rtol=1e-4)


NARROW = ["model.d_model=32", "model.heads=2", "train.precision=bf16"]


def filled(training: Training, monkeypatch: pytest.MonkeyPatch) -> tuple[Chunk, list[Chunk]]:
    """A chunk, and what the model was given of it in an update."""
    given = []
    find = training.learner._loss

    def seen(model: Transformer, chunk: Chunk, *rest: float) -> Loss:
        given.append(chunk)
        return find(model, chunk, *rest)

    monkeypatch.setattr("nmt.training.learner.FILL", 4)
    monkeypatch.setattr(training.learner, "_loss", seen)
    chunk = pack(training._shards, range(20))
    training.learner.gradients(1, {0: chunk})
    return chunk, given


def test_what_fills_up_streams_in_bf16_changes_no_gradient(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels.at_hand():
        pytest.skip("no C compiler")
    recipe = prepared(text, tmp_path / "run", *SMOOTH, *NARROW)
    one, other = (Training(recipe, torch.device("cpu")).learner for _ in range(2))
    training = Training(recipe, torch.device("cpu"))
    training.learner = one
    chunk, [given] = filled(training, monkeypatch)
    assert len(given.source) % 4 == len(given.decoder_input) % 4 == 0
    assert len(given.source_lengths) == len(chunk.source_lengths) + 1
    other._fills = False
    other.gradients(1, {0: chunk})
    for ours, expected in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=2e-2, atol=2e-4)


@pytest.mark.parametrize(
    "change",
    ["model.positions=alibi", "model.attention_dropout=0.1", "model.heads=4", "train.precision=fp32", "train.r_drop=1"],
)
def test_where_a_filler_would_take_time_there_is_none(
    change: str, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where attention pads sentences to the longest."""
    training = Training(prepared(text, tmp_path / "run", *NARROW, change), torch.device("cpu"))
    chunk, given = filled(training, monkeypatch)
    assert given == [chunk]


def test_an_update_is_adams_on_the_mean_gradient_per_target_token(text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", *SMOOTH, "train.chunk_tokens=40")
    training = Training(recipe, torch.device("cpu"))
    twin = Training(recipe, torch.device("cpu"))
    pairs, _ = training._sampler.update(training.state.cursor)
    chunks = [pack(training._shards, part) for part in split(pairs, training._shards.lengths, 40)]
    assert len(chunks) > 2
    training.learner.apply(1, training.learner.gradients(1, dict(enumerate(chunks))))
    model = twin.learner.model.train()
    whole = pack(training._shards, np.sort(pairs))
    (twin.learner.loss(whole, 0.1).smoothed / whole.target_tokens).backward()
    rate = learning_rate(recipe, 1)
    plain = torch.optim.Adam(model.parameters(), rate, (0.9, 0.98), 1e-3, foreach=False, fused=False)
    plain.step()
    for ours, expected in zip(training.learner.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-4)


def test_a_small_language_is_learned_and_translated_exactly(text: Path, tmp_path: Path) -> None:
    slowly = ["train.schedule.warmup=100", "train.schedule.scale=0.5"]
    recipe = prepared(text, tmp_path / "run", "train.steps=300", "model.d_model=32", "model.dropout=0.0", *slowly)
    train(recipe, "cpu")
    translator = Translator.load(average(recipe), "cpu")
    sources, references = (Path(f"{text}.{language}").read_text("utf-8").splitlines() for language in ("en", "de"))
    right = sum(a == b for a, b in zip(translator.translate(sources), references, strict=True))
    assert right >= 0.95 * len(references)


def test_what_is_averaged_is_chosen_in_one_way_and_too_few_are_told(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=2")
    for chosen in ({"last": 2, "best": 1}, {"best": 1, "named": [tmp_path]}, {"last": 1, "named": [tmp_path]}):
        with pytest.raises(NmtError, match=r"--\w+ and --\w+: each says which checkpoints to average: give one"):
            average(recipe, **chosen)  # type: ignore[arg-type]
    train(recipe, "cpu")
    average(recipe, last=7)
    assert "the average of 1 checkpoints, for there are no more of the 7 asked for: " in capsys.readouterr().err


def test_averaging_a_checkpoint_with_itself_changes_nothing(text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=2")
    train(recipe, "cpu")
    [only] = Path(recipe.run, "checkpoints").iterdir()
    folder = average(recipe, named=[only, only, only], output=tmp_path / "model")
    torch.testing.assert_close(read_weights(folder / "model.safetensors"), final_weights(recipe))


def test_the_average_is_the_mean_of_the_last_checkpoints(text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=6", "train.checkpoint_every=2")
    train(recipe, "cpu")
    *_, a, b = (read_weights(p / "model.safetensors") for p in sorted(Path(recipe.run, "checkpoints").iterdir()))
    mean = read_weights(average(recipe) / "model.safetensors")
    torch.testing.assert_close(mean, {name: (a[name] + b[name]) / 2 for name in a})


def test_the_last_updates_are_noted_though_they_fill_no_line(text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=7", "train.log_every=5")
    train(recipe, "cpu")
    lines = map(json.loads, Path(recipe.run, "metrics.jsonl").read_text("utf-8").splitlines())
    assert [line["step"] for line in lines if line["kind"] == "train"] == [5, 7]


def test_only_the_last_checkpoints_are_kept(text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=7", "train.checkpoint_every=2", "train.keep=3")
    train(recipe, "cpu")
    names = sorted(path.name for path in Path(recipe.run, "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000006", "step-00000007"]


def test_other_validation_text_is_no_other_training(text: Path, tmp_path: Path) -> None:
    for steps, lines in ((2, 10), (4, 20)):
        for language in ("en", "de"):
            whole = Path(f"{text}.{language}").read_text("utf-8").splitlines(keepends=True)
            (tmp_path / f"valid.{language}").write_text("".join(whole[:lines]), "utf-8")
        recipe = prepared(
            text, tmp_path / "run", f"train.steps={steps}", f"data.valid={tmp_path}/valid", "train.checkpoint_every=2"
        )
        train(recipe, "cpu")
    assert len(list(Path(recipe.run, "checkpoints").iterdir())) == 2


def test_a_checkpoint_of_another_recipe_is_refused_with_the_keys_that_differ(text: Path, tmp_path: Path) -> None:
    train(prepared(text, tmp_path / "run", "train.steps=2"), "cpu")
    changed = prepared(text, tmp_path / "run", "train.steps=4", "model.dropout=0.3", "decode.beam=2")
    with pytest.raises(CheckpointError, match=r"made by another recipe: model\.dropout was 0\.2, now 0\.3\."):
        train(changed, "cpu")


def test_a_schedule_may_be_changed_for_the_updates_to_come_but_not_for_those_done(text: Path, tmp_path: Path) -> None:
    def scheduled(steps: int, **schedule: object) -> Recipe:
        changes = [f"train.schedule.{key}={value}" for key, value in schedule.items()]
        return prepared(text, tmp_path / "run", f"train.steps={steps}", *changes)

    train(scheduled(60, name="inverse-sqrt", rate=0.01, warmup=10), "cpu")
    with pytest.raises(CheckpointError, match=r"recipe: train\.schedule\.name was inverse-sqrt, now linear\."):
        train(scheduled(100, name="linear", rate=0.01, warmup=10), "cpu")
    with pytest.raises(CheckpointError, match=r"recipe: train\.schedule\.rate was 0\.01, now 0\.02\."):
        train(scheduled(100, name="inverse-sqrt", rate=0.02, warmup=10), "cpu")
    train(scheduled(80, name="inverse-sqrt", rate=0.01, warmup=10), "cpu")


def test_wsd_may_be_prolonged_while_it_is_stable_but_not_once_it_falls(text: Path, tmp_path: Path) -> None:
    def wsd(steps: int, decay: float) -> Recipe:
        schedule = f"{{name: wsd, rate: 0.01, warmup: 10, decay: {decay}}}"
        return prepared(text, tmp_path / "run", f"train.schedule={schedule}", f"train.steps={steps}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_advance", stopped_at(50))
        train(wsd(100, 0.2), "cpu")
    train(wsd(60, 0.1), "cpu")  # falls from update 54 on
    with pytest.raises(CheckpointError, match=r"recipe: train\.steps was 60, now 90\."):
        train(wsd(90, 0.1), "cpu")


def stopped_at(step: int) -> Any:
    """`Training._advance` that goes no further than this."""
    advance = Training._advance
    return lambda self, *given: self.state.step < step and advance(self, *given)


def test_a_checkpoint_from_before_a_key_existed_goes_on_with_its_default(text: Path, tmp_path: Path) -> None:
    train(prepared(text, tmp_path / "run", "train.steps=2"), "cpu")
    path = tmp_path / "run" / "checkpoints" / "step-00000002" / "state.json"
    state = json.loads(path.read_text("utf-8"))
    del state["recipe"]["model"]["positions"]
    del state["recipe"]["train"]["bpe_dropout"], state["recipe"]["train"]["noise"]
    path.write_text(json.dumps(state), "utf-8")
    train(prepared(text, tmp_path / "run", "train.steps=3"), "cpu")
    other = prepared(text, tmp_path / "run", "train.steps=4", "train.bpe_dropout=0.1")
    with pytest.raises(CheckpointError, match=r"train\.bpe_dropout was 0\.0, now 0\.1"):
        train(other, "cpu")


def test_noise_is_in_the_updates_and_never_in_the_valid_corpus_nor_in_what_is_prepared(
    text: Path, tmp_path: Path
) -> None:
    clean = prepared(text, tmp_path / "run")
    noisy = recipes.loads(RECIPE.format(run=tmp_path / "run", text=text), overrides=[NOISE])
    one, other = (Training(recipe, torch.device("cpu")) for recipe in (clean, noisy))  # noisy is not prepared again
    assert one._origin == other._origin
    assert str(one._validation._chunks) == str(other._validation._chunks)
    assert one._validation._text == other._validation._text
    batches = [training._batch(1, training.state.cursor) for training in (one, other)]
    assert batches[0].end == batches[1].end
    assert str(batches[0].chunks) != str(batches[1].chunks)


def test_a_valid_sentence_beyond_learned_positions_is_told_before_the_first_update(text: Path, tmp_path: Path) -> None:
    for language in ("en", "de"):
        lines = Path(f"{text}.{language}").read_text("utf-8").splitlines()[:5]
        (tmp_path / f"valid.{language}").write_text(
            "\n".join([*lines[:2], " ".join(lines * 9), *lines]) + "\n", "utf-8"
        )
    changes = [
        "model.positions=learned",
        "model.max_positions=60",
        "data.max_length=59",
        f"data.valid={tmp_path}/valid",
    ]
    with pytest.raises(DataError, match=r"data\.valid: line 3 has \d+ tokens, and a model with 60 learned positions"):
        train(prepared(text, tmp_path / "run", *changes), "cpu")


@pytest.mark.gpu
def test_a_training_on_a_gpu_resumes_and_learns(text: Path, tmp_path: Path) -> None:
    changes = ["model.d_model=32", "model.dropout=0.0", "train.schedule.warmup=100", "train.schedule.scale=0.5"]
    for steps in (150, 300):
        recipe = prepared(text, tmp_path / "run", *changes, f"train.steps={steps}")
        train(recipe, "cuda")
    sources, references = (Path(f"{text}.{language}").read_text("utf-8").splitlines() for language in ("en", "de"))
    translations = Translator.load(average(recipe), "cuda").translate(sources)
    assert sum(a == b for a, b in zip(translations, references, strict=True)) >= 0.9 * len(references)
