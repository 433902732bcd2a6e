"""Numbers so small that a processor takes a hundred times as long for them slow nothing down; Python keeps its own."""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import test_training
import torch

from nmt.model.device import without_denormals
from nmt.training import train
from nmt.training.learner import Learner
from nmt.training.mean import RunningMean
from nmt.training.optimizer import Optimizer
from nmt.translation import Translator, translator

text = test_training.text
SMALLEST = 2.0**-126  # of what is normal in fp32

pytestmark = pytest.mark.skipif(not torch.set_flush_denormal(True), reason="this processor has no such flag")
torch.set_flush_denormal(False)


def kept() -> bool:
    """Whether this thread has them, as Python's numbers and torch's show."""
    small = torch.full((40,), SMALLEST)
    ours, theirs = sys.float_info.min / 2 != 0, bool((small / 2 != 0).all())
    assert ours == theirs
    return ours


def test_they_are_0_in_the_block_and_in_this_thread_only() -> None:
    found: list[bool] = []
    assert kept()
    begun, ended = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: (begun.set(), ended.wait(), found.append(kept())), daemon=True)
    other.start()
    begun.wait()
    with without_denormals():
        assert not kept()
        with without_denormals():
            assert not kept()
        assert not kept()
        ended.set()
        other.join()
    assert found == [True]
    with pytest.raises(KeyError), without_denormals():
        raise KeyError
    assert kept()


@pytest.mark.parametrize("threads", [1, 2])
def test_whatever_is_computed_is_computed_without_them_and_python_has_its_numbers_after(
    threads: int, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, set[bool]] = {}

    def watch(owner: Any, name: str) -> None:
        work = getattr(owner, name)

        def watched(*given: Any, **named: Any) -> Any:
            found.setdefault(name, set()).add(kept())
            return work(*given, **named)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in ((Learner, "_loss"), (Optimizer, "step"), (RunningMean, "update"), (translator, "beam_search")):
        watch(owner, name)
    changes = "train.steps=4", "train.valid_every=2", "train.ema=0.9", "train.batch_tokens=400"
    recipe = test_training.prepared(text, tmp_path / "run", *changes)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        train(recipe, "cpu")
        assert kept()
        for _ in Translator.load(test_training.average(recipe), "cpu").stream(["the man", "the house"]):
            assert kept()
    finally:
        torch.set_num_threads(before)
    assert found == {name: {False} for name in ("_loss", "step", "update", "beam_search")}
