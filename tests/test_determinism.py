"""The same bits each time, on a GPU too, where that is asked for."""

import json
import os
from pathlib import Path

import pytest
import test_finetuning
import torch
from commands import Server, Shell
from torch import Tensor

from nmt import recipe as recipes
from nmt.data import prepare
from nmt.errors import NmtError
from nmt.model.folder import read_weights
from nmt.recipe import Recipe
from nmt.training import determinism, train
from nmt.training.determinism import repeatable

text = test_finetuning.text
RECIPE = """
run: {run}
data: {{source: en, target: de, train: {text}, valid: {text}}}
tokenizer: {{vocab_size: 300}}
model: {{layers: 1, d_model: 16, heads: 2, d_ffn: 32, dropout: 0.1}}
train: {{steps: 6, batch_tokens: 100, chunk_tokens: 60, valid_every: 3, valid_bleu: 4, checkpoint_every: 6,
        log_every: 6}}
"""
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
# What differs in how the gradients of things picked by index, or attention, come to be summed.
VARIANTS = [
    [],
    ["model.positions=relative", "model.embeddings=separate"],
    ["model.positions=learned", "model.max_positions=300", "model.attention_dropout=0.1"],
    ["model.positions=rotary", "model.window=4", "train.r_drop=1.0"],
    ["model.positions=alibi", "train.optimizer.name=muon", "train.ema=0.9", "decode.coverage_penalty=0.2"],
]


def prepared(text: Path, run: Path, *changes: str) -> Recipe:
    recipe = recipes.loads(RECIPE.format(run=run, text=text), overrides=changes)
    prepare(recipe, workers=1, report=lambda line: None)
    return recipe


def trained(recipe: Recipe, device: str = "cpu", deterministic: bool = True) -> dict[str, Tensor]:
    train(recipe, device, deterministic=deterministic)
    checkpoint = max(Path(recipe.run, "checkpoints").iterdir())
    kept = {name: tensor for file in checkpoint.glob("*.safetensors") for name, tensor in read_weights(file).items()}
    lines = map(json.loads, Path(recipe.run, "metrics.jsonl").read_text("utf-8").splitlines())
    return kept | {"loss": torch.tensor([line["loss"] for line in lines], dtype=torch.float64)}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.mark.parametrize("changes", VARIANTS, ids=" ".join)
def test_on_a_cpu_it_changes_nothing_and_all_memory_is_written_before_it_is_read(
    changes: list[str], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trained(prepared(text, tmp_path / "plain", *changes), deterministic=False)
    monkeypatch.setattr(determinism, "FILLED", True)  # with NaN, which would be seen in whatever is computed from it
    assert_same(plain, trained(prepared(text, tmp_path / "filled", *changes)))


def test_what_it_sets_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    fill = torch.utils.deterministic.fill_uninitialized_memory
    with repeatable():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()  # which the kernel of attention asks
        assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    assert torch.utils.deterministic.fill_uninitialized_memory == fill
    with repeatable(False):
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("before", "after"), [(None, ":4096:8"), (":16:8", ":16:8"), (":0:0", ":4096:8")])
def test_cublas_is_given_a_workspace_of_its_own(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKSPACE, before or "")
    if before is None:
        monkeypatch.delenv(WORKSPACE)
    with repeatable():
        assert os.environ[WORKSPACE] == after


def test_a_process_whose_cublas_may_have_begun_otherwise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, "")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    told = r"--deterministic: this process has used a GPU without CUBLAS_.*: begin a new"
    with pytest.raises(NmtError, match=told), repeatable():
        pass
    monkeypatch.setenv(WORKSPACE, ":4096:8")
    with repeatable():
        pass


def test_the_command_has_the_option_and_says_so(server: Server, text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run")
    (tmp_path / "recipe.yaml").write_text(recipes.dump(recipe), "utf-8")
    shell = Shell(server, tmp_path)
    assert "threads, deterministic; from the beginning" in shell("train", "recipe.yaml", "--deterministic").err
    assert "deterministic" not in shell("train", "recipe.yaml", "--set", "train.steps=7").err


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("changes", VARIANTS, ids=" ".join)
def test_two_trainings_on_a_gpu_are_equal_to_the_bit(
    changes: list[str], precision: str, text: Path, tmp_path: Path
) -> None:
    wide = "model={layers: 2, d_model: 64, heads: 4, d_ffn: 128, dropout: 0.1}"
    asked = [wide, *changes, f"train.precision={precision}", "train.batch_tokens=3000", "train.chunk_tokens=1000"]
    one, other = (trained(prepared(text, tmp_path / name, *asked, "train.steps=30"), "cuda") for name in "ab")
    assert_same(one, other)
