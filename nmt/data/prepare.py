"""From raw parallel text to a vocabulary and shards of token ids: what `nmt prepare` does."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path

from nmt.data.accounts import Account, not_read, warn_of_entities, warnings, write_examples
from nmt.data.changes import choices, reason_to_prepare
from nmt.data.encoding import encoding
from nmt.data.joining import Joiner
from nmt.data.learning import Report, bar, look_through
from nmt.data.parts import Made, Part, PartWriter, text_of
from nmt.data.shards import DROPPED, FILES, FORMAT, Manifest, SplitRecord, record_files
from nmt.data.sieve import HeldOut
from nmt.data.unfinished import WHOLE, Survey, Unfinished
from nmt.data.vocabulary import reused
from nmt.errors import DataError, NmtError, OutputError
from nmt.files import check_place, make_folder, put_folder, refusals_told, remove
from nmt.processes import Shard, cores
from nmt.recipe import Layout, Recipe
from nmt.text import Corpus, Tokenizers, locate
from nmt.text.cleaning import Cleaner
from nmt.text.opening import keep_standard_input

STANDARD_INPUT = "standard-input"  # its copy in the run folder


def tell(line: str) -> None:
    """Prints a line of progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def prepare(
    recipe: Recipe,
    *,
    workers: int | None = None,
    force: bool = False,
    shard: str | None = None,
    merge: bool = False,
    report: Report = tell,
) -> Manifest | None:
    """Learns the vocabulary and writes the shards of a recipe into the folder `data` of its run.

    Does nothing where that is done and neither the recipe's choices nor the text have changed since, unless
    `force`. `workers` processes encode, by default one per core; their number does not change a byte of the
    result. `report` is given lines that say what was read, dropped and written, and what training text shares with
    held-out corpora; `dropped.txt` has more examples. What comes from standard input is kept in the run folder as
    `standard-input`, for text is read more than once.

    What is done lies in a folder beside, `data.partial`, until all is. Who prepares the same again after being
    interrupted goes on from there, and comes to the same bytes; `force` begins anew.
    `shard`, such as "2/8", makes only a share of the parts there and does not join them; others may make the other
    shares at the same time, on other machines that see the same folder. Without it, what parts are missing are made
    and all are joined; `merge` refuses to make any.
    Raises `DataError` for text that cannot be used, and for parts that are missing or damaged if told to `merge`;
    `OutputError` for a folder that cannot be written, or in which another process is at work; and `NmtError` for a
    worker that dies. What was prepared before then stays as it was. Gives the manifest, once there is one.
    """
    share = Shard.parse(shard) if shard else None
    if share and merge:
        raise NmtError("--shard and --merge: give one of them: a share is made, or all of them are joined")
    folder = Layout.of(recipe).data
    splits = {
        split: [_kept(one, folder.parent, report, share) for one in several]
        for split, several in _locate(recipe).items()
    }
    tests = _tests(recipe, report)
    read = [*splits.values(), tests.values()] if recipe.data.clean.overlap == "drop" else splits.values()
    files = [*reused(recipe), *(path for corpora in read for corpus in corpora for path in corpus.files)]
    unfinished = Unfinished(folder, recipe, files)
    reason = "as told" if force else reason_to_prepare(folder, recipe, files)
    if reason is None:
        report(f"{folder}: prepared already, and nothing has changed since")
        manifest = Manifest.load(folder)
        for key in tests.keys() - manifest.overlap.keys():
            report(f"{key}: not compared with the training text yet: nmt prepare --force does it")
        unfinished.clear()
        return manifest
    report(f"{folder}: preparing {reason}")
    for corpus in recipe.data.train:
        Cleaner(recipe.data.of(corpus))  # what it lacks is told here, not by a worker
    make_folder(folder.parent)
    check_place(folder, FILES)
    with refusals_told(folder, unfinished.folder):
        job = _Preparation(recipe, splits, tests, folder, unfinished, report)
        if share:
            job.make_share(share, workers or cores())
            return None
        return job.merge() if merge else job.make_all(workers or cores(), anew=force)


