"""What back-translation and distillation give: Tatoeba English-German cut to 20,000 pairs, and text of one language.

    python benchmarks/growing.py --data data/tatoeba-en-de --out runs/growing
    python benchmarks/growing.py --data data/tatoeba-en-de --out runs/growing --table

Each model is a recipe of its own, done by `nmt prepare`, `train`, `average` and `score` on one CPU thread, and each
grown corpus is made by `nmt backtranslate` or `nmt distill`. `--settings` and `--seeds` choose among the models,
`--jobs N` does N things at once; what others need is done first. What is finished is passed over and what was
interrupted goes on, so it may be killed and started again at any time. `--table` prints what there is. `--quick` makes
everything tiny: it shows that all works, and measures nothing.

Tatoeba has many paraphrases, and 96 % of the sources of its test set are in its training text too. So every pair of
which a side is in the dev or test set is left out before anything else. Of the others, 20,000 drawn at random are the
parallel text; of the rest, the German sides are the monolingual text to back-translate, and the English sides more
sources to distil, each line once and none that the parallel text has. The cut is the same for all seeds.

All models of a table take equally many updates of equally many tokens, so what more text brings is not more training.
Who translates backwards is one model, with the first seed, and so is the teacher.
Scores are BLEU of sacreBLEU on the test set, mean ± standard deviation over the seeds.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import runs
from nmt import recipe as recipes
from nmt.recipe import Layout, Recipe

SHUFFLE_SEED = 1  # of the cut; the seeds of the models are others
TEACHERS = (1,)  # seeds of the baseline; several are an ensemble
EN, DE = "en", "de"

BASE = """
run: run
data: {source: en, target: de, train: train, valid: valid}
tokenizer: {vocab_size: 4000}
model: {layers: 2, d_model: 128, heads: 4, d_ffn: 512, dropout: 0.2, norm: pre}
train:
  steps: 4000
  batch_tokens: 2048
  schedule: {warmup: 600}
  precision: fp32
  valid_every: 1000
  valid_bleu: 300
  checkpoint_every: 200
  keep: 5
