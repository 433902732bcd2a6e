"""A model exported to CTranslate2 says there what it says here; one that would not is not written."""

import functools
import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Shell
from test_known_answer import chunk
from torch import Tensor

from nmt import recipe as recipes
from nmt.errors import ModelError, NmtError, OutputError
from nmt.ids import SPECIALS
from nmt.interop import decoding, export, proof, sample
from nmt.interop.sample import SENTENCES
from nmt.interop.weights import specification
from nmt.model.folder import build, save, weights_of
from nmt.model.transformer import Transformer
from nmt.recipe import Decode, Recipe
from nmt.search import Settings
from nmt.text import Tokenizer, Tokenizers, train_tokenizer
from nmt.training import learner
from nmt.translation import Translator

ctranslate2 = pytest.importorskip("ctranslate2")

ENGLISH = SENTENCES[:6]  # few letters, so that the vocabulary may be small
UPDATES, PEAK = 250, 0.005

RECIPE = """
run: none
data: {source: forwards, target: backwards, train: none, valid: none}
tokenizer: {vocab_size: 400}
model: {layers: 2, d_model: 48, heads: 4, d_ffn: 64, dropout: 0}
train: {label_smoothing: 0}
decode: {max_extra: 10}
"""

HELD = [  # every choice of the model that CTranslate2 can hold
    ["norm=post"],
    ["norm=pre"],
    ["norm_type=rms"],
    ["norm=pre", "norm_type=rms"],
    ["positions=learned", "max_positions=300"],
    ["positions=relative", "max_distance=8"],
    ["positions=rotary"],
    ["activation=gelu"],
    ["activation=swiglu", "d_ffn=40"],
    ["d_k=8", "d_v=16"],
    ["d_k=16", "d_v=8", "positions=rotary"],
    ["d_k=4", "d_v=8", "positions=relative"],
    ["d_k=10", "d_v=10"],
    ["heads=1"],
    ["layers={encoder: 3, decoder: 1}"],
    ["embeddings=decoder"],
    ["embeddings=separate"],
]
NOT_HELD = {"window=4": "model.window: 4", "positions=alibi": "model.positions: alibi"}


@functools.cache
def learned_vocabulary(size: int, *symbols: str) -> Tokenizer:
    return Tokenizer(train_tokenizer(ENGLISH, size, symbols=symbols))


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    return one_for_both()


def one_for_both() -> Tokenizers:
    return Tokenizers(*[learned_vocabulary(420, "<2de>")] * 2)


