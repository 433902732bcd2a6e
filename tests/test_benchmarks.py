"""The benchmarks run, and what they measure grows as it must."""

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from nmt import recipe as recipes
from nmt.data.shards import Shards
from nmt.model.device import has_bf16
from nmt.model.size import parameter_count

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import training  # noqa: E402

# What the command line of the benchmark of training says, as far as it matters to its parts.
ASKED = {
    "batch_tokens": None, "updates": 4, "warm_up": 2, "device": "cpu", "threads": 1, "source": "en", "target": "de",
    "pairs": 2000,
}  # fmt: skip


def run(*arguments: object, script: str = "table1.py") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "benchmarks" / script, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("table1") / "table1.svg"


@pytest.fixture(scope="module")
def quick(drawn: Path) -> dict[str, Any]:
    """The last line of a small run, which draws its figures where it can."""
    plot = ["--plot", drawn] if find_spec("matplotlib") else []
    ran = run("--quick", "--repeats", 2, *plot)
    assert ran.returncode == 0, ran.stderr
    assert "O(n²·d)" in ran.stdout
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_table_1_has_the_papers_rows(quick: dict[str, Any]) -> None:
    told = [(one["layer"], one["complexity"], one["sequential"], one["path"]) for one in quick["layers"][:4]]
    assert told == [
        ("self-attention", "O(n²·d)", "O(1)", "O(1)"),
        ("recurrent (GRU)", "O(n·d²)", "O(n)", "O(n)"),
        ("convolutional", "O(k·n·d²)", "O(1)", "O(log_k n)"),
        ("self-attention (restricted)", "O(r·n·d)", "O(1)", "O(n/r)"),
    ]


def test_memory_grows_with_the_square_of_the_length_in_self_attention_alone(quick: dict[str, Any]) -> None:
    """Bytes are counted, so these hold on any machine; what is linear in n is a tenth of them yet at this size."""
    for one in quick["layers"]:
        for name in ("forward_bytes_n", "both_bytes_n", "kept_bytes_n"):
            assert one["exponents"][name] == pytest.approx(one["expected"]["memory_n"], abs=0.15), one["layer"]


def test_what_self_attention_keeps_is_its_input_its_output_and_the_weights(quick: dict[str, Any]) -> None:
    """q, k and v [n, d] as the heads have them, and one weight for each pair of tokens; four bytes a number."""
    n, d = quick["sizes"]["lengths"], quick["sizes"]["width"]
    kept = quick["layers"][0]["by_n"]["kept_bytes"]
    assert kept == [4 * (size * size + 3 * size * d) for size in n]


def test_time_grows_with_length(quick: dict[str, Any]) -> None:
    """Small sizes on a shared machine: only that a longer stream is not quicker, and roughly how much slower."""
    for one in quick["layers"]:
        assert -0.5 < one["exponents"]["both_seconds_n"] < one["expected"]["n"] + 1, one["layer"]
        assert one["by_n"]["both_seconds"][-1] > 0.8 * one["by_n"]["both_seconds"][0], one["layer"]


def test_the_figures_are_drawn(quick: dict[str, Any], drawn: Path) -> None:
    pytest.importorskip("matplotlib")
    assert drawn.read_text().rstrip().endswith("</svg>")


@pytest.mark.parametrize(("name", "told"), [("none/a.svg", "no such folder: make it first"), ("a.txt", "name it .svg")])
def test_a_plot_that_cannot_be_drawn_is_told_before_anything_is_measured(tmp_path: Path, name: str, told: str) -> None:
    pytest.importorskip("matplotlib")
    ran = run("--plot", tmp_path / name)
    assert ran.returncode == 2
    assert ran.stderr.startswith("table1: error: ")
    assert told in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="memory is read from /proc")
def test_memory_and_speed_of_preparing_are_measured(tmp_path: Path) -> None:
    for language, words in {"en": "the dog sees a cat", "de": "der Hund sieht eine Katze"}.items():
        lines = (f"{words} {number}\n" for number in range(400))
        (tmp_path / f"text.{language}").write_text("".join(lines))
    text, options = (
        tmp_path / "text",
        ("--times", 2, "--pairs", 300, "--rounds", 1, "--workers", 1, "--vocab-size", 300),
    )
    ran = run(text, "--valid", text, *options, script="prepare.py")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert [(one["times"], one["duplicates"], one["read"], one["kept"]) for one in found["memory"]] == [
        (1, "dropped", 400, 400), (1, "kept", 400, 400), (2, "dropped", 800, 400), (2, "kept", 800, 800)
    ]  # fmt: skip
    assert all(20 < one["parent_mb"] < 500 for one in found["memory"])
    assert all(seconds > 0 for each in found["speed"]["cpu_seconds"].values() for seconds in each)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="memory is read from /proc")
