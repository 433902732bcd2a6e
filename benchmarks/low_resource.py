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
trained at both `SCALES` with the first seed, and takes the one with the higher BLEU on the valid corpus for the other
seeds; for all 29,000 pairs, that of 5,000. What goes into "together" was chosen by the valid corpus too; the test set
chooses nothing.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import runs
from nmt import recipe as recipes
from nmt.recipe import Recipe

LANGUAGES = ("en", "de")
TEST = "test_2016_flickr"
TRIALS = {"1k": "1k", "5k": "5k", "29k": "5k"}  # at which size learning rates are tried for each
TRIED = 1  # the seed that they are tried with
SHUFFLE_SEED = 1  # of the cut; the seeds of the models are others
PAPER = "the paper's"
SCALES = (0.35, 1.0)  # of the learning rate

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
    "5k": Size(5_000, steps=2_000, batch_tokens=1024, warmup=400),
    "29k": Size(None, steps=3_000, batch_tokens=2048, warmup=400),
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
            trial = size == TRIALS[size] and seed == TRIED
            best = best_scale(size, setting, out)
            yield from (Job(size, setting, seed, scale) for scale in SCALES if trial or scale == best)


def best_scale(size: str, setting: Setting, out: Path) -> float | None:
    """The learning rate that did better on the valid corpus; None before both have been tried."""
    bleu = {scale: result(Job(TRIALS[size], setting, TRIED, scale), out) for scale in SCALES}
    if None in bleu.values():
        return None
    return max(SCALES, key=lambda scale: runs.valid_bleu(bleu[scale] or {}))


def cut(data: Path, out: Path, size: str) -> None:
    """Writes the first pairs of the shuffled training text, if that is not done yet."""
    pairs = SIZES[size].pairs
    paths = [out / "text" / f"{size}.{language}" for language in LANGUAGES]
    if pairs is None or all(path.exists() for path in paths):
        return
    text = zip(*(runs.lines(data / f"train.{language}") for language in LANGUAGES), strict=True)
    chosen = random.Random(SHUFFLE_SEED).sample(list(text), pairs)
    for path, side in zip(paths, zip(*chosen, strict=True), strict=True):
        runs.write(path, list(side))


def do(job: Job, out: Path, data: Path) -> str:
    """Trains and scores one model; gives a line that says how it went. Raises RuntimeError where a command fails."""
    found = runs.train_and_score(job.folder(out), job.recipe(out, data))
    return f"{job.size}, {job.setting.name}, scale {job.scale}, seed {job.seed}: BLEU {found['bleu']:.2f}"


def result(job: Job, out: Path) -> dict[str, Any] | None:
    """What came of a run, None if it is not finished."""
    return runs.result(job.folder(out))


def table(size: str, chosen: list[Job], out: Path) -> Iterator[str]:
    """The results of one size as Markdown."""
    results: dict[str, list[dict[str, Any]]] = {}
    for job in chosen:
        if job.size == size and job.scale == best_scale(size, job.setting, out) and (one := result(job, out)):
            results.setdefault(job.setting.name, []).append(one)
    if not results:
        return
    yield f"| {size} pairs | seeds | BLEU | difference | BLEU, valid | learning rate | parameters | training |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    base = runs.mean(results[PAPER], "bleu") if PAPER in results else None
    for name, found in results.items():
        bleu = runs.mean(found, "bleu")
        difference = "" if base is None or name == PAPER else f"{bleu - base:+.2f}"
        size_and_time = f"{runs.mean(found, 'parameters') / 1e6:.2f} M | {runs.mean(found, 'seconds') / 60:.1f} min"
        valid, scale = statistics.fmean(map(runs.valid_bleu, found)), found[0]["recipe"]["train"]["schedule"]["scale"]
        score = f"{bleu:.2f}{runs.spread(found)} | {difference} | {valid:.1f} | × {scale:g}"
        yield f"| {name} | {len(found)} | {score} | {size_and_time} |"
    yield from ("", *sorted({one["signature"] for found in results.values() for one in found}), "")


def main() -> int:
    """Does the runs that were asked for, or prints their table; gives the exit code."""
    parser = argparse.ArgumentParser(description="What helps where there is little text.")
    parser.add_argument("--data", type=Path, default=Path("data/multi30k"), help="the raw files of Multi30k")
    parser.add_argument("--out", type=Path, default=Path("runs/low-resource"), help="where all runs go")
    parser.add_argument("--only", default=",".join(SIZES), help="sizes, such as 1k,5k")
    parser.add_argument("--settings", default="", help="settings by name, separated by commas; all if not given")
    parser.add_argument("--seeds", type=runs.numbers, default=[1, 2, 3], help="seeds of the models, such as 1,2,3")
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
        if runs.do_all(todo, partial(do, out=given.out, data=given.data), given.jobs):
            return 1
    return 0


def unfinished(chosen: list[Job], out: Path, data: Path) -> list[Job]:
    """Those of the runs that are still to be done."""
    todo = [job for job in chosen if not runs.is_finished(job.folder(out), job.recipe(out, data))]
    print(f"{len(chosen) - len(todo)} of {len(chosen)} runs are finished", flush=True)
    return todo


if __name__ == "__main__":
    sys.exit(main())
