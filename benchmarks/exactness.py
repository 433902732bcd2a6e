"""That training is exact and cannot be lost, shown by doing what must not harm it; docs/exactness.md has what came.

    python benchmarks/exactness.py kills   --text data/multi30k/train --valid data/multi30k/val
    python benchmarks/exactness.py ranks   --text data/multi30k/train --valid data/multi30k/val
    python benchmarks/exactness.py stops   --text data/multi30k/train --valid data/multi30k/val
    python benchmarks/exactness.py saving  --text data/multi30k/train --valid data/multi30k/val
    python benchmarks/exactness.py memory  --text data/laws/train --valid data/laws/dev --languages en-fr

kills: SIGKILL at 20 random moments, run again each time; the weights are compared with those of a run left alone.
ranks: 1, then 2, then 1 processes, with the whole model each and with a share; the loss is compared likewise.
stops: SIGTERM in an update, a validation and a save, and SIGKILL to one of two processes: seconds.
saving: seconds that a checkpoint of the base model takes, and how long of that it holds training up.
memory: what a process holds, trained on all of a text and on 29,000 pairs drawn from it, so that sentences are as long.

Each prints a table in Markdown and, as its last line, all figures in JSON. It exits with 1 where a promise is broken.
"""

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from nmt import recipe as recipes
from nmt.data import prepare
from nmt.model.transformer import Transformer
from nmt.recipe import Layout, Recipe
from nmt.text import read_pairs
from nmt.training.learner import Learner
from nmt.training.loop import Training

HERE = Path(__file__).parent.parent
SMALL = {"layers": 2, "d_model": 128, "heads": 4, "d_ffn": 512}
MIDDLE = {"layers": 3, "d_model": 256, "heads": 4, "d_ffn": 1024}
TRAIN = {"precision": "fp32", "log_every": 1, "valid_bleu": 4}
KILLS = 20
FEW = 29000  # pairs, as Multi30k has
SECONDS = 10  # in which SIGTERM must have an end
LIMIT = 600  # seconds for anything


def make(options: argparse.Namespace, folder: Path, text: str, **changes: dict[str, Any]) -> Recipe:
    """A recipe, its text prepared; `changes` by section."""
    languages = options.languages.split("-")
    sections: dict[str, Any] = {
        "run": str(folder),
        "data": {"source": languages[0], "target": languages[1], "train": text, "valid": options.valid},
        "tokenizer": {"vocab_size": 8000},
        "average": {"last": 1},
    }
    recipe = recipes.loads(json.dumps(sections | changes))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(recipes.dump(recipe), "utf-8")
    prepare(recipe, report=lambda line: None)
    return recipe


