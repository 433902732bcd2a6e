"""Training tells how far it is, how fast and on what; what is done again is told once."""

import json
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import test_health
import test_training
import torch
from test_health import SHORT, Poison, of_itself
from test_training import prepared

from nmt import recipe as recipes
from nmt.errors import NmtError
from nmt.model import peak
from nmt.model.peak import Peak, peak_of
from nmt.model.size import operations
from nmt.model.transformer import Transformer
from nmt.recipe import Recipe
from nmt.training import train
from nmt.training.events import figures
from nmt.training.pace import Pace, memory
from nmt.training.validation import SAMPLES

text = test_training.text
poison = test_health.poison
CPU = torch.device("cpu")
ROOT = Path(__file__).parent.parent
WATCHED = ["train.steps=20", "train.checkpoint_every=10", "train.log_every=5", "train.valid_every=10"]


def lines(recipe: Recipe, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(recipe.run, name).read_text("utf-8").splitlines()]


def stopped_at(poison: Poison, place: int, recipe: Recipe) -> None:
    poison.stops[place] = of_itself(signal.SIGTERM)
    assert train(recipe, "cpu") == signal.SIGTERM


# Beside the peak


@pytest.mark.parametrize(("name", "published"), [("base", 0.378e9), ("big", 1.284e9)])
def test_a_pair_of_tokens_takes_the_operations_that_are_published(name: str, published: float) -> None:
    recipe = recipes.load(ROOT / "recipes" / f"wmt14-en-de-{name}.yaml")
    with torch.device("meta"):
        model = Transformer(recipe.model, 37000, 37000)
    assert sum(operations(model)) == 6 * model.parameter_count()
    assert sum(operations(model)) == pytest.approx(published, rel=2e-3)