def test_a_pipe_is_measured() -> None:
    ran = run("--lines", 300, "--", "--batch-size", 8, script="streaming.py")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["lines"] == 300
    assert 50 < found["warm_mb"] <= found["largest_mb"] < found["warm_mb"] + 50
    assert 0 <= found["furthest_ahead"] < 300 < found["limit"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The last line of a small run of the benchmark of training, ours alone, and what it said on the way."""
    folder, sample = tmp_path_factory.mktemp("training"), ROOT / "data/libreoffice"
    text = ("--text", sample / "valid", "--valid", sample / "valid", "--out", folder / "out", "--envs", folder)
    ran = run("--quick", "--rounds", 2, "--threads", 1, "--peers", "joeynmt", *text, script="training.py")
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found, ran.stderr


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="memory is read from /proc")
def test_speed_of_training_is_measured(trained: tuple[dict[str, Any], str]) -> None:
    setting, ours = trained[0]["tiny"]["setting"], trained[0]["tiny"]["figures"]["nmt fp32"]
    assert len(ours["each_round"]) == setting["rounds"] == 2
    assert ours["tokens_per_second"] == pytest.approx(sum(ours["each_round"]) / 2)
    # One thread has no more seconds than the clock; of a few milliseconds the two are told coarsely.
    assert all(0 < speed < 3 * ours["tokens_per_cpu_second"] for speed in ours["each_round"])
    assert 100 < ours["memory_mb"] < 2000
    assert 5 < ours["valid_nll"] < 8  # of 500 tokens, after four updates
    assert ours["versions"].keys() == {"torch", "nmt"}


def test_a_peer_that_is_not_there_is_told_and_left_out(trained: tuple[dict[str, Any], str]) -> None:
    if find_spec("joeynmt"):
        pytest.skip("JoeyNMT is here")
    found, told = trained
    assert "joeynmt: not in" in told
    assert "--install" in told
    kinds = ("fp32", "bf16") if has_bf16(torch.device("cpu")) else ("fp32",)
    assert [*found["tiny"]["figures"]] == [f"nmt {kind}" for kind in kinds]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--peers", "eole,joey"), "--peers: must be of eole, joeynmt, marian, found joey"),
        (("--updates", 5, "--warm-up", 5), "--warm-up: must be less than --updates, 5, found 5"),
    ],
)
def test_what_the_benchmark_of_training_cannot_do_is_told_at_once(options: tuple[object, ...], told: str) -> None:
    ran = run(*options, script="training.py")
    assert ran.returncode == 2
    assert told in ran.stderr


def test_text_that_is_made_up_has_real_lengths_and_all_of_the_vocabulary(tmp_path: Path) -> None:
    order = training.ordered(argparse.Namespace(**ASKED), training.SIZES["tiny"])
    sample = str(ROOT / "data/libreoffice/valid")
    real = training.prepared(order, tmp_path / "real", sample, sample)
    made = training.made_up(argparse.Namespace(**ASKED), order, real, tmp_path / "made")
    lengths = [{*zip(*Shards.open(text.data, "train").lengths, strict=True)} for text in (real, made)]
    assert lengths[1] <= {(max(2, source), max(2, target)) for source, target in lengths[0]}
    assert len(lengths[1]) > 100
    pieces = (made.pieces / "train.target").read_text("utf-8").split()
    vocabulary = (made.pieces / "vocabulary").read_text("utf-8").split("\n")
    assert {*pieces} == {*vocabulary[256:-1]}


@pytest.mark.parametrize(("name", "published"), [("base", 0.378), ("big", 1.284)])
def test_arithmetic_of_training_is_counted_as_published(name: str, published: float) -> None:
    order = training.ordered(argparse.Namespace(**ASKED), training.SIZES[name])
    recipe = recipes.loads(training.RECIPE.format(**order, run="-", text="text", valid="text"))
    found = {"nmt bf16": [{"parameters": parameter_count(recipe)}]}
    assert training.operations(found) / 1e9 == pytest.approx(published, rel=0.005)
