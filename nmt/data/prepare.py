"""From raw parallel text to a vocabulary and shards of token ids: what `nmt prepare` does."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from nmt.data.changes import choices, is_same, reason_to_prepare, record_input
from nmt.data.encoding import Block, Encode, blocks, encoding
from nmt.data.shards import FILES, FORMAT, CorpusRecord, Manifest, ShardWriter, SplitRecord, record_files
from nmt.errors import DataError
from nmt.files import make_folder, whole_file, whole_folder
from nmt.recipe import Layout, Recipe
from nmt.text import Corpus, Tokenizer, Tokenizers, locate, train_tokenizer
from nmt.text.cleaning import LENGTH_RATIO, TOO_LONG
from nmt.text.corpora import Pair
from nmt.text.opening import raw
from nmt.text.units import UNTRANSLATED

STANDARD_INPUT = "standard-input"  # its copy in the run folder

Report = Callable[[str], None]


def tell(line: str) -> None:
    """Prints a line of progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def prepare(recipe: Recipe, *, workers: int | None = None, force: bool = False, report: Report = tell) -> Manifest:
    """Learns the vocabulary and writes the shards of a recipe into the folder `data` of its run.

    Does nothing where that is done and neither the recipe's choices nor the text have changed since, unless
    `force`. `workers` processes encode, by default one per core; their number does not change a byte of the
    result. `report` is given lines that say what was read, dropped and written. What comes from standard input
    is kept in the run folder as `standard-input`, for text is read more than once.
    Raises `DataError` for text that cannot be used, `OutputError` for a folder that cannot be written, and
    `NmtError` for a worker that dies; what was prepared before then stays as it was.
    """
    folder = Layout.of(recipe).data
    splits = {
        split: [_kept(one, folder.parent, report) for one in several] for split, several in _locate(recipe).items()
    }
    files = [path for corpora in splits.values() for corpus in corpora for path in corpus.files]
    reason = "as told" if force else reason_to_prepare(folder, recipe, files)
    if reason is None:
        report(f"{folder}: prepared already, and nothing has changed since")
        return Manifest.load(folder)
    report(f"{folder}: preparing {reason}")
    make_folder(folder.parent)
    with whole_folder(folder, FILES) as new:
        manifest = _Preparation(recipe, splits, new, report).run(files, workers or _cores())
    for name, split in manifest.splits.items():
        tokens = f"{split.source_tokens:,} source and {split.target_tokens:,} target tokens"
        report(f"{name}: {split.pairs:,} pairs of {tokens}, in {len(split.shards)} shard(s)")
    return manifest


