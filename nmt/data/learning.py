"""The first look at all text: where its parts lie, and the subwords learned from a sample of it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nmt.data.encoding import blocks
from nmt.data.parts import Cutter
from nmt.data.shards import record_files
from nmt.data.unfinished import Survey
from nmt.data.vocabulary import vocabulary
from nmt.errors import DataError
from nmt.recipe import Recipe
from nmt.text import Corpus
from nmt.text.cleaning import EMPTY, REASONS, Cleaner
from nmt.text.corpora import Pair
from nmt.text.lexicon import FEWEST, LEXICON, SAMPLE, Lexicon, Sample
from nmt.text.sampling import reservoir
from nmt.text.tokenizer import LONGEST_SAMPLE

LEARNED = ("tokenizer*.model", LEXICON)  # the files of what is learned

Report = Callable[[str], None]
Numbered = tuple[int, str, str]  # a pair, after the number of its corpus


def look_through(recipe: Recipe, splits: Mapping[str, Sequence[Corpus]], folder: Path, report: Report) -> Survey:
    """Reads all text once; learns the tokenizers from the training text, and writes them into `folder`.

    Raises `DataError` for text that cannot be used.
    """
    look = _Look(recipe, splits, report)
    look.learn(folder)
    learned = [path.name for pattern in LEARNED for path in folder.glob(pattern)]
    for split in splits:
        for _ in look.read(split):
            pass
    return Survey(
        parts=tuple(part for split in splits for part in look.cutters[split].parts()),
        skipped={split: tuple(map(dict, counts)) for split, counts in look.skipped.items()},
        learned=record_files(folder, learned),
    )


class _Look:
    """One reading of each split."""

    def __init__(self, recipe: Recipe, splits: Mapping[str, Sequence[Corpus]], report: Report) -> None:
        self._recipe, self._splits, self._report = recipe, splits, report
        self._unread = {*splits}
        self._sample = Sample()  # what the lexicon is learned from
        self.cutters = {split: Cutter(split) for split in splits}
        self.skipped = {split: [Counter[str]() for _ in corpora] for split, corpora in splits.items()}

    def read(self, split: str) -> Iterator[Numbered]:
        """The pairs of a split with the numbers of their corpora, the first time; then none."""
        if split not in self._unread:
            return
        self._unread.remove(split)
        for number, corpus in enumerate(self._splits[split]):
            read = 0
            text = corpus.pairs(self.skipped[split][number])
            with bar(f"reading {corpus.name}") as shown:
                for block in self.cutters[split].read(number, text):
                    read += len(block.pairs)
                    shown.update(len(block.pairs))
                    yield from ((number, *pair) for pair in block.pairs)
            if split == "train" and not read:
                raise DataError(f"{corpus.files[0]}: the corpus is empty")

    def learn(self, folder: Path) -> None:
        """Learns from a sample of the training pairs what is learned, and writes it: tokenizers, and the lexicon."""
        drawn: list[Numbered] = []

        def sample() -> Iterator[Pair]:
            drawn.extend(self._draw())  # the second time there is nothing more to read
            return self._cleaned(drawn)

        vocabulary(self._recipe, sample, self._report).save(folder)
        if not self._recipe.data.clean.misaligned:
            return
        if not drawn:  # a tokenizer that is reused has asked for no text
            for _ in sample():
                pass
        drawn.clear()
        if lexicon := Lexicon.learn(self._sample.pairs()):
            lexicon.save(folder)
        else:
            self._report(f"data.clean.misaligned: not looked for, for that takes {FEWEST:,} different pairs")

    def _draw(self) -> list[Numbered]:
        beginnings = ((number, a[:LONGEST_SAMPLE], b[:LONGEST_SAMPLE]) for number, a, b in self.read("train"))
        asked = self._recipe.tokenizer
        most = max(1, asked.sample // 2) if asked.shared else asked.sample
        if self._recipe.data.clean.misaligned:
            most = max(most, SAMPLE)
        return reservoir(beginnings, most, self._recipe.seed)

    def _cleaned(self, drawn: Sequence[Numbered]) -> Iterator[Pair]:
        """The pairs that are left, cleaned as far as that is quick.

        Raises `DataError` where pairs were dropped for what they hold, and none is left; blank ones hold nothing.
        """
        dropped = Counter[int]()
        for number, some in groupby(sorted(drawn, key=itemgetter(0)), itemgetter(0)):
            clean = Cleaner(self._recipe.data.of(self._splits["train"][number].entry), language=False)
            for block in blocks(number, ((source, target) for _, source, target in some), True):
                cleaned = clean(block.pairs)
                dropped.update(cleaned.reasons.tolist())
                kept = list(cleaned.kept())
                if self._recipe.data.clean.misaligned:
                    self._sample.add(kept)
                yield from kept
        told = [f"{count:,} {REASONS[code]}" for code, count in dropped.items() if REASONS[code] not in ("", EMPTY)]
        if told and not dropped[0]:
            read = f"{len(drawn):,} read from {self._splits['train'][0].name}"
            raise DataError(f"data.train: no pair is left of the {read} ({', '.join(told)}): see data.clean")


def bar(what: str, total: int | None = None) -> "tqdm[Any]":
    """A bar on standard error that shows how many pairs are done, where there is a terminal to show it on."""
    return tqdm(None, what, total, leave=False, unit=" pairs", unit_scale=True, disable=None)
