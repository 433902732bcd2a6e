"""What helps where there is little text: Multi30k English-German cut to 1,000 and 5,000 pairs, one change at a time.

    python benchmarks/low_resource.py --data data/multi30k --out runs/low-resource
    python benchmarks/low_resource.py --data data/multi30k --out runs/low-resource --table

Each run is a recipe of its own, done by `nmt prepare`, `train`, `average` and `score` on one CPU thread.
`--only 1k,5k`, `--settings pre-norm` and `--seeds 1,2,3` choose among them, `--jobs N` does N at once. What is finished
is passed over and what was interrupted goes on, so it may be killed and started again at any time. `--table` prints
what there is.

The text is raw and cased; the scores are BLEU of sacreBLEU on test_2016_flickr, mean ± standard deviation over the
seeds. The cut is the same for all seeds. The paper's setting is Vaswani et al.'s in all but size and learning rate. All
settings of a size take equally many updates, of equally many tokens but for what BPE-dropout adds, so that this asks
what helps within minutes of training.

One learning rate is not fair to all: pre-norm bears a higher one, and strong dropout needs it. So each setting is
trained at both `SCALES` with the first seed on 1,000 pairs, and takes the one with the higher BLEU on the valid corpus
for all else. What goes into "together" was chosen by the valid corpus too; the test set chooses nothing.
"""

import argparse
import ctypes
import gzip
import json
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

from nmt import recipe as recipes
from nmt.files import whole_file
from nmt.recipe import Layout, Recipe

LANGUAGES = ("en", "de")
TEST = "test_2016_flickr"
TRIAL = ("1k", 1)  # size and seed at which learning rates are tried
SHUFFLE_SEED = 1  # of the cut; the seeds of the models are others
PAPER = "the paper's"
SCALES = (0.35, 1.0)  # of the learning rate
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

BASE = """
run: run
data: {source: en, target: de, train: train, valid: valid}
tokenizer: {vocab_size: 4000}
model: {layers: 2, d_model: 128, heads: 4, d_ffn: 512, dropout: 0.1, norm: post, positions: sinusoidal}
train:
  precision: fp32
  label_smoothing: 0.1
  bpe_dropout: 0.0
  valid_bleu: 200
  keep: 5
average: {last: 5}
"""


class Size(NamedTuple):
    """How many pairs of the training text there are (None: all), and how long is trained on them."""

    pairs: int | None
    steps: int
    batch_tokens: int
    warmup: int


SIZES = {
    "1k": Size(1_000, steps=3_000, batch_tokens=512, warmup=400),
    "5k": Size(5_000, steps=3_000, batch_tokens=1024, warmup=400),
    "29k": Size(None, steps=5_000, batch_tokens=2048, warmup=800),
}


class Setting(NamedTuple):
    """A change of the paper's setting, and the sizes that it is tried on."""

    name: str
    changes: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ("1k", "5k")


SETTINGS = (
    Setting(PAPER, sizes=("1k", "5k", "29k")),
    Setting("pre-norm", ("model.norm=pre",)),
    Setting("dropout 0.3", ("model.dropout=0.3",)),
    Setting("dropout 0.5", ("model.dropout=0.5",)),
    Setting("BPE 500", ("tokenizer.vocab_size=500",)),
    Setting("BPE 1000", ("tokenizer.vocab_size=1000",)),
    Setting("BPE 2000", ("tokenizer.vocab_size=2000",)),
    Setting("BPE 8000", ("tokenizer.vocab_size=8000",), ("5k",)),  # more than 1,000 pairs can fill
    Setting("BPE-dropout 0.05", ("train.bpe_dropout=0.05",)),  # about 0.1 as Provilkov et al. count
    Setting("BPE-dropout 0.1", ("train.bpe_dropout=0.1",)),
    Setting(
        "together",  # what helped when it was alone
        ("model.norm=pre", "model.dropout=0.3", "tokenizer.vocab_size=2000", "train.bpe_dropout=0.05"),
        ("1k", "5k", "29k"),
    ),
)


class Job(NamedTuple):
    """One model to train and to score."""

    size: str
    setting: Setting
    seed: int
    scale: float

    def folder(self, out: Path) -> Path:
        """Where its recipe, its run and its result lie."""
        name = "".join(c if c.isalnum() or c in ".-" else "-" for c in self.setting.name)
        return out / self.size / name / f"scale-{self.scale}" / f"seed-{self.seed}"

    def recipe(self, out: Path, data: Path) -> Recipe:
        """All that is chosen for it."""
        size = SIZES[self.size]
        train = out / "text" / self.size if size.pairs else data / "train"
        values = {
            "run": self.folder(out) / "run", "seed": self.seed,
            "data.train": train, "data.valid": data / "val", f"data.test.{TEST}": data / TEST,
            "train.steps": size.steps, "train.batch_tokens": size.batch_tokens, "train.schedule.warmup": size.warmup,
            "train.schedule.scale": self.scale,
            "train.valid_every": size.steps // 8, "train.checkpoint_every": size.steps // 40,
        }  # fmt: skip
        return recipes.loads(
            BASE, overrides=[f"{key}={value}" for key, value in values.items()] + [*self.setting.changes]
        )


