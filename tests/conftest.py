"""What every test shares: one thread per parallel worker, no GPU tests where there is no GPU, one trained model."""

import gzip
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from commands import Server, Shell

# Two workers with two threads each would fight over two cores. torch reads this when it is first imported,
# and so does every `nmt` that a test starts, so nothing is imported for it here.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once a process; tests of --deterministic need it

SAMPLE = Path(__file__).parent.parent / "data" / "libreoffice"

BROWSER = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
BROWSER += " --disable-component-update --disable-sync"

RECIPE = """
run: run
data: {source: en, target: de, train: train, valid: valid, test: {held: test}}
tokenizer: {vocab_size: 600}
model: {layers: 1, d_model: 32, heads: 2, d_ffn: 64, norm: pre}
train:
  steps: 40
  batch_tokens: 600
  schedule: {warmup: 20, scale: 2}
  precision: fp32
  valid_every: 20
  valid_bleu: 4
  checkpoint_every: 10
  keep: 4
  log_every: 5
average: {last: 3}
decode: {max_extra: 10}
"""


def pytest_configure(config: pytest.Config) -> None:
    """All other tests are of a CPU, on a machine with a GPU too: `pytest -m gpu` runs those that need one."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device, or not asked for by -m gpu"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Where commands are started."""
    with Server(tmp_path_factory.mktemp("commands")) as server:
        yield server


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and the real sentences it asks for: a few of each, for a model that learns little."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "recipe.yaml").write_text(RECIPE)
    for split, count in {"train": 300, "valid": 12, "test": 20}.items():
        texts = [gzip.decompress((SAMPLE / f"{split}.{language}.gz").read_bytes()) for language in ("en", "de")]
        pairs = zip(*(text.splitlines(keepends=True) for text in texts), strict=True)
        short = islice((pair for pair in pairs if 20 < len(pair[0]) < 60), 0, count * 20, 20)
        for language, lines in zip(("en", "de"), zip(*short, strict=True), strict=True):
            (folder / f"{split}.{language}").write_bytes(b"".join(lines))
    return folder


@pytest.fixture(scope="session")
def trained(server: Server, corpus: Path) -> Shell:
    """The recipe prepared, trained and averaged; not to be changed."""
    shell = Shell(server, corpus)
    shell("prepare", "recipe.yaml", "--workers", 1)
    shell("train", "recipe.yaml", "--device", "cpu")
    shell("average", "recipe.yaml")
    return shell


@pytest.fixture
def fresh(server: Server, trained: Shell, tmp_path: Path) -> Shell:
    """A copy in which nothing is trained yet."""
    untrained = shutil.ignore_patterns("checkpoints", "model", "*.jsonl")
    shutil.copytree(trained.folder, tmp_path / "fresh", ignore=untrained)
    return Shell(server, tmp_path / "fresh")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium that is there already."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER.split())
        yield browser
        browser.close()