def test_tables_that_are_only_looked_up_take_no_operations() -> None:
    recipe = recipes.load(ROOT / "recipes" / "wmt14-en-de-base.yaml", ["model.embeddings=separate"])
    with torch.device("meta"):
        model = Transformer(recipe.model, 37000, 37000)
    assert sum(operations(model)) == 6 * (model.parameter_count() - 2 * 37000 * 512)


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA H200", 989e12, 67e12),
        ("NVIDIA H100 80GB HBM3", 989e12, 67e12),
        ("NVIDIA H100 PCIe", 756e12, 51e12),
        ("NVIDIA A100-SXM4-40GB", 312e12, 19.5e12),
        ("NVIDIA L4", 121e12, 30.3e12),
        ("NVIDIA L40S", 362e12, 91.6e12),
        ("NVIDIA GeForce RTX 4090", 165e12, 82.6e12),
        ("Tesla T4", 65e12, 8.1e12),
    ],
)
def test_the_peak_of_a_gpu_is_its_makers(name: str, bf16: float, fp32: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    gpu = torch.device("cuda")
    assert peak_of(gpu, torch.bfloat16) == Peak(bf16, "published")
    assert peak_of(gpu, torch.float32) == Peak(fp32, "published")


def test_the_peak_of_what_nobody_publishes_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = peak_of(CPU, torch.float32)
    assert found.source == "measured"
    assert 1e8 < found.flops < 1e14
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Unheard 9000")
    monkeypatch.setattr(peak, "_measured", lambda *_: 5.0)
    assert peak_of(torch.device("cuda"), torch.bfloat16) == Peak(5.0, "measured")


def test_the_share_of_the_peak_is_of_all_processes() -> None:
    pace = Pace((6, 12), Peak(1000.0, "measured"), 2, CPU)
    assert pace.share(100, 50, 3.0) == (600 + 600) / 3 / 2000
    assert pace.describe() == "peak 1e-09 TFLOP/s each, measured on matrix products"


def test_progress_tells_speed_share_memory_and_time_left(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = prepared(text, tmp_path / "run", *WATCHED)
    train(recipe, "cpu")
    said = capsys.readouterr().err
    assert re.search(r"0 of 20 updates done.*; peak [\d.]+ TFLOP/s, measured on matrix products\n", said)
    shown = re.findall(
        r"update +(\d+)  loss .* tokens/s  [\d.]+% of peak  [\d.]+ GB  .*?(?:(\d:\d\d:\d\d) left)?\n", said
    )
    assert [step for step, _ in shown] == ["5", "10", "15", "20"]
    assert [bool(left) for _, left in shown] == [True, True, True, False]
    begin = lines(recipe, "sessions.jsonl")[0]
    with torch.device("meta"):
        work = operations(Transformer(recipe.model, 300, 300))
    for line in lines(recipe, "metrics.jsonl"):
        if line["kind"] == "train":
            done = work[0] * line["source_tokens"] + work[1] * line["target_tokens"]
            took = line["target_tokens"] / line["target_tokens_per_second"]
            assert line["share_of_peak"] == pytest.approx(done / took / begin["peak"], rel=0.2)
            assert 1e8 < line["memory"] <= (memory(CPU) or 0)


# What stays in the run folder


def test_the_same_sentences_are_translated_each_time_and_kept_once(poison: Poison, text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", *WATCHED, "train.valid_every=5", "train.valid_bleu=12")
    whole = prepared(text, tmp_path / "whole", *WATCHED, "train.valid_every=5", "train.valid_bleu=12")
    train(whole, "cpu")
    poison.stops[17] = lambda: (_ for _ in ()).throw(RuntimeError)  # after a measuring of what is not saved
    with pytest.raises(RuntimeError):
        train(recipe, "cpu")
    train(recipe, "cpu")
    found = [
        [{k: v for k, v in line.items() if k != "time"} for line in lines(r, "samples.jsonl")] for r in (recipe, whole)
    ]
    assert found[0] == found[1]
    texts = [(line["source"], line["reference"]) for line in found[0]]
    assert texts == texts[:SAMPLES] * 4
    assert [line["step"] for line in found[0]] == [step for step in (5, 10, 15, 20) for _ in range(SAMPLES)]
    pairs = [*zip(*(Path(f"{text}.{side}").read_text("utf-8").splitlines() for side in ("en", "de")), strict=True)]
    assert {*texts} <= {*pairs}


def test_samples_of_a_measuring_that_was_cut_off_are_made_anew(text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", *WATCHED)
    train(recipe, "cpu")
    metrics, samples = (Path(recipe.run, name) for name in ("metrics.jsonl", "samples.jsonl"))
    before = [line | {"time": 0} for line in lines(recipe, "samples.jsonl")]
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:-1]))
    train(recipe, "cpu")
    assert [line | {"time": 0} for line in lines(recipe, "samples.jsonl")] == before


def test_sessions_tell_when_training_began_and_ended_and_by_which_recipe(
    poison: Poison, text: Path, tmp_path: Path
) -> None:
    recipe = prepared(text, tmp_path / "run", *WATCHED)
    stopped_at(poison, 13, recipe)
    train(recipe, "cpu")
    found = lines(recipe, "sessions.jsonl")
    assert [(line["kind"], line["step"]) for line in found] == [("begin", 0), ("end", 13), ("begin", 13), ("end", 20)]
    assert found[1]["why"].startswith("stopped by SIGTERM")
    assert found[3]["why"].startswith("done")
    assert Recipe.model_validate(found[2]["recipe"]) == recipe


def test_rewinds_and_what_training_broke_off_for_are_noted(poison: Poison, text: Path, tmp_path: Path) -> None:
    poison.places = range(12, 100)
    recipe = prepared(text, tmp_path / "run", *SHORT)
    with pytest.raises(NmtError):
        train(recipe, "cpu")
    begin, *rewinds, end = lines(recipe, "sessions.jsonl")
    assert begin["kind"] == "begin"
    assert [(line["kind"], line["step"], line["to"]) for line in rewinds] == [
        ("rewind", 15, 10),
        *[("rewind", 13, 10)] * 2,
    ]
    assert "broke off" in end["why"]


# TensorBoard


class Board:
    """In the place of TensorBoard's writer: what it was told, since it was last opened."""

    points: list[tuple[str, float, int, float]] = []  # noqa: RUF012

    def __init__(self, folder: str, purge_step: int) -> None:
        assert purge_step == 0
        Board.points = []

    def add_scalar(self, name: str, value: float, step: int, when: float) -> None:
        Board.points.append((name, value, step, when))

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_tensorboard_has_what_metrics_has_and_no_point_twice(
    poison: Poison, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Board))
    poison.places = [12, 13, 14]  # a rewind
    recipe = prepared(text, tmp_path / "run", *WATCHED, "train.tensorboard=true")
    for place in (7, 18):
        stopped_at(poison, place, recipe)
    train(recipe, "cpu")
    logged = [
        (*point, line["step"], line["time"]) for line in lines(recipe, "metrics.jsonl") for point in figures(line)
    ]
    assert Board.points == logged
    assert len({(name, step) for name, _, step, _ in logged}) == len(logged)
    assert {"training/loss", "validation/bleu", "attention_entropy/cross_1"} <= {name for name, *_ in logged}


def test_tensorboard_itself_reads_it(text: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = prepared(text, tmp_path / "run", *WATCHED, "train.tensorboard=true")
    train(recipe, "cpu")
    train(recipe.model_copy(update={"train": recipe.train.model_copy(update={"steps": 25})}), "cpu")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    found = [(point.step, point.value) for point in events.Scalars("training/nll")]
    logged = [(line["step"], line["nll"]) for line in lines(recipe, "metrics.jsonl") if line["kind"] == "train"]
    assert [step for step, _ in found] == [step for step, _ in logged] == [5, 10, 15, 20, 25]
    assert [value for _, value in found] == pytest.approx([value for _, value in logged])


def test_without_tensorboard_it_is_told_before_the_first_update(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    recipe = prepared(text, tmp_path / "run", "train.tensorboard=true")
    with pytest.raises(NmtError, match=r"^train\.tensorboard: takes TensorBoard.*pip install nmt\[tensorboard\]"):
        train(recipe, "cpu")
    assert not Path(recipe.run, "metrics.jsonl").exists()
