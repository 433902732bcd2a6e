"""What noise in training does for noise in what is translated: Multi30k English-German, 5,000 pairs, with and without.

    python benchmarks/robustness.py --data data/multi30k --out runs/robustness
    python benchmarks/robustness.py --data data/multi30k --out runs/robustness --cost

Two models differ in `train.noise` alone: none of it, and `NOISE`. Each is made by `nmt prepare`, `train`, `average` and
`translate` on one CPU thread, and translates test_2016_flickr as it is and with one kind of noise at a time, drawn by
`SEED`. What is finished is passed over and what was interrupted goes on. It ends with a table in Markdown.

A translation in ALL CAPS is compared with the reference in ALL CAPS, and so on: with the reference that noise leaves.
The test's noise is made by the code that makes the training's, from other draws. `--cost` measures what noise costs.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from low_resource import BASE, LANGUAGES, TEST, cut
from nmt import recipe as recipes
from nmt.data.batches import Cursor, Sampler, pack, split
from nmt.data.mixing import Order
from nmt.data.segmentation import Segmenter
from nmt.data.shards import Shards
from nmt.evaluation import bleu
from nmt.files import whole_file
from nmt.recipe import Layout, Recipe
from nmt.text import Tokenizers, noise
from nmt.text.corpora import Pair
from nmt.text.noise import Draw, Noise
from runs import lines, nmt

SEED = 2016
SETTING = ("model.norm=pre", "model.dropout=0.3", "tokenizer.vocab_size=2000")  # what helps small text, but BPE-dropout
NOISE = {
    "upper": 0.05, "title": 0.05, "lower": 0.05, "no_final_punctuation": 0.1,
    "typos": 0.05, "placeholders": 0.05, "tags": 0.05,
}  # fmt: skip
MODELS: dict[str, dict[str, float]] = {"plain": {}, "noisy": NOISE}
MARK = re.compile(r"<[^<>]+>|\{\d*\}|%(?:\d+\$)?s")
UPDATES, UPDATE_TOKENS = 100, 2048  # that the cost is measured over


class Kind(NamedTuple):
    """A test set made of the clean one."""

    name: str
    change: Callable[[Pair, Draw], Pair]


KINDS = (
    Kind("clean", lambda pair, _: pair),
    Kind("in ALL CAPS", lambda pair, _: noise.in_capitals(pair)),
    Kind("in Title Case", lambda pair, _: noise.in_title_case(pair)),
    Kind("source in lower case", lambda pair, _: noise.in_lower_case(pair)),
    Kind("without final punctuation", lambda pair, _: noise.without_final_punctuation(pair)),
    Kind("typos in 5 % of words", Noise(recipes.Noise(typos=0.05), LANGUAGES[0])),
    Kind("typos in 20 % of words", Noise(recipes.Noise(typos=0.2), LANGUAGES[0])),
    Kind("with placeholders", noise.with_placeholders),
    Kind("with tags", noise.with_tags),
)


def recipe_of(model: str, out: Path, data: Path, *changes: str) -> Recipe:
    """All that is chosen for a model."""
    values = {
        "run": out / model / "run", "data.train": out / "text" / "5k", "data.valid": data / "val",
        "train.steps": 3000, "train.batch_tokens": 1024, "train.schedule.warmup": 400,
        "train.valid_every": 500, "train.checkpoint_every": 75, "train.log_every": 100,
    } | {f"train.noise.{key}": rate for key, rate in MODELS[model].items()}  # fmt: skip
    return recipes.loads(BASE, overrides=[*SETTING, *(f"{key}={value}" for key, value in values.items()), *changes])


def write(recipe: Recipe) -> Path:
    """The file of a recipe, beside its run folder."""
    file = Path(recipe.run).parent / "recipe.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file, "w") as text:
        text.write(recipes.dump(recipe))
    return file


def make(recipe: Recipe) -> Path:
    """Trains a model; gives the file of its recipe."""
    file = write(recipe)
    nmt(file.parent, "prepare", file, "--workers", 1)
    nmt(file.parent, "train", file, "--device", "cpu")
    nmt(file.parent, "average", file)
    return file


def noisy(kind: Kind, data: Path) -> list[Pair]:
    """The test set with this kind of noise."""
    pairs = zip(*(lines(data / f"{TEST}.{language}") for language in LANGUAGES), strict=True)
    return [kind.change(pair, random.Random(f"{SEED} {place}").random) for place, pair in enumerate(pairs)]


def score(file: Path, kind: Kind, pairs: list[Pair]) -> dict[str, float]:
    """BLEU of a model's translations, and the share of lines with just the marks of the source; kept in a file."""
    place = file.parent / f"{re.sub('[^a-zA-Z0-9]+', '-', kind.name)}.json"
    if not place.exists():
        source = place.with_suffix(f".{LANGUAGES[0]}")
        source.write_text("".join(f"{line}\n" for line, _ in pairs), "utf-8")
        said = nmt(file.parent, "translate", file, source, "--device", "cpu").removesuffix("\n").split("\n")
        place.with_suffix(f".{LANGUAGES[1]}").write_text("".join(f"{line}\n" for line in said), "utf-8")
        marks = [
            [Counter(MARK.findall(line)) for line in both] for both in zip((one for one, _ in pairs), said, strict=True)
        ]
        kept = sum(ours == theirs for ours, theirs in marks) / len(marks)
        with whole_file(place, "w") as text:
            json.dump({"bleu": bleu(said, [target for _, target in pairs]), "kept": kept}, text)
    found: dict[str, float] = json.loads(place.read_text("utf-8"))
    return found