@dataclass
class _Preparation:
    """One preparation of a recipe into an empty folder."""

    recipe: Recipe
    splits: dict[str, list[Corpus]]
    folder: Path
    report: Report
    pairs: Counter[Corpus] = field(default_factory=Counter)  # known once a corpus has been read

    def run(self, files: list[Path], workers: int) -> Manifest:
        """Fills the folder; the manifest goes last."""
        inputs = {path: record_input(path) for path in files}
        tokenizers = self._learn()
        tokenizers.save(self.folder)
        with encoding(self.folder, workers) as encode:
            splits = {split: self._encode(split, encode) for split in self.splits}
        for path, record in inputs.items():
            if not is_same(path, record):
                raise DataError(f"{path}: changed while it was being read: run it again")
        manifest = Manifest(
            format=FORMAT,
            choices=choices(self.recipe),
            inputs={str(path): record for path, record in inputs.items()},
            vocabulary={"source": tokenizers.source.vocab_size, "target": tokenizers.target.vocab_size},
            splits=splits,
            files=record_files(self.folder),
        )
        manifest.save(self.folder)
        return manifest

    def _learn(self) -> Tokenizers:
        """The tokenizers, learned from the training text."""
        data = self.recipe.data
        if self.recipe.tokenizer.shared:
            shared = self._learn_one(f"{data.source} and {data.target}", chain.from_iterable(self._read()))
            return Tokenizers(shared, shared)
        return Tokenizers(
            self._learn_one(data.source, (source for source, _ in self._read())),
            self._learn_one(data.target, (target for _, target in self._read())),
        )

    def _learn_one(self, languages: str, lines: Iterable[str]) -> Tokenizer:
        asked = self.recipe.tokenizer
        self.report(f"learning {asked.vocab_size:,} subwords of {languages}")
        model = train_tokenizer(
            lines,
            asked.vocab_size,
            character_coverage=asked.character_coverage,
            split_by_unicode_script=asked.split_by_unicode_script,
            sample=asked.sample,
            seed=self.recipe.seed,
        )
        return Tokenizer(model)

    def _read(self) -> Iterator[Pair]:
        """The training pairs of all corpora; counts them."""
        for corpus in self.splits["train"]:
            self.pairs[corpus] = 0
            for pair in _shown(corpus.pairs(), f"reading {corpus.name}"):
                self.pairs[corpus] += 1
                yield pair
            if not self.pairs[corpus]:
                raise DataError(f"{corpus.files[0]}: the corpus is empty")

    def _encode(self, split: str, encode: Encode) -> SplitRecord:
        """Encodes and writes a split, and accounts for what was dropped of it."""
        corpora = self.splits[split]
        counts, dropped = [0] * len(corpora), [Counter[str]() for _ in corpora]
        writer = ShardWriter(self.folder, split)
        for part in encode(self._chunks(split, dropped)):
            counts[part.corpus] += part.read
            dropped[part.corpus] += part.dropped
            writer.add(part.kept)
        shards = writer.close()
        records = tuple(
            CorpusRecord(
                name=corpus.name, pairs=count + reasons[UNTRANSLATED], dropped=dict(sorted((+reasons).items()))
            )
            for corpus, count, reasons in zip(corpora, counts, dropped, strict=True)
        )
        for record in records:
            self.report(f"{split}: {self._account(record)}")
        if not shards:
            raise DataError(f"data.{split}: no pair is left of the {sum(counts):,} read from {corpora[0].name}")
        return SplitRecord(corpora=records, shards=shards)

    def _chunks(self, split: str, dropped: list[Counter[str]]) -> Iterator[Block]:
        """The pairs of a split in blocks; counts the units without a translation, which are none."""
        limits = self.recipe.data if split == "train" else None
        for number, corpus in enumerate(self.splits[split]):
            pairs = _shown(corpus.pairs(dropped[number]), f"encoding {corpus.name}", self.pairs.get(corpus))
            yield from blocks(number, pairs, limits)

    def _account(self, record: CorpusRecord) -> str:
        """What was read from a corpus and what was dropped, in a line."""
        data = self.recipe.data
        limits = {TOO_LONG: f" (over {data.max_length} tokens)", LENGTH_RATIO: f" (over {data.max_ratio:g})"}
        total = sum(record.dropped.values())
        share = f", {total:,} dropped ({total / record.pairs:.2%}): " if total else ", none dropped"
        told = (f"{count:,} {reason}{limits.get(reason, '')}" for reason, count in record.dropped.items())
        return f"{record.pairs:,} pairs read from {record.name}{share}{', '.join(told)}"


def _locate(recipe: Recipe) -> dict[str, list[Corpus]]:
    data = recipe.data
    entries = {"train": data.train, "valid": (data.valid,)}
    return {split: [locate(one, data.source, data.target) for one in several] for split, several in entries.items()}


def _kept(corpus: Corpus, folder: Path, report: Report) -> Corpus:
    """The same corpus, but of a file in `folder` where it comes from standard input, which can be read only once."""
    if corpus.files != (Path("-"),):
        return corpus
    make_folder(folder)
    copy = folder / STANDARD_INPUT
    report(f"{copy}: keeping what comes from standard input")
    with raw("-") as stream, whole_file(copy) as file:
        if not stream.isatty():
            shutil.copyfileobj(stream, file)
        if not file.tell():
            raise DataError("standard input is empty: pipe the text into nmt prepare, or name a file instead of -")
    return replace(corpus, files=(copy,))


def _shown(pairs: Iterator[Pair], what: str, total: int | None = None) -> Iterator[Pair]:
    """The same pairs, with a bar that shows how far they are read where there is a terminal to show it on."""
    return iter(tqdm(pairs, what, total, leave=False, unit=" pairs", unit_scale=True, disable=None))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
