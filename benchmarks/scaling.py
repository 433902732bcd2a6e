"""How training scales over processes, measured on this machine, beside what a cost model expects of it.

    python benchmarks/scaling.py --text data/multi30k/train --valid data/multi30k/val

Trains the same model for some updates with 1, 2 and 4 processes of one thread each, alternating, as `torchrun` would,
over gloo. Tokens per second are the medians over the rounds of what training itself says after its first lines.

The model of an update's time, with n processes on c cores:

    T(n) = C / min(n, c) + A(n)

where C is what one process takes, all of it arithmetic, and A(n) the sum over all processes of the gradients, whose
bytes are 4 · parameters; A is measured by itself, with the same bytes, over the same gloo.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nmt import recipe as recipes
from nmt.data import prepare
from nmt.files import write_json
from nmt.model.size import parameter_count
from nmt.recipe import Layout, Recipe

PROCESSES = (1, 2, 4)
RECIPE = """
run: {run}
data: {{source: en, target: de, train: {text}, valid: {valid}}}
tokenizer: {{vocab_size: 8000}}
model: {{layers: 3, d_model: 256, heads: 4, d_ffn: 1024}}
train: {{steps: {steps}, batch_tokens: 4096, precision: fp32, valid_every: 1000000, valid_bleu: 0,
        checkpoint_every: 1000000, log_every: 5}}
"""


def start(processes: int, command: list[str]) -> None:
    """Runs a command in so many processes that know of one another, one thread each, and waits for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common["WORLD_SIZE"] = str(processes)
    running = [
        subprocess.Popen(command, env=common | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(processes)
    ]
    said = [process.communicate()[1] for process in running]
    for process, text in zip(running, said, strict=True):
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{text}")


def speed(recipe: Recipe, processes: int, folder: Path) -> tuple[float, float]:
    """Target tokens per second, and seconds an update, of training with so many processes."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        there = recipe.model_copy(update={"run": run})
        Layout.of(there).data.symlink_to(Layout.of(recipe).data, target_is_directory=True)
        path = Path(run, "recipe.yaml")
        path.write_text(recipes.dump(there), "utf-8")
        start(processes, [sys.executable, "-m", "nmt", "train", str(path), "--device", "cpu"])
        lines = map(json.loads, Layout.of(there).metrics.read_text("utf-8").splitlines())
        logged = [line for line in lines if line["kind"] == "train"][1:]  # the first has the start in it
    tokens = statistics.median(line["target_tokens_per_second"] for line in logged)
    updates = recipe.train.log_every
    return tokens, statistics.median(
        line["target_tokens"] / updates / line["target_tokens_per_second"] for line in logged
    )


def sum_seconds(numbers: int, processes: int, folder: Path) -> float:
    """The time in which so many processes sum so many numbers of fp32: the median of ten times."""
    if processes == 1:
        return 0.0
    found = folder / "sum.json"
    start(processes, [sys.executable, __file__, "--sum", str(numbers), "--out", str(found)])
    return float(json.loads(found.read_text("utf-8")))


def measure_sum(numbers: int, out: Path) -> None:
    """What each process does for `sum_seconds`."""
    dist.init_process_group("gloo")
    tensor, taken = torch.ones(numbers), []
    for _ in range(12):
        dist.barrier()
        begun = time.perf_counter()
        dist.all_reduce(tensor)
        taken.append(time.perf_counter() - begun)
    if dist.get_rank() == 0:
        write_json(out, statistics.median(taken[2:]))
    dist.destroy_process_group()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    text = RECIPE.format(run=folder / "run", text=options.text, valid=options.valid, steps=options.steps)
    recipe = recipes.loads(text)
    prepare(recipe)
    parameters = parameter_count(recipe)
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in PROCESSES}
    for number in range(options.rounds):
        for count in PROCESSES:
            found[count].append(speed(recipe, count, folder))
            print(f"round {number + 1}: {count} processes, {found[count][-1][0]:,.0f} tokens/s", file=sys.stderr)
    cores = len(os.sched_getaffinity(0))
    alone = statistics.median(seconds for _, seconds in found[1])
    rows = []
    for count in PROCESSES:
        tokens, seconds = (statistics.median(column) for column in zip(*found[count], strict=True))
        summing = sum_seconds(parameters, count, folder)
        rows.append({
            "processes": count, "tokens_per_second": tokens, "seconds": seconds, "summing": summing,
            "expected": alone / min(count, cores) + summing, "speedup": alone / seconds,
        })  # fmt: skip
    versions = {"torch": torch.__version__, "python": platform.python_version(), "date": str(date.today())}
    return {"parameters": parameters, "cores": cores, "rounds": options.rounds, "rows": rows, **versions}


def main() -> None:
    """Measures, and prints a table in Markdown and, as its last line, all figures in JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="data/multi30k/train", help="training text, PREFIX of .en and .de")
    parser.add_argument("--valid", default="data/multi30k/val", help="valid text, likewise")
    parser.add_argument("--steps", type=int, default=40, help="updates of each training")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured, in turn")
    parser.add_argument("--sum", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sum:
        return measure_sum(options.sum, options.out)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    print("| processes | target tokens/s | seconds an update | of which summing | expected | speed-up |")
    print("|--:|--:|--:|--:|--:|--:|")
    for row in found["rows"]:
        figures = [
            f"{row['tokens_per_second']:,.0f}",
            *(f"{row[key]:.3f}" for key in ("seconds", "summing", "expected")),
        ]
        print(f"| {row['processes']} | {' | '.join(figures)} | {row['speedup']:.2f} |")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