average: {last: 5}
decode: {length_penalty: 1.0}
"""
QUICK = ("tokenizer.vocab_size=500", "model.layers=1", "model.d_model=16", "model.d_ffn=16", "train.steps=4",
         "train.batch_tokens=256", "train.valid_every=4", "train.valid_bleu=2", "train.checkpoint_every=2",
         "train.keep=2", "average.last=2", "decode.max_extra=2", "decode.beam=2")  # fmt: skip
SMALL = ("model.layers=1", "model.d_model=64", "model.d_ffn=256")


class Cut(NamedTuple):
    """How much text there is: pairs, and lines without translations (None: all that are left)."""

    pairs: int = 20_000
    lines: int | None = None


class Growth(NamedTuple):
    """A corpus that models make: by which command, of which text, and which models."""

    name: str
    command: str
    by: tuple[tuple[str, int], ...]  # settings and seeds
    text: tuple[str, ...]
    options: tuple[str, ...] = ()


class Setting(NamedTuple):
    """A kind of model: which texts or grown corpora it is trained on, and what differs from the base.

    `tag` is that of all texts but the first.
    """

    name: str
    train: tuple[str, ...]
    changes: tuple[str, ...] = ()
    tag: str = ""
    beside: str = ""  # the setting it is compared with


BACK, TEACHER = (("reverse", 1),), tuple(("parallel", seed) for seed in TEACHERS)
GROWTHS = (
    Growth("bt-beam", "backtranslate", BACK, ("mono.de",)),
    Growth("bt-sampled", "backtranslate", BACK, ("mono.de",), ("--sample",)),
    Growth("distilled", "distill", TEACHER, ("parallel.en",)),
    Growth("distilled-more", "distill", TEACHER, ("parallel.en", "mono.en")),
)
SETTINGS = (
    Setting("parallel", ("parallel",)),
    Setting("reverse", ("parallel",), ("data.source=de", "data.target=en")),
    Setting("back-translated, beam", ("parallel", "bt-beam"), beside="parallel"),
    Setting("back-translated, beam, tagged", ("parallel", "bt-beam"), tag="<BT>", beside="parallel"),
    Setting("back-translated, sampled, tagged", ("parallel", "bt-sampled"), tag="<BT>", beside="parallel"),
    Setting("small", ("parallel",), SMALL),
    Setting("small, distilled", ("distilled",), SMALL, beside="small"),
    Setting("small, distilled, more sources", ("distilled-more",), SMALL, beside="small"),
)


class Study(NamedTuple):
    """Where all lies, and whether it is meant or only tried."""

    data: Path
    out: Path
    quick: bool = False

    def text(self, name: str) -> Path:
        """A text, or the prefix of two, by name."""
        return self.out / "text" / name

    def folder(self, setting: Setting, seed: int) -> Path:
        """Where the recipe, the run and the result of a model lie."""
        name = "".join(c if c.isalnum() or c in ".-" else "-" for c in setting.name)
        return self.out / name / f"seed-{seed}"

    def listed(self, setting: Setting) -> Iterator[str]:
        """The texts that a model is trained on, as recipes list them."""
        for number, name in enumerate(setting.train):
            tagged = setting.tag and number > 0
            yield f"{{path: {self.text(name)}, tag: {setting.tag}}}" if tagged else str(self.text(name))

    def recipe(self, setting: Setting, seed: int) -> Recipe:
        """All that is chosen for a model."""
        values = {
            "run": self.folder(setting, seed) / "run", "seed": seed,
            "data.train": f"[{', '.join(self.listed(setting))}]",
            "data.valid": self.data / "dev", "data.test.tatoeba": self.data / "test",
        }  # fmt: skip
        changes = [*setting.changes, *(QUICK if self.quick else ())]
        return recipes.loads(BASE, overrides=[f"{key}={value}" for key, value in values.items()] + changes)


class Model(NamedTuple):
    """A model to train and to score."""

    study: Study
    setting: Setting
    seed: int

    @property
    def needs(self) -> "list[Work]":
        """The corpora that have to be made before."""
        return [Corpus(self.study, growth) for growth in GROWTHS if growth.name in self.setting.train]

    @property
    def is_done(self) -> bool:
        """Whether it is scored, and by the recipe as it now is."""
        return runs.is_finished(self.study.folder(*self[1:]), self.study.recipe(*self[1:]))

    def do(self) -> str:
        """Trains and scores it; gives a line that says how it went. Raises RuntimeError where a command fails."""
        found = runs.train_and_score(self.study.folder(*self[1:]), self.study.recipe(*self[1:]))
        return f"{self.setting.name}, seed {self.seed}: BLEU {found['bleu']:.2f}"


class Corpus(NamedTuple):
    """A corpus to grow."""

    study: Study
    growth: Growth

    @property
    def needs(self) -> "list[Work]":
        """The models that make it."""
        named = {setting.name: setting for setting in SETTINGS}
        return [Model(self.study, named[name], seed) for name, seed in self.growth.by]

    @property
    def is_done(self) -> bool:
        """Whether its files are whole, which their record says."""
        return self.study.text(f"{self.growth.name}.json").exists()

    def do(self) -> str:
        """Makes it; gives a line that says so. Raises RuntimeError where the command fails."""
        first, *others = (Layout.of(self.study.recipe(*model[1:])).model for model in self.needs)
        runs.nmt(
            self.study.out, self.growth.command, first, *(part for other in others for part in ("--with", other)),
            *map(self.study.text, self.growth.text), "--output", self.study.text(self.growth.name),
            *self.growth.options, "--workers", 1, "--device", "cpu",
        )  # fmt: skip
        return f"{self.growth.name} is made"


Work = Model | Corpus


def cut(study: Study, size: Cut) -> None:
    """Writes the parallel text and the text without translations, and says how much there is."""
    held = [set(runs.lines(study.data / f"{split}.{side}")) for split in ("dev", "test") for side in (EN, DE)]
    ours = {EN: held[0] | held[2], DE: held[1] | held[3]}
    all_pairs = list(zip(*(runs.lines(study.data / f"train.{side}") for side in (EN, DE)), strict=True))
    pairs = [pair for pair in dict.fromkeys(all_pairs) if pair[0] not in ours[EN] and pair[1] not in ours[DE]]
    random.Random(SHUFFLE_SEED).shuffle(pairs)
    parallel, rest = pairs[: size.pairs], pairs[size.pairs :]
    told = [
        f"{len(all_pairs):,} pairs, {len(pairs):,} of them without a side in dev or test; {len(parallel):,} parallel"
    ]
    for place, side in enumerate((EN, DE)):
        known = {pair[place] for pair in parallel}
        mono = [line for line in dict.fromkeys(pair[place] for pair in rest) if line not in known][: size.lines]
        runs.write(study.text(f"parallel.{side}"), [pair[place] for pair in parallel])
        runs.write(study.text(f"mono.{side}"), mono)
        told.append(f"{len(mono):,} lines of {side} alone")
    print(", ".join(told), flush=True)


def with_needs(wanted: list[Work]) -> list[Work]:
    """What is wanted and all that it needs, each once, what is needed first."""
    found: dict[Work, None] = {}
    for work in wanted:
        found |= dict.fromkeys([*with_needs(work.needs), work])
    return list(found)


def table(study: Study, seeds: list[int]) -> Iterator[str]:
    """The results as Markdown."""
    found = {
        setting.name: [one for seed in seeds if (one := runs.result(study.folder(setting, seed)))]
        for setting in SETTINGS
    }
    yield "| trained on | seeds | BLEU | difference | BLEU, valid | parameters | training |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for setting in SETTINGS:
        if results := found[setting.name]:
            yield row(setting, results, found.get(setting.beside, []))
    yield from ("", *sorted({one["signature"] for results in found.values() for one in results}))


def row(setting: Setting, found: list[dict[str, Any]], beside: list[dict[str, Any]]) -> str:
    """A line of the table: the results of a setting, and what it has more than the one it is compared with."""
    bleu = runs.mean(found, "bleu")
    more = f"{bleu - runs.mean(beside, 'bleu'):+.2f}" if beside else ""
    valid = statistics.fmean(map(runs.valid_bleu, found))
    size_and_time = f"{runs.mean(found, 'parameters') / 1e6:.2f} M | {runs.mean(found, 'seconds') / 60:.1f} min"
    return (
        f"| {setting.name} | {len(found)} | {bleu:.2f}{runs.spread(found)} | {more} | {valid:.1f} | {size_and_time} |"
    )


def main() -> int:
    """Does what was asked for, or prints its table; gives the exit code."""
    parser = argparse.ArgumentParser(description="What back-translation and distillation give.")
    parser.add_argument("--data", type=Path, default=Path("data/tatoeba-en-de"), help="the files of Tatoeba en-de")
    parser.add_argument("--out", type=Path, default=Path("runs/growing"), help="where everything goes")
    parser.add_argument("--settings", default="", help="settings by name, separated by semicolons; all if not given")
    parser.add_argument("--seeds", type=runs.numbers, default=[1, 2, 3], help="seeds of the models, such as 1,2,3")
    parser.add_argument("--jobs", type=int, choices=range(1, 257), metavar="N", default=2, help="things done at once")
    parser.add_argument("--quick", action="store_true", help="everything tiny: shows that all works, measures nothing")
    parser.add_argument("--table", action="store_true", help="only print what is finished, as Markdown")
    given = parser.parse_args()
    if not given.data.is_dir():
        parser.error(f"{given.data}: no such folder: name the one that holds the files of Tatoeba")
    study = Study(given.data, given.out, given.quick)
    names = [name.strip() for name in given.settings.split(";") if name.strip()]
    chosen = [setting for setting in SETTINGS if not names or setting.name in names]
    if unknown := set(names) - {setting.name for setting in chosen}:
        known = "; ".join(setting.name for setting in SETTINGS)
        parser.error(f"{', '.join(sorted(unknown))}: no such setting; there are {known}")
    if given.table:
        print(*table(study, given.seeds), sep="\n")
        return 0
    cut(study, Cut(300, 40) if given.quick else Cut())
    wanted: list[Work] = [
        Model(study, setting, seed)
        for seed in given.seeds
        for setting in chosen
        if setting.name != "reverse" or seed == BACK[0][1]
    ]
    while todo := [work for work in with_needs(wanted) if not work.is_done]:
        ready = [work for work in todo if all(need.is_done for need in work.needs)]
        print(f"{len(todo)} models and corpora are still to be made, {len(ready)} of them now", flush=True)
        if runs.do_all(ready, lambda work: work.do(), given.jobs):
            return 1
    print(*table(study, given.seeds), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