def jobs(sizes: list[str], seeds: list[int], names: list[str], out: Path) -> Iterator[Job]:
    """What there is to do as far as it is known yet, seed by seed, so that each setting has a first figure soon."""
    for size, seed, setting in product(sizes, seeds, SETTINGS):
        if size in setting.sizes and (not names or setting.name in names):
            trial = size == TRIAL[0] and seed == TRIAL[1]
            best = best_scale(setting, out)
            yield from (Job(size, setting, seed, scale) for scale in SCALES if trial or scale == best)


def best_scale(setting: Setting, out: Path) -> float | None:
    """The learning rate that did better on the valid corpus; None before both have been tried."""
    bleu = {scale: result(Job(TRIAL[0], setting, TRIAL[1], scale), out) for scale in SCALES}
    if None in bleu.values():
        return None
    return max(SCALES, key=lambda scale: valid_bleu(bleu[scale] or {}))


def valid_bleu(found: dict[str, Any]) -> float:
    """What the valid corpus said at the end."""
    return float(found["valid"][-1]["bleu"])


def cut(data: Path, out: Path, size: str) -> None:
    """Writes the first pairs of the shuffled training text, if that is not done yet."""
    pairs = SIZES[size].pairs
    paths = [out / "text" / f"{size}.{language}" for language in LANGUAGES]
    if pairs is None or all(path.exists() for path in paths):
        return
    text = zip(*(lines(data / f"train.{language}") for language in LANGUAGES), strict=True)
    chosen = random.Random(SHUFFLE_SEED).sample(list(text), pairs)
    for path, side in zip(paths, zip(*chosen, strict=True), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, "w") as file:
            file.writelines(f"{line}\n" for line in side)


def lines(path: Path) -> list[str]:
    """The lines of a file, plain or gzipped."""
    raw = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes())
    return raw.decode("utf-8").removesuffix("\n").split("\n")


def do(job: Job, out: Path, data: Path) -> str:
    """Trains and scores one model; gives a line that says how it went. Raises RuntimeError where a command fails."""
    folder, recipe = job.folder(out), job.recipe(out, data)
    file = folder / "recipe.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(file, "w") as text:
        text.write(recipes.dump(recipe))
    nmt("prepare", file, "--workers", "1")
    nmt("train", file, "--device", "cpu")
    nmt("average", file)
    [test] = json.loads(nmt("score", file, "--device", "cpu", "--json")).values()
    found = figures(recipe, test) | {"recipe": recipe.model_dump(mode="json")}
    with whole_file(folder / "result.json", "w") as text:
        json.dump(found, text, indent=2)
    shutil.rmtree(Layout.of(recipe).checkpoints)  # all runs together would fill gigabytes
    return f"{job.size}, {job.setting.name}, scale {job.scale}, seed {job.seed}: BLEU {found['bleu']:.2f}"


def nmt(command: str, recipe: Path, *options: str) -> str:
    """What `nmt COMMAND` prints, on one thread; what it tells goes into log.txt beside the recipe."""
    with (recipe.parent / "log.txt").open("a") as log:
        done = subprocess.run(
            [sys.executable, "-m", "nmt", command, str(recipe), *options],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=politely,
        )
    if done.returncode:
        raise RuntimeError(f"nmt {command} {recipe} ended with exit code {done.returncode}: see {log.name}")
    return done.stdout


def politely() -> None:
    """In a new process: lets others go first and, on Linux, ends when we do, so that no run is left behind."""
    os.nice(10)
    if LIBC:
        LIBC.prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG


def figures(recipe: Recipe, test: dict[str, Any]) -> dict[str, Any]:
    """What is to be told of a finished run."""
    layout = Layout.of(recipe)
    [bleu] = [row for row in test["rows"] if row["metric"] == "BLEU"]
    [*_, last] = sorted(layout.checkpoints.glob("step-*"))
    metrics = map(json.loads, layout.metrics.read_text("utf-8").splitlines())
    with safe_open(layout.model / "model.safetensors", "numpy") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    return {
        "bleu": bleu["score"],
        "signature": bleu["signature"],
        "parameters": sum(math.prod(shape) for shape in shapes),
        "seconds": json.loads((last / "state.json").read_text("utf-8"))["seconds"],
        "valid": [{key: line[key] for key in ("step", "loss", "bleu")} for line in metrics if line["kind"] == "valid"],
    }


