"""Counts and times the updates of a training, whoever trains.

It runs in the environment of each toolkit, so it asks for nothing but Python and torch. What it measures lies between
two marks, the end of the warm-up and the end of the last update: seconds, CPU seconds of the process and its children,
and target tokens without padding, each sentence's EOS among them.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

TICKS = os.sysconf("SC_CLK_TCK")


class Mark(NamedTuple):
    """How far a process has come."""

    seconds: float
    cpu_seconds: float
    tokens: int


class Watch:
    """Watches one training; `order` is what `training.py` asks for, a dictionary of plain values."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self._updates = self._tokens = 0
        self._marks: list[Mark] = []
        self._memory = {"memory_mb": 0.0, "device_memory_mb": 0.0}

    @classmethod
    def ordered(cls) -> "Watch":
        """The watch of a program that was started with the path of an order."""
        watch = cls(json.loads(Path(sys.argv[1]).read_text("utf-8")))
        torch.set_num_threads(watch.order["threads"])
        torch.manual_seed(watch.order["seed"])
        return watch

    def hook(self) -> None:
        """Takes every step of an optimizer of torch for an update."""
        register_optimizer_step_post_hook(lambda *_: self.update())

    def saw(self, tokens: int) -> None:
        """Takes note of target tokens that the next update has."""
        self._tokens += tokens

    def update(self) -> None:
        """Takes note of the end of an update."""
        self._updates += 1
        if self._updates not in (self.order["warm_up"], self.order["updates"]):
            return
        gpu = self.order["device"] == "cuda"
        if gpu:
            torch.cuda.synchronize()
        self._marks.append(Mark(time.perf_counter(), sum(map(_cpu_seconds, _family(os.getpid()))), self._tokens))
        self._memory["memory_mb"] = sum(map(_most_memory, _family(os.getpid())))
        self._memory["device_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6 if gpu else 0.0

    def report(self, parameters: int, valid_nll: float, **versions: str) -> None:
        """Writes down what was found: the last thing that a program does.

        valid_nll: -log p per target token of the valid text after the last update, in nats.
        """
        begin, end = self._marks
        found = {
            "seconds": end.seconds - begin.seconds,
            "cpu_seconds": end.cpu_seconds - begin.cpu_seconds,
            "tokens": end.tokens - begin.tokens,
            **self._memory,
            "parameters": parameters,
            "valid_nll": valid_nll,
            "versions": {"torch": torch.__version__, **versions},
        }
        Path(self.order["folder"], "result.json").write_text(json.dumps(found), "utf-8")


def _family(process: int) -> Iterator[int]:
    yield process
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _most_memory(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024e-6
