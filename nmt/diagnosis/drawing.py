"""Pairs drawn from the training text, and a tokenizer for it: the prepared one, or one learned from these pairs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby, islice
from typing import NamedTuple

from tqdm import tqdm

from nmt.data.changes import reason_to_prepare
from nmt.data.encoding import blocks
from nmt.data.vocabulary import reused, vocabulary
from nmt.errors import DataError
from nmt.recipe import Layout, Recipe
from nmt.text import Corpus, Tokenizers
from nmt.text.cleaning import Cleaner
from nmt.text.corpora import Pair
from nmt.text.lexicon import Lexicon, Sample
from nmt.text.sampling import reservoir
from nmt.text.tokenizer import LONGEST_SAMPLE

DRAWN = 100_000  # pairs

watched = partial(tqdm, leave=False, unit=" pairs", unit_scale=True, disable=None)


class Draw(NamedTuple):
    """Pairs of the training text, each drawn with equal chance, cut where they are very long.

    `read` has how many pairs each corpus has, by its place among the others.
    """

    numbered: list[tuple[int, Pair]]
    read: Counter[int]

    @classmethod
    def of(cls, train: Sequence[Corpus], seed: int, sample: int | None) -> "Draw":
        """Reads the corpora, each up to `sample` pairs. Raises `DataError` for one that is empty."""
        read = Counter[int]()
        drawn = reservoir(_numbered(train, sample, read), DRAWN, seed)
        for number, corpus in enumerate(train):
            if not read[number]:
                raise DataError(f"{corpus.files[0]}: the corpus is empty")
        return cls(drawn, read)

    def from_corpus(self, corpus: int) -> list[Pair]:
        """Those of a corpus, by its place among the others."""
        return [pair for number, pair in self.numbered if number == corpus]

    @property
    def pairs(self) -> list[Pair]:
        """All of them."""
        return [pair for _, pair in self.numbered]

    @property
    def complete(self) -> bool:
        """Whether no pair was left out."""
        return len(self.numbered) == self.read.total()


def _numbered(train: Sequence[Corpus], sample: int | None, read: Counter[int]) -> Iterator[tuple[int, Pair]]:
    for number, corpus in enumerate(train):
        for source, target in watched(islice(corpus.pairs(), sample), f"reading {corpus.name}"):
            read[number] += 1
            yield number, (source[:LONGEST_SAMPLE], target[:LONGEST_SAMPLE])


def prepared(recipe: Recipe, train: Sequence[Corpus], held_out: Sequence[Corpus]) -> Tokenizers | None:
    """The tokenizers that `nmt prepare` has made, if they are those of this recipe and this text."""
    folder = Layout.of(recipe).data
    read = held_out if recipe.data.clean.overlap == "drop" else held_out[:1]  # valid is the first
    files = [*reused(recipe), *(path for corpus in (*train, *read) for path in corpus.files)]
    return Tokenizers.load(folder) if reason_to_prepare(folder, recipe, files) is None else None


def lexicon_of(recipe: Recipe, train: Sequence[Corpus], draw: Draw) -> Lexicon | None:
    """What tells misaligned pairs, learned from drawn pairs; None where they are too few, or it is not asked for."""
    if not recipe.data.clean.misaligned:
        return None
    sample = Sample()
    sample.add([*_cleaned(draw, [Cleaner(recipe.data.of(corpus.entry), language=False) for corpus in train])])
    return Lexicon.learn(sample.pairs())


def _cleaned(draw: Draw, cleaners: Sequence[Cleaner]) -> Iterator[Pair]:
    return (pair for number, clean in enumerate(cleaners) for pair in clean(draw.from_corpus(number)).kept())


def learned(recipe: Recipe, train: Sequence[Corpus], draw: Draw, sample: int | None) -> tuple[Tokenizers, int]:
    """Tokenizers learned from drawn pairs, cleaned as far as that is quick, and how many pairs there were of these.

    With no more pairs than are drawn they are those that `nmt prepare` learns. Raises `DataError` where the text has
    no words, or too few for so many entries.
    """
    cleaners = [Cleaner(recipe.data.of(corpus.entry), language=False) for corpus in train]
    kept = [*_cleaned(draw, cleaners)]
    if not kept:
        raise DataError(f"data.train: no pair is left of the {draw.read.total():,} read: see data.clean")
    try:
        return vocabulary(recipe, lambda: kept, _say_nothing), len(kept)
    except DataError:
        if draw.complete:
            raise
    # There are perhaps too few words in a part of the text for so many entries: what prepare takes is enough.
    numbered = _numbered(train, sample, Counter())
    whole = (
        pair
        for number, some in groupby(numbered, key=lambda one: one[0])
        for block in blocks(number, (pair for _, pair in some), True)
        for pair in cleaners[number](block.pairs).kept()
    )
    kept = reservoir(whole, -(-recipe.tokenizer.sample // 2), recipe.seed)
    return vocabulary(recipe, lambda: kept, _say_nothing), len(kept)


def _say_nothing(line: str) -> None:
    """What prepare tells, check does not."""