def result(job: Job, out: Path) -> dict[str, Any] | None:
    """What came of a run, None if it is not finished."""
    path = job.folder(out) / "result.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def is_finished(job: Job, out: Path, data: Path) -> bool:
    """Whether it is done, and by the recipe as it now is."""
    found = result(job, out)
    return found is not None and found["recipe"] == job.recipe(out, data).model_dump(mode="json")


def do_all(todo: list[Job], out: Path, data: Path, at_once: int) -> int:
    """Does what there is to do; gives the number of runs that failed."""
    failed = 0
    with ThreadPoolExecutor(at_once) as pool:
        under_way = [pool.submit(do, job, out, data) for job in todo]
        try:
            for number, future in enumerate(as_completed(under_way), start=1):
                error = future.exception()
                failed += error is not None
                print(f"{number} of {len(todo)}: {error or future.result()}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def table(size: str, chosen: list[Job], out: Path) -> Iterator[str]:
    """The results of one size as Markdown."""
    results: dict[str, list[dict[str, Any]]] = {}
    for job in chosen:
        if job.size == size and job.scale == best_scale(job.setting, out) and (one := result(job, out)):
            results.setdefault(job.setting.name, []).append(one)
    if not results:
        return
    yield f"| {size} pairs | seeds | BLEU | difference | BLEU, valid | learning rate | parameters | training |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    base = mean(results[PAPER], "bleu") if PAPER in results else None
    for name, found in results.items():
        bleu = mean(found, "bleu")
        spread = f" ± {statistics.stdev(one['bleu'] for one in found):.2f}" if len(found) > 1 else ""
        difference = "" if base is None or name == PAPER else f"{bleu - base:+.2f}"
        size_and_time = f"{mean(found, 'parameters') / 1e6:.2f} M | {mean(found, 'seconds') / 60:.1f} min"
        valid = (
            f"{statistics.fmean(map(valid_bleu, found)):.1f} | × {found[0]['recipe']['train']['schedule']['scale']:g}"
        )
        yield f"| {name} | {len(found)} | {bleu:.2f}{spread} | {difference} | {valid} | {size_and_time} |"
    yield from ("", *sorted({one["signature"] for found in results.values() for one in found}), "")


def mean(found: list[dict[str, Any]], key: str) -> float:
    """The mean of a figure over some results."""
    return statistics.fmean(one[key] for one in found)


def numbers(text: str) -> list[int]:
    """The whole numbers in a list with commas."""
    return [int(part) for part in text.split(",")]


def main() -> int:
    """Does the runs that were asked for, or prints their table; gives the exit code."""
    parser = argparse.ArgumentParser(description="What helps where there is little text.")
    parser.add_argument("--data", type=Path, default=Path("data/multi30k"), help="the raw files of Multi30k")
    parser.add_argument("--out", type=Path, default=Path("runs/low-resource"), help="where all runs go")
    parser.add_argument("--only", default=",".join(SIZES), help="sizes, such as 1k,5k")
    parser.add_argument("--settings", default="", help="settings by name, separated by commas; all if not given")
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3], help="seeds of the models, such as 1,2,3")
    parser.add_argument("--jobs", type=int, choices=range(1, 257), metavar="N", default=2, help="runs at once")
    parser.add_argument("--table", action="store_true", help="only print what is finished, as Markdown")
    given = parser.parse_args()
    if not given.data.is_dir():
        parser.error(f"{given.data}: no such folder: name the one that holds the raw files of Multi30k")
    sizes, names = given.only.split(","), [name for name in given.settings.split(",") if name]
    known = {*SIZES, *(setting.name for setting in SETTINGS)}
    if unknown := {*sizes, *names} - known:
        parser.error(f"{', '.join(sorted(unknown))}: no such size or setting; there are {', '.join(sorted(known))}")
    if given.table:
        chosen = list(jobs(sizes, given.seeds, names, given.out))
        print(*(line for size in sizes for line in table(size, chosen, given.out)), sep="\n")
        return 0
    for size in sizes:
        cut(given.data, given.out, size)
    while todo := unfinished(list(jobs(sizes, given.seeds, names, given.out)), given.out, given.data):
        if do_all(todo, given.out, given.data, given.jobs):
            return 1
    return 0


def unfinished(chosen: list[Job], out: Path, data: Path) -> list[Job]:
    """Those of the runs that are still to be done."""
    todo = [job for job in chosen if not is_finished(job, out, data)]
    print(f"{len(chosen) - len(todo)} of {len(chosen)} runs are finished", flush=True)
    return todo


if __name__ == "__main__":
    sys.exit(main())