class Run:
    """`nmt train` in one process or several, under way, in its own folder of the prepared data of a recipe."""

    def __init__(self, recipe: Recipe, processes: int = 1, *options: str) -> None:
        self.folder = Path(recipe.run)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), "MASTER_ADDR": "127.0.0.1"}
        common |= {"MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
        command = [sys.executable, "-m", "nmt", "train", str(self.folder / "recipe.yaml"), "--device", "cpu", *options]
        self.log = self.folder / "log.txt"
        with self.log.open("w") as log:
            self.processes = [
                subprocess.Popen(command, env=common | {"RANK": str(rank)}, stderr=log) for rank in range(processes)
            ]

    def wait_for(self, what: Callable[["Run"], bool]) -> bool:
        """Waits until it is so; False where training ends before."""
        give_up = time.monotonic() + LIMIT
        while not what(self):
            if self.processes[0].poll() is not None:
                return False
            if time.monotonic() > give_up:
                raise SystemExit(f"nothing came of it in {LIMIT} seconds:\n{self.said}")
            time.sleep(0.001)
        return True

    @property
    def said(self) -> str:
        """What it wrote so far."""
        return self.log.read_text("utf-8")

    @property
    def updates(self) -> int:
        """The last update that it has told of."""
        return max(map(int, re.findall(r"^update +(\d+)", self.said, re.M)), default=0)

    @property
    def saving(self) -> set[Path]:
        """The checkpoints that are being written, or were when it was killed."""
        return set((self.folder / "checkpoints").glob(".step-*.tmp"))

    def end(self, number: int = 0, rank: int = 0) -> tuple[list[int], float]:
        """Sends a signal to a process, if given; waits for all; gives their exit codes and how long that took."""
        begun = time.monotonic()
        if number:
            self.processes[rank].send_signal(number)
        codes = [process.wait(LIMIT) for process in self.processes]
        return codes, time.monotonic() - begun


def elsewhere(recipe: Recipe, name: str, **train: Any) -> Recipe:
    """The same recipe and data in another run folder, with other keys of `train`."""
    folder = Path(recipe.run).with_name(name)
    folder.mkdir()
    Layout.of(recipe.model_copy(update={"run": str(folder)})).data.symlink_to(Layout.of(recipe).data)
    asked = recipe.model_dump(mode="json")
    out = recipes.loads(json.dumps(asked | {"run": str(folder), "train": asked["train"] | train}))
    (folder / "recipe.yaml").write_text(recipes.dump(out), "utf-8")
    return out


def change(recipe: Recipe, **train: Any) -> Recipe:
    """The same run with other keys of `train`."""
    out = recipe.model_copy(update={"train": recipe.train.model_copy(update=train)})
    Path(recipe.run, "recipe.yaml").write_text(recipes.dump(out), "utf-8")
    return out


def finished(recipe: Recipe, processes: int = 1, *options: str) -> Path:
    """Trains to the end; gives the last checkpoint."""
    run = Run(recipe, processes, *options)
    codes, _ = run.end()
    if any(codes):
        raise SystemExit(f"training ended with {codes}:\n{run.said}")
    return max(Layout.of(recipe).checkpoints.glob("step-*"))


def valid_loss(recipe: Recipe) -> float:
    """What the valid corpus last said."""
    lines = map(json.loads, Layout.of(recipe).metrics.read_text("utf-8").splitlines())
    return float([line["loss"] for line in lines if line["kind"] == "valid"][-1])


def kills(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each kill, and one for the end."""
    often: dict[str, Any] = TRAIN | {
        "steps": 160,
        "batch_tokens": 512,
        "valid_every": 60,
        "schedule": {"warmup": 100},
        "checkpoint_every": 2,
        "keep": 2,
    }
    recipe = make(options, folder / "alone", options.text, model=SMALL | {"dropout": 0.1}, train=often)
    alone = finished(recipe)
    killed, draw = elsewhere(recipe, "killed"), random.Random(options.seed)
    for number in range(1, KILLS + 1):
        run = Run(killed)
        left = run.saving
        update = int(often["steps"] * draw.uniform(number - 1, number) / KILLS)
        if not run.wait_for(lambda run: run.updates >= update):  # noqa: B023 - it is asked at once
            raise SystemExit("it ended before all kills")
        time.sleep(draw.uniform(0, 0.1))
        if number % 2:  # into the next save; the others wherever it is
            run.wait_for(lambda run: bool(run.saving - left))  # noqa: B023 - it is asked at once
            time.sleep(draw.uniform(0, 0.03))
        codes, _ = run.end(signal.SIGKILL)
        ok = codes == [-signal.SIGKILL]
        yield {"kill": number, "after": f"update {run.updates}", "in a save": bool(run.saving - left), "ok": ok}
    end = finished(killed)
    same = all(
        (alone / file).read_bytes() == (end / file).read_bytes()
        for file in ("model.safetensors", "optimizer.safetensors")
    )
    yield {"kill": "end", "after": end.name, "in a save": "", "ok": same and alone.name == end.name}


def ranks(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each way to go on."""
    keys = TRAIN | {
        "steps": 60,
        "batch_tokens": 1024,
        "chunk_tokens": 300,
        "valid_every": 60,
        "checkpoint_every": 20,
    }
    recipe = make(options, folder / "alone", options.text, model=SMALL | {"dropout": 0.1}, train=keys)
    finished(recipe)
    loss = valid_loss(recipe)
    for name, how in {"whole": (), "sharded": ("--fsdp",)}.items():
        parts = elsewhere(recipe, name)
        for processes, steps in ((1, 20), (2, 40), (1, 60)):
            finished(change(parts, steps=steps), processes, *(how if processes > 1 else ()))
        apart = abs(valid_loss(parts) - loss)
        yield {"1, 2, 1 processes": name, "loss": loss, "differs by": apart, "ok": apart < 1e-6}


def stops(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each moment of a stop."""
    keys = TRAIN | {"steps": 1000, "batch_tokens": 100, "valid_every": 1000, "checkpoint_every": 1000}
    base = make(options, folder / "base", options.text, train=keys, model=MIDDLE)
    moments: dict[str, tuple[dict[str, Any], Callable[[Run], bool]]] = {
        "in an update of 25,000 tokens": ({"batch_tokens": 25000}, lambda run: "update       1" in run.said),
        "in a validation": ({"valid_every": 2}, lambda run: "update       2" in run.said),
        "in a save": ({"checkpoint_every": 2}, lambda run: bool(run.saving)),
    }
    for number, (name, (train, moment)) in enumerate(moments.items(), 1):
        run = Run(elsewhere(base, f"stop-{number}", **train))
        run.wait_for(moment)
        time.sleep(0 if run.saving else 2)
        [code], seconds = run.end(signal.SIGTERM)
        good = [path for path in (run.folder / "checkpoints").glob("step-*") if (path / "state.json").exists()]
        ok = code == 143 and seconds < SECONDS and bool(good) and not run.saving
        yield {"SIGTERM": name, "seconds": seconds, "exit code": code, "saved": [p.name for p in good], "ok": ok}
    run = Run(elsewhere(base, "lost", checkpoint_every=2), 2)
    run.wait_for(lambda run: "update       3" in run.said)
    codes, seconds = run.end(signal.SIGKILL, rank=1)
    told = [line for line in run.said.splitlines() if "one of them is gone" in line]
    ok = seconds < 60 and codes[0] == 2 and len(told) == 1
    yield {"SIGTERM": "SIGKILL to one of two", "seconds": seconds, "exit code": codes[0], "saved": told, "ok": ok}


def saving(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each checkpoint of the base model, 63 M parameters."""
    base = make(options, folder / "base", options.text, train=TRAIN | {"keep": 1}, tokenizer={"vocab_size": 8000})
    model = Transformer(base.model, 37000, 37000)
    training = Training(base, torch.device("cpu"))
    training.learner = Learner(base, model, torch.device("cpu"), torch.float32)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    training.learner.optimizer.step(0.0)
    for number in range(1, options.rounds + 1):
        training.state = training.state._replace(step=number)
        begun = time.monotonic()
        training._save(SimpleNamespace(scores={}))  # type: ignore[arg-type]
        held_up = time.monotonic() - begun
        training._saving.wait()
        taken = time.monotonic() - begun
        size = sum(path.stat().st_size for path in training.layout.checkpoints.rglob("*.*") if path.is_file())
        yield {"checkpoint": number, "MB": size / 1e6, "seconds": taken, "training is held up for": held_up, "ok": True}


def memory(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each size of the corpus."""
    keys = TRAIN | {"steps": 1000, "chunk_tokens": 2048, "batch_tokens": 4096, "valid_every": 1000}
    languages = options.languages.split("-")
    pairs = list(read_pairs(options.text, *languages))
    some = random.Random(options.seed).sample(pairs, FEW)
    for side, language in enumerate(languages):
        Path(f"{folder}/few.{language}").write_text("".join(f"{pair[side]}\n" for pair in some), "utf-8")
    before = 0.0
    for name, text, count in (("few", f"{folder}/few", FEW), ("all", options.text, len(pairs))):
        recipe = make(options, folder / name, text, model=MIDDLE, train=keys | {"checkpoint_every": 5})
        run, held = Run(recipe), {"RssAnon": 0, "RssFile": 0, "VmHWM": 0}
        while "update      12" not in run.said and run.processes[0].poll() is None:
            for line in Path(f"/proc/{run.processes[0].pid}/status").read_text().splitlines():
                if (key := line.split(":")[0]) in held:
                    held[key] = max(held[key], int(line.split()[1]))
            time.sleep(0.02)
        run.end(signal.SIGTERM)
        peaks = {f"{key} MB": value / 1000 for key, value in held.items()}
        more = peaks["VmHWM MB"] - (before or peaks["VmHWM MB"])
        before = before or peaks["VmHWM MB"]
        yield {"pairs": f"{count:,}", **peaks, "more MB": more, "ok": more < 200}


def main() -> None:
    """Measures, and prints a row as it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shows = {"kills": kills, "ranks": ranks, "stops": stops, "saving": saving, "memory": memory}
    parser.add_argument("what", choices=shows)
    parser.add_argument("--text", default="data/multi30k/train", help="training text, PREFIX of two languages")
    parser.add_argument("--valid", default="data/multi30k/val", help="valid text, likewise")
    parser.add_argument("--languages", default="en-de", help="the two")
    parser.add_argument("--rounds", type=int, default=10, help="how many checkpoints `saving` makes")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of `kills`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows: list[dict[str, Any]] = []
        for row in shows[options.what](options, Path(folder)):
            if not rows:
                print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
            print(f"| {' | '.join(f'{x:.4g}' if isinstance(x, float) else str(x) for x in row.values())} |", flush=True)
            rows.append(row)
    print(json.dumps(rows))
    sys.exit(not all(row["ok"] for row in rows))


if __name__ == "__main__":
    main()