class _Preparation:
    """One preparation of a recipe."""

    def __init__(
        self,
        recipe: Recipe,
        splits: dict[str, list[Corpus]],
        tests: dict[str, Corpus],
        folder: Path,
        unfinished: Unfinished,
        report: Report,
    ) -> None:
        self.recipe, self.splits, self.tests = recipe, splits, tests
        self.folder, self.unfinished, self.report = folder, unfinished, report

    def make_all(self, workers: int, anew: bool) -> Manifest:
        """From what there is of it to the end. What cannot be used is not kept."""
        with self.unfinished.alone():
            try:
                self._begin(alone=True, anew=anew)
                held_out = list(self._held_out())
                survey = self._survey()
                lacking, _ = self._lacking(survey, survey.parts)
                if there := len(survey.parts) - len(lacking):
                    self.report(f"going on: {there} of {len(survey.parts)} parts are there already")
                self._make(lacking, survey, workers)
                return self._join(survey, held_out)
            except DataError:
                self.unfinished.remove()
                raise

    def make_share(self, shard: Shard, workers: int) -> None:
        """The parts of one process of several."""
        with self.unfinished.sharing(shard, self._begin_together):
            survey = self._survey()
            ours = survey.parts[shard.number - 1 :: shard.total]
            lacking, _ = self._lacking(survey, ours)
            there = len(ours) - len(lacking)
            self.report(f"shard {shard}: {len(ours)} of {len(survey.parts)} parts, {there} of them there already")
            self._make(lacking, survey, workers)
            self.report(f"shard {shard}: done; when all are, nmt prepare --merge joins them")

    def merge(self) -> Manifest:
        """Joins parts that are all there already."""
        if not self.unfinished.folder.exists():
            raise DataError(f"{self.unfinished.folder}: nothing to merge: run nmt prepare --shard first")
        with self.unfinished.alone():
            changed, survey = self.unfinished.difference(), self.unfinished.survey()
            if changed or not survey:
                why = changed or "no tokenizer is there, or it is damaged"
                raise DataError(f"{self.unfinished.folder}: nothing to merge: {why}: run nmt prepare --shard first")
            _, faults = self._lacking(survey, survey.parts)
            if faults:
                more = f" (and {len(faults) - 1} more like it)" if len(faults) > 1 else ""
                mend = "run nmt prepare --shard again, or without --merge, which makes what is lacking"
                raise DataError(f"{faults[0]}{more}: {mend}")
            return self._join(survey, list(self._held_out()))

    def _begin_together(self, alone: bool) -> None:
        self._begin(alone)
        self._survey()

    def _begin(self, alone: bool, anew: bool = False) -> None:
        """Goes on with what is there if that is for the same choices and text; else begins anew."""
        changed = self.unfinished.difference()
        if not changed and not anew:
            return
        if not alone:
            raise OutputError(
                f"{self.unfinished.folder}: others are at work, on something else: {changed}: wait for them"
            )
        self.unfinished.begin()

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

    def _survey(self) -> Survey:
        """The first look at all text, with the tokenizers; taken only if it has not been."""
        survey = self.unfinished.survey()
        if survey is None:
            survey = look_through(self.recipe, self.splits, self.unfinished.folder, self.report)
            self.unfinished.check_inputs()
            self.unfinished.save_survey(survey)
        return survey

    def _lacking(self, survey: Survey, parts: Sequence[Part]) -> tuple[list[Part], list[str]]:
        """Those of the parts that are not there and whole, and what is wrong with each."""
        lacking, faults = [], []
        for part in parts:
            try:
                Made.check(self.unfinished.folder, part, survey.learned)
            except DataError as error:
                lacking.append(part)
                faults.append(str(error))
        return lacking, faults

    def _make(self, parts: Sequence[Part], survey: Survey, workers: int) -> None:
        """Encodes parts and writes them, one after the other."""
        if not parts:
            return
        folder = self.unfinished.folder
        text = chain.from_iterable(text_of(parts, split, corpora) for split, corpora in self.splits.items())
        pairs = sum(part.pairs for part in parts)
        with encoding(folder, self.recipe.data, workers) as encode, bar("encoding", pairs) as shown:
            for place, done in groupby(encode(text), key=lambda one: one[0].part):
                with PartWriter(folder, parts[place], survey.learned) as writer:
                    for block, encoded in done:
                        writer.add(block, encoded)
                        shown.update(len(block.pairs))
                    self.unfinished.check_inputs()
                    writer.close()

    def _join(self, survey: Survey, held_out: Sequence[HeldOut]) -> Manifest:
        """Joins the parts, and puts what comes of them in its place, which is the last that is done."""
        data, new = self.recipe.data, self.unfinished.folder / WHOLE
        remove(new)
        new.mkdir()
        tokenizers = Tokenizers.load(self.unfinished.folder)
        for name in survey.learned:
            shutil.copyfile(self.unfinished.folder / name, new / name)
        joiner = Joiner(self.unfinished.folder, survey, data.clean, held_out)
        splits, accounts = {}, {}
        for split, corpora in self.splits.items():
            splits[split], accounts[split] = joiner.join(split, corpora, new)
            self._tell(split, splits[split], accounts[split])
        overlap = {held.key: held.record for held in held_out}
        for key, found in overlap.items():
            for line in warnings(key, found, data.clean.overlap == "drop", accounts["train"]):
                self.report(line)
        self.unfinished.check_inputs()
        manifest = Manifest(
            format=FORMAT,
            choices=choices(self.recipe),
            inputs=self.unfinished.inputs,
            vocabulary={"source": tokenizers.source.vocab_size, "target": tokenizers.target.vocab_size},
            splits=splits,
            overlap=overlap,
            files=record_files(new),
        )
        write_examples(new / DROPPED, accounts["train"])
        manifest.save(new)
        put_folder(new, self.folder)
        self.unfinished.remove()
        for name, record in splits.items():
            tokens = f"{record.source_tokens:,} source and {record.target_tokens:,} target tokens"
            self.report(f"{name}: {record.pairs:,} pairs of {tokens}, in {len(record.shards)} shard(s)")
        return manifest

    def _tell(self, split: str, record: SplitRecord, accounts: Sequence[Account]) -> None:
        """Says what became of the pairs. Raises `DataError` where none is left."""
        for account in accounts:
            first, *examples = account.told(self.recipe.data)
            for line in (f"{split}: {first}", *examples):
                self.report(line)
        if not record.shards:
            read = sum(account.read for account in accounts)
            raise DataError(f"data.{split}: no pair is left of the {read:,} read from {accounts[0].corpus.name}")


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


def _kept(corpus: Corpus, folder: Path, report: Report, shard: Shard | None) -> Corpus:
    """The same corpus, but of a file in `folder` where it comes from standard input, which can be read only once."""
    if corpus.files != (Path("-"),):
        return corpus
    if shard:
        raise DataError("standard input: cannot be shared out by --shard: write it to a file first")
    make_folder(folder)
    copy = folder / STANDARD_INPUT
    report(f"{copy}: keeping what comes from standard input")
    keep_standard_input(copy)
    return replace(corpus, files=(copy,))