def table(data: Path, files: dict[str, Path]) -> Iterator[str]:
    """The scores of the models in these files as Markdown."""
    yield f"| {TEST} | lines changed | {' | '.join(f'BLEU {name}' for name in files)} | difference | marks kept |"
    yield "|---|--:|" + "--:|" * (len(files) + 2)
    clean = noisy(KINDS[0], data)
    for kind in KINDS:
        pairs = noisy(kind, data)
        changed = sum(pair != before for pair, before in zip(pairs, clean, strict=True)) / len(pairs)
        found = [score(file, kind, pairs) for file in files.values()]
        scores = " | ".join(f"{one['bleu']:.2f}" for one in found)
        kept = " → ".join(f"{one['kept']:.0%}" for one in found) if any(MARK.search(one) for one, _ in pairs) else ""
        yield f"| {kind.name} | {changed:.0%} | {scores} | {found[-1]['bleu'] - found[0]['bleu']:+.2f} | {kept} |"


def cost(out: Path, data: Path) -> Iterator[str]:
    """What updates cost that are not trained on, as Markdown; the text must be prepared."""
    yield "| `train.noise` | CPU per update | CPU per 1 M tokens | tokens |"
    yield "|---|--:|--:|--:|"
    alone = [{key: rate} for key, rate in NOISE.items()]
    for rates in ({}, *alone, NOISE):
        changes = [f"train.noise.{key}={rate}" for key, rate in rates.items()]
        recipe = recipe_of("plain", out, data, f"train.batch_tokens={UPDATE_TOKENS}", *changes)
        shards = Shards.open(Layout.of(recipe).data, "train")
        segmenter = Segmenter(shards, Tokenizers.load(Layout.of(recipe).data), recipe)
        sampler = Sampler(shards, UPDATE_TOKENS, Order(len(shards), 1))
        seconds, stored, tokens = min(walk(sampler, segmenter, shards) for _ in range(3))
        name = "all of these" if rates is NOISE else "none" if not rates else changes[0].removeprefix("train.noise.")
        per_update, per_million = 1000 * seconds / UPDATES, 1e6 * seconds / stored
        yield f"| {name} | {per_update:.1f} ms | {per_million:.2f} s | × {tokens / stored:.3f} |"


def walk(sampler: Sampler, segmenter: Segmenter, shards: Shards) -> tuple[float, int, int]:
    """Takes some updates; gives the seconds of CPU, and the tokens of both sides as stored and as they came out."""
    cursor, stored, tokens = Cursor(), 0, 0
    begun = time.process_time()
    for step in range(1, UPDATES + 1):
        pairs, cursor = sampler.update(cursor)
        segmented = segmenter.update(step, pairs)
        for part in split(np.arange(len(pairs)), segmented.lengths, UPDATE_TOKENS):
            pack(segmented, part)
        stored += sum(int(side[pairs].sum()) for side in shards.lengths)
        tokens += sum(int(side.sum()) for side in segmented.lengths)
    return time.process_time() - begun, stored, tokens


def main() -> None:
    """Does what is not done yet, and prints the table."""
    parser = argparse.ArgumentParser(description="What noise in training does for noise in what is translated.")
    parser.add_argument("--data", type=Path, default=Path("data/multi30k"), help="the raw files of Multi30k")
    parser.add_argument("--out", type=Path, default=Path("runs/robustness"), help="where all runs go")
    parser.add_argument("--cost", action="store_true", help="measure what noise costs instead")
    given = parser.parse_args()
    if not given.data.is_dir():
        parser.error(f"{given.data}: no such folder: name the one that holds the raw files of Multi30k")
    cut(given.data, given.out, "5k")
    if given.cost:
        file = write(recipe_of("plain", given.out, given.data))
        nmt(file.parent, "prepare", file, "--workers", 1)
        told = cost(given.out, given.data)
    else:
        told = table(given.data, {model: make(recipe_of(model, given.out, given.data)) for model in MODELS})
    for line in told:
        print(line, flush=True)


if __name__ == "__main__":
    main()
