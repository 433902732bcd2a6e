"""Pairs drawn from the training text, and a tokenizer for it: the prepared one, or one learned from these pairs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from tqdm import tqdm

from nmt.data.changes import reason_to_prepare
from nmt.data.encoding import blocks
from nmt.errors import DataError
from nmt.recipe import Layout, Recipe
from nmt.text import Corpus, Tokenizer, Tokenizers, train_tokenizer
from nmt.text.cleaning import Cleaner
from nmt.text.corpora import Pair
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
    files = [path for corpus in (*train, *read) for path in corpus.files]
    return Tokenizers.load(folder) if reason_to_prepare(folder, recipe, files) is None else None


def learned(recipe: Recipe, train: Sequence[Corpus], draw: Draw, sample: int | None) -> tuple[Tokenizers, int]:
    """Tokenizers learned from drawn pairs, cleaned as far as that is quick, and how many pairs there were of these.

    With no more pairs than are drawn they are those that `nmt prepare` learns. Raises `DataError` where the text has
    no words, or too few for so many entries.
    """
    clean = Cleaner(recipe.data, language=False)
    kept = list(clean(draw.pairs).kept())
    if not kept:
        raise DataError(f"data.train: no pair is left of the {draw.read.total():,} read: see data.clean")
    try:
        return _learn(recipe, kept), len(kept)
    except DataError:
        if draw.complete:
            raise
    # There are perhaps too few words in a part of the text for so many entries: what prepare takes is enough.
    read = blocks(0, (pair for _, pair in _numbered(train, sample, Counter())), True)
    whole = (pair for block in read for pair in clean(block.pairs).kept())
    kept = reservoir(whole, -(-recipe.tokenizer.sample // 2), recipe.seed)
    return _learn(recipe, kept), len(kept)


def _learn(recipe: Recipe, pairs: Sequence[Pair]) -> Tokenizers:
    if recipe.tokenizer.shared:
        shared = _learn_one(recipe, (side for pair in pairs for side in pair))
        return Tokenizers(shared, shared)
    source, target = (_learn_one(recipe, (pair[side] for pair in pairs)) for side in (0, 1))
    return Tokenizers(source, target)


def _learn_one(recipe: Recipe, lines: Iterable[str]) -> Tokenizer:
    asked = recipe.tokenizer
    model = train_tokenizer(
        lines,
        asked.vocab_size,
        character_coverage=asked.character_coverage,
        split_by_unicode_script=asked.split_by_unicode_script,
        sample=asked.sample,
        seed=recipe.seed,
    )
    return Tokenizer(model)