def one_each() -> Tokenizers:
    return Tokenizers(learned_vocabulary(400), learned_vocabulary(420))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that takes less time."""
    monkeypatch.setattr(sample, "SENTENCES", SENTENCES[:12])
    monkeypatch.setattr(sample, "LONG", 50)


def watched(batches: Iterable[Any], total: int, what: str) -> Iterable[Any]:
    return batches


def recipe_of(*choices: str) -> Recipe:
    return recipes.loads(RECIPE, overrides=[f"model.{choice}" for choice in choices])


def untrained(tokenizers: Tokenizers, *choices: str) -> tuple[Recipe, Transformer]:
    """A model whose every weight matters: biases and norms are not what they are drawn as."""
    recipe = recipe_of(*choices)
    torch.manual_seed(1)
    model = build(recipe, tokenizers).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return recipe, model


def exported(
    folder: Path, tokenizers: Tokenizers, recipe: Recipe, model: Transformer, quantization: str = "float32", **how: Any
) -> Any:
    save(folder / "model", recipe, tokenizers, weights_of(model))
    return export(folder / "model", folder / "ct2", quantization, watched=watched, **how)


def run(snippet: str) -> Callable[[list[str]], list[str]]:
    names: dict[str, Any] = {}
    exec(snippet, names)
    return names["translate"]


@functools.cache
def learned(
    norm: str, vocabularies: Callable[[], Tokenizers] = one_for_both, symbols: tuple[int, int] = (300, 312)
) -> tuple[Tokenizers, Recipe, Transformer]:
    """A model that has learned to say a sequence of symbols backwards; or, if they are many, when to end at least."""
    recipe = recipe_of(f"norm={norm}", *(["embeddings=decoder"] if vocabularies is one_each else []))
    torch.manual_seed(1)
    model = build(recipe, vocabularies())
    learns = learner.Learner(recipe, model, torch.device("cpu"), torch.float32)
    draw = np.random.default_rng(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "learning_rate", lambda _, step: PEAK * min(step / 30, (UPDATES + 1 - step) / UPDATES))
        for step in range(1, UPDATES + 1):
            learns.apply(step, learns.gradients(step, {0: chunk(sequences(draw, 60, *symbols))}))
    return vocabularies(), recipe, model.eval()


def sequences(draw: np.random.Generator, count: int, first: int = 300, last: int = 312) -> list[np.ndarray]:
    return [draw.integers(first, last, draw.integers(2, 9)) for _ in range(count)]


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_trained_model_says_and_scores_there_what_it_does_here(norm: str, tmp_path: Path) -> None:
    tokenizers, recipe, model = learned(norm)
    exported(tmp_path, tokenizers, recipe, model)
    sources = sorted((x.tolist() for x in sequences(np.random.default_rng(2), 60)), key=len)
    pieces = [tokenizers.source.pieces(source) for source in sources]
    translator = ctranslate2.Translator(str(tmp_path / "ct2"), compute_type="float32")
    for beam in (1, 4):
        ours = proof.search(model, sources, 20, Settings(beam, 1.0, "power"), proof._Renormalised)
        how = {"beam_size": beam, "patience": 2} if beam > 1 else {"beam_size": 1}
        how |= {"length_penalty": 1.0, "min_decoding_length": 0}
        theirs = translator.translate_batch(pieces, **how, return_scores=True)
        assert [tokenizers.target.pieces(best.ids) for best in ours] == [best.hypotheses[0] for best in theirs]
        np.testing.assert_allclose([best.scores[0] for best in theirs], [best.score for best in ours], atol=1e-4)
    assert np.mean([best.ids == source[::-1] for best, source in zip(ours, sources, strict=True)]) > 0.8


@pytest.mark.parametrize("choices", HELD, ids=" ".join)
def test_every_choice_that_it_can_hold_is_held_faithfully(choices: list[str], tmp_path: Path) -> None:
    sides = one_each() if choices[0].startswith("embeddings") else one_for_both()
    exported(tmp_path, sides, *untrained(sides, *choices))
    agreement = json.loads((tmp_path / "ct2" / "nmt.json").read_text())["agreement"]["float32"]
    assert agreement["same"] == agreement["outputs"] > 30
    assert agreement["gap"] < 1e-4


@pytest.mark.parametrize("choice", NOT_HELD)
def test_what_it_cannot_hold_is_told_by_the_key_of_the_recipe(
    choice: str, tokenizers: Tokenizers, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"^CTranslate2 cannot hold a model with {NOT_HELD[choice]}"):
        exported(tmp_path, tokenizers, *untrained(tokenizers, choice))
    assert not (tmp_path / "ct2").exists()


def test_every_choice_of_the_model_is_tried() -> None:
    tried = {choice.partition("=")[0] for choices in [*HELD, [*NOT_HELD]] for choice in choices}
    changes_no_function = {"dropout", "attention_dropout", "activation_dropout"}
    assert tried | {"d_model"} | changes_no_function == set(recipes.Model.model_fields)


def scaled(spec: Any) -> None:
    spec.decoder.layer[1].attention.linear[1].weight[5] *= 1.2


def unended(spec: Any) -> None:
    spec.config.add_source_eos = False


def shifted(spec: Any) -> None:
    spec.encoder.position_encodings.encodings = np.roll(spec.encoder.position_encodings.encodings, 1, 0)


def swapped(spec: Any) -> None:
    tokens = spec._vocabularies["source"][0]
    tokens[300], tokens[301] = tokens[301], tokens[300]


def empty(spec: Any) -> None:
    spec.encoder.layer[0].ffn.layer_norm.gamma[:] = math.nan


@pytest.mark.parametrize("corrupt", [scaled, unended, shifted, swapped, empty])
def test_an_export_that_is_not_the_model_is_refused(
    corrupt: Callable[[Any], None], tokenizers: Tokenizers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrupted(*arguments: Any) -> Any:
        spec = specification(*arguments)
        corrupt(spec)
        return spec

    monkeypatch.setattr("nmt.interop.exporting.specification", corrupted)
    with pytest.raises(ModelError, match="the exported model is not ours, so nothing was written") as told:
        exported(tmp_path, tokenizers, *untrained(tokenizers))
    assert "\n" not in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_scores_that_are_no_numbers_are_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_p = proof.Theirs.log_p

    def broken(self: proof.Theirs, *pairs: Any) -> list[float]:
        found = log_p(self, *pairs)
        return [math.nan, *found[1:]] if self.kind == kind else found

    monkeypatch.setattr(proof.Theirs, "log_p", broken)
    with pytest.raises(ModelError, match=f"in {kind}, .* scores differ by up to inf"):
        exported(tmp_path, *learned("pre"), "int8")
    assert not (tmp_path / "ct2").exists()


def test_two_tokens_that_are_as_likely_are_one_choice(
    tokenizers: Tokenizers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = untrained(tokenizers)
    [[said]] = proof.say(model, [[300, 301]], 10, watched)
    other = [*said.best.ids]
    other[3] = 310
    monkeypatch.setattr(Transformer, "logits", lambda self, states: torch.zeros(len(states), 420))
    assert proof._agrees(model, said, other)
    monkeypatch.setattr(Transformer, "logits", lambda self, states: torch.arange(420.0).expand(len(states), -1))
    assert not proof._agrees(model, said, other)


@pytest.mark.parametrize("quantization", ["int8", "float16", "bfloat16"])
def test_a_quantised_model_is_near_and_how_near_is_told(quantization: str, tmp_path: Path) -> None:
    done = exported(tmp_path, *learned("pre"), quantization)
    found = json.loads((tmp_path / "ct2" / "nmt.json").read_text())["agreement"]
    assert found["float32"]["gap"] < 1e-4 < found[quantization]["gap"] < 0.5
    assert any(
        line.startswith(f"Greedy search, {quantization}: {found[quantization]['same']} of") for line in done.told
    )
    table = 2048 * 48 * 4  # of positions
    whole = (tmp_path / "model" / "model.safetensors").stat().st_size + table
    assert (tmp_path / "ct2" / "model.bin").stat().st_size < 0.7 * whole


@pytest.mark.parametrize("vocabularies", [one_for_both, one_each])
def test_the_python_that_is_printed_translates_as_nmt_does(
    vocabularies: Callable[[], Tokenizers], tmp_path: Path
) -> None:
    done = exported(tmp_path, *learned("post", vocabularies, (SPECIALS, 400)), beam=1)
    lines = ["", "A  dog\u00a0runs.", "<2de> Two men", "\u2581e\u0301t\u00e9\x00", "  ", *ENGLISH]
    ours = Translator.load(tmp_path / "model", "cpu", "fp32").translate(lines, beam=1)
    assert len(set(ours)) > 5
    assert run(done.snippet)(lines) == ours
    assert done.snippet in (tmp_path / "ct2" / "README.md").read_text()


def test_its_length_penalty_counts_the_end_of_the_sentence(tmp_path: Path) -> None:
    tokenizers, recipe, model = learned("pre")
    exported(tmp_path, tokenizers, recipe, model)
    translator = ctranslate2.Translator(str(tmp_path / "ct2"))
    source = [tokenizers.source.pieces([302, 303, 304, 305])]
    for beam in (1, 3):
        bare, divided = (
            translator.translate_batch(source, beam_size=beam, length_penalty=alpha, return_scores=True)[0]
            for alpha in (0, 0.7)
        )
        assert bare.hypotheses == divided.hypotheses
        assert divided.scores[0] == pytest.approx(bare.scores[0] / (len(divided.hypotheses[0]) + 1) ** 0.7, abs=1e-5)


def test_the_nearest_penalty_ranks_nearly_as_ours() -> None:
    assert decoding.nearest_alpha(Decode(length_penalty=0.8, penalty_form="power"), [3, 9]) == 0.8
    assert decoding.nearest_alpha(Decode(length_penalty=0.6), [20, 20]) == pytest.approx(0.6 * 20 / 25)
    decode, draw = Decode(length_penalty=0.6), np.random.default_rng(1)
    lengths = draw.integers(8, 40, 200)
    alpha = decoding.nearest_alpha(decode, lengths.tolist())

    def wrong(exponent: float) -> float:
        """How often two outputs of like lengths come in another order."""
        x = np.clip(lengths + draw.integers(-4, 5, 200), 3, None)
        log_p = -draw.normal(0.5, 0.05, (2, 200)) * [lengths, x]
        ours = log_p / ((5 + np.array([lengths, x])) / 6) ** 0.6
        theirs = log_p / np.array([lengths, x], float) ** exponent
        return float(np.mean((ours[0] > ours[1]) != (theirs[0] > theirs[1])))

    assert wrong(alpha) <= 0.02 < wrong(1.5)


def test_a_key_of_decode_that_is_not_carried_over_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(Decode.model_fields) >= decoding.CARRIED
    monkeypatch.setattr(decoding, "CARRIED", decoding.CARRIED - {"max_extra"})
    recipe = recipe_of()
    assert "decode.max_extra: 7 is not carried over." in decoding.differences(recipe, Decode(max_extra=7), 0.5, [9])
    assert not [line for line in decoding.differences(recipe, Decode(), 0.5, [9]) if "not carried" in line]


def test_a_folder_of_somebody_else_is_left_alone_and_ours_is_replaced(tokenizers: Tokenizers, tmp_path: Path) -> None:
    recipe, model = untrained(tokenizers)
    place = tmp_path / "ct2"
    place.mkdir()
    (place / "model.bin").write_bytes(b"of another converter")
    with pytest.raises(OutputError, match=r"`nmt export` did not make it, for it has no nmt\.json"):
        exported(tmp_path, tokenizers, recipe, model)
    assert (place / "model.bin").read_bytes() == b"of another converter"
    (place / "model.bin").unlink()
    exported(tmp_path, tokenizers, recipe, model)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds notes\.txt, which is not ours"):
        exported(tmp_path, tokenizers, recipe, model)
    (place / "notes.txt").unlink()
    exported(tmp_path, tokenizers, recipe, model, "int8")
    assert sorted(path.name for path in place.iterdir()) == [
        "README.md", "config.json", "model.bin", "nmt.json", "shared_vocabulary.json", "tokenizer.model"
    ]  # fmt: skip


def test_exporting_changes_no_weight(tokenizers: Tokenizers, tmp_path: Path) -> None:
    _, model = untrained(tokenizers)
    before = {name: weight.clone() for name, weight in weights_of(model).items()}
    spec = specification(model, tokenizers)
    spec.validate()
    spec.optimize("int8")
    after: dict[str, Tensor] = weights_of(model)
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_without_the_package_or_with_an_old_one_it_is_told_how_to_get_it(
    tokenizers: Tokenizers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctranslate2, "__version__", "4.6.3")
    with pytest.raises(NmtError, match=r"^ctranslate2 4\.6\.3 is too old .*: pip install 'nmt\[ctranslate2\]'$"):
        exported(tmp_path, tokenizers, *untrained(tokenizers))
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(NmtError, match=r"pip install 'nmt\[ctranslate2\]'$"):
        exported(tmp_path, tokenizers, *untrained(tokenizers))


def test_the_command_prints_python_and_tells_the_rest_beside(trained: Shell, tmp_path: Path) -> None:
    output = tmp_path / "ct2"
    done = trained("export", "recipe.yaml", "--to", "ctranslate2", "--quantization", "int8", "--output", output)
    assert run(done.out.decode())(["", "Click the button."])[0] == ""
    assert "Greedy search, float32: 66 of 66 outputs" in done.err
    assert "ranks most nearly alike" in done.err
    told = trained.fails("export", "recipe.yaml", "--to", "ctranslate2", "--output", "run/model")
    assert told.startswith("run/model: would be replaced, but holds model.safetensors")
