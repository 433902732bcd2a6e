"""From raw parallel text to a vocabulary and shards of token ids: what `nmt prepare` does."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nmt.data.accounts import Account, not_read, warn_of_entities, warnings, write_examples
from nmt.data.changes import choices, is_same, reason_to_prepare, record_input
from nmt.data.encoding import Block, Encode, blocks, encoding
from nmt.data.shards import DROPPED, FILES, FORMAT, Manifest, ShardWriter, SplitRecord, record_files
from nmt.data.sieve import HeldOut, Sieve, select
from nmt.data.vocabulary import reused, vocabulary
from nmt.errors import DataError
from nmt.files import make_folder, whole_folder
from nmt.processes import cores
from nmt.recipe import Layout, Recipe, tag_of
from nmt.text import Corpus, locate
from nmt.text.cleaning import EMPTY, OVERLAP, REASONS, Cleaner
from nmt.text.corpora import Pair
from nmt.text.lexicon import FEWEST, Lexicon, Sample
from nmt.text.opening import keep_standard_input

STANDARD_INPUT = "standard-input"  # its copy in the run folder

Report = Callable[[str], None]


def tell(line: str) -> None:
    """Prints a line of progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def prepare(recipe: Recipe, *, workers: int | None = None, force: bool = False, report: Report = tell) -> Manifest:
    """Learns the vocabulary and writes the shards of a recipe into the folder `data` of its run.

    Does nothing where that is done and neither the recipe's choices nor the text have changed since, unless
    `force`. `workers` processes encode, by default one per core; their number does not change a byte of the
    result. `report` is given lines that say what was read, dropped and written, and what training text shares with
    held-out corpora; `dropped.txt` has more examples. What comes from standard input is kept in the run folder as
    `standard-input`, for text is read more than once.
    Raises `DataError` for text that cannot be used, `OutputError` for a folder that cannot be written, and
    `NmtError` for a worker that dies; what was prepared before then stays as it was.
    """
    folder = Layout.of(recipe).data
    splits = {
        split: [_kept(one, folder.parent, report) for one in several] for split, several in _locate(recipe).items()
    }
    tests = _tests(recipe, report)
    read = [*splits.values(), tests.values()] if recipe.data.clean.overlap == "drop" else splits.values()
    files = [*reused(recipe), *(path for corpora in read for corpus in corpora for path in corpus.files)]
    reason = "as told" if force else reason_to_prepare(folder, recipe, files)
    if reason is None:
        report(f"{folder}: prepared already, and nothing has changed since")
        manifest = Manifest.load(folder)
        for key in tests.keys() - manifest.overlap.keys():
            report(f"{key}: not compared with the training text yet: nmt prepare --force does it")
        return manifest
    report(f"{folder}: preparing {reason}")
    make_folder(folder.parent)
    with whole_folder(folder, FILES) as new:
        manifest = _Preparation(recipe, splits, tests, new, report).run(files, workers or cores())
    for name, split in manifest.splits.items():
        tokens = f"{split.source_tokens:,} source and {split.target_tokens:,} target tokens"
        report(f"{name}: {split.pairs:,} pairs of {tokens}, in {len(split.shards)} shard(s)")
    return manifest


@dataclass
class _Preparation:
    """One preparation of a recipe into an empty folder."""

    recipe: Recipe
    splits: dict[str, list[Corpus]]
    tests: dict[str, Corpus]
    folder: Path
    report: Report
    pairs: Counter[Corpus] = field(default_factory=Counter)  # known once a corpus has been read
    accounts: dict[str, list[Account]] = field(default_factory=dict)
    sample: Sample = field(default_factory=Sample)  # of the training pairs

    def run(self, files: list[Path], workers: int) -> Manifest:
        """Fills the folder; the manifest goes last."""
        inputs = {path: record_input(path) for path in files}
        for corpus in self.recipe.data.train:
            Cleaner(self.recipe.data.of(corpus))  # what it lacks is told here, not by a worker
        held_out = list(self._held_out())
        tokenizers = vocabulary(self.recipe, self._read, self.report)
        if not self.pairs:  # a tokenizer that is reused asks for no text, but the sieve must know how much there is
            for _ in self._read():
                pass
        tokenizers.save(self.folder)
        self._learn_lexicon()
        sieve = Sieve(self.recipe.data.clean, self.pairs.total(), held_out)
        with encoding(self.folder, self.recipe.data, workers) as encode:
            splits = {split: self._encode(split, encode, sieve) for split in self.splits}
        overlap = {held.key: held.record for held in held_out}
        for path, record in inputs.items():
            if not is_same(path, record):
                raise DataError(f"{path}: changed while it was being read: run it again")
        manifest = Manifest(
            format=FORMAT,
            choices=choices(self.recipe),
            inputs={str(path): record for path, record in inputs.items()},
            vocabulary={"source": tokenizers.source.vocab_size, "target": tokenizers.target.vocab_size},
            splits=splits,
            overlap=overlap,
            files=record_files(self.folder),
        )
        for key, found in overlap.items():
            for line in warnings(key, found, self.recipe.data.clean.overlap == "drop", self.accounts["train"]):
                self.report(line)
        write_examples(self.folder / DROPPED, self.accounts["train"])
        manifest.save(self.folder)
        return manifest

    def _held_out(self) -> Iterator[HeldOut]:
        """The corpora that training text is held against. A test set may be made later, unless it decides something."""
        for key, corpus in {"data.valid": self.splits["valid"][0], **self.tests}.items():
            try:
                held = HeldOut.read(key, corpus)
            except DataError as error:
                if key == "data.valid" or self.recipe.data.clean.overlap == "drop":
                    raise
                self.report(not_read(key, error))
                continue
            if held.escaped and self.recipe.data.clean.entities:
                self.report(warn_of_entities(key, held.escaped))
            yield held

    def _learn_lexicon(self) -> None:
        """What tells misaligned pairs, learned from a sample of the training text where it is large enough."""
        if not self.recipe.data.clean.misaligned:
            return
        if lexicon := Lexicon.learn(self.sample.pairs()):
            lexicon.save(self.folder)
        else:
            self.report(f"data.clean.misaligned: not looked for, for that takes {FEWEST:,} different pairs")

    def _read(self) -> Iterator[Pair]:
        """The training pairs of all corpora, cleaned as far as that is quick; counts them."""
        dropped = Counter[int]()
        for number, corpus in enumerate(self.splits["train"]):
            self.pairs[corpus] = 0
            clean = Cleaner(self.recipe.data.of(corpus.entry), language=False)
            for block in blocks(number, _shown(corpus.pairs(), f"reading {corpus.name}"), True):
                self.pairs[corpus] += len(block.pairs)
                cleaned = clean(block.pairs)
                dropped.update(cleaned.reasons.tolist())
                kept = list(cleaned.kept())
                if self.recipe.data.clean.misaligned:
                    self.sample.add(kept)
                yield from kept
            if not self.pairs[corpus]:
                raise DataError(f"{corpus.files[0]}: the corpus is empty")
        if not dropped[0]:
            self._check_left({REASONS[code]: count for code, count in dropped.items()})

    def _check_left(self, dropped: Mapping[str, int]) -> None:
        """Raises `DataError` where pairs were dropped for what they hold, and none is left; blank ones hold nothing."""
        if reasons := [f"{count:,} {reason}" for reason, count in dropped.items() if reason != EMPTY]:
            pairs = f"{self.pairs.total():,} read from {self.splits['train'][0].name}"
            raise DataError(f"data.train: no pair is left of the {pairs} ({', '.join(reasons)}): see data.clean")

    def _encode(self, split: str, encode: Encode, sieve: Sieve) -> SplitRecord:
        """Encodes and writes a split, and accounts for what was dropped of it."""
        accounts = self.accounts[split] = [Account(corpus) for corpus in self.splits[split]]
        writer = ShardWriter(self.folder, split)
        for block, part in encode(self._chunks(split, accounts)):
            kept, account = part.kept, accounts[block.corpus]
            if part.hashes:
                places = np.flatnonzero(part.reasons == 0)
                part.reasons[places], overlaps = sieve(part.hashes, tag_of(account.corpus.entry))
                kept = select(kept, part.reasons[places] == 0)
                for key, found in overlaps.items():
                    account.show(f"{OVERLAP} with {key}", block.pairs, places[found])
            account.add(block.pairs, part.reasons, part.repaired)
            writer.add(kept)
        shards = writer.close()
        for account in accounts:
            first, *examples = account.told(self.recipe.data)
            for line in (f"{split}: {first}", *examples):
                self.report(line)
        if not shards:
            read = sum(account.read for account in accounts)
            raise DataError(f"data.{split}: no pair is left of the {read:,} read from {accounts[0].corpus.name}")
        return SplitRecord(corpora=tuple(account.record for account in accounts), shards=shards)

    def _chunks(self, split: str, accounts: list[Account]) -> Iterator[Block]:
        """The pairs of a split in blocks; the accounts count the units without a translation, which are none."""
        for number, corpus in enumerate(self.splits[split]):
            pairs = corpus.pairs(accounts[number].skipped)
            shown = _shown(pairs, f"encoding {corpus.name}", self.pairs.get(corpus))
            yield from blocks(number, shown, split == "train")


def _locate(recipe: Recipe) -> dict[str, list[Corpus]]:
    data = recipe.data
    entries = {"train": data.train, "valid": (data.valid,)}
    return {split: [locate(one, data.source, data.target) for one in several] for split, several in entries.items()}


def _tests(recipe: Recipe, report: Report) -> dict[str, Corpus]:
    """The test sets under their keys; one that is not there yet is told, unless it decides what is dropped."""
    data, tests = recipe.data, {}
    for name, entry in data.test.items():
        key = f"data.test.{name}"
        try:
            tests[key] = locate(entry, data.source, data.target)
        except DataError as error:
            if data.clean.overlap == "drop":
                raise
            report(not_read(key, error))
    return tests


def _kept(corpus: Corpus, folder: Path, report: Report) -> Corpus:
    """The same corpus, but of a file in `folder` where it comes from standard input, which can be read only once."""
    if corpus.files != (Path("-"),):
        return corpus
    make_folder(folder)
    copy = folder / STANDARD_INPUT
    report(f"{copy}: keeping what comes from standard input")
    keep_standard_input(copy)
    return replace(corpus, files=(copy,))


def _shown(pairs: Iterator[Pair], what: str, total: int | None = None) -> Iterator[Pair]:
    """The same pairs, with a bar that shows how far they are read where there is a terminal to show it on."""
    return iter(tqdm(pairs, what, total, leave=False, unit=" pairs", unit_scale=True, disable=None))
