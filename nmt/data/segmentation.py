"""How the pairs of an update are cut into subwords: as they are stored, or anew with BPE-dropout."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmt.data.shards import Shards
from nmt.recipe import Recipe
from nmt.text import Tokenizers
from nmt.text.tokenizer import SEEDS

Ids = NDArray[np.int64]


class Segmented(NamedTuple):
    """The pairs of an update as ids, each under its place in the update; to be read as `Shards` are."""

    pairs: list[tuple[np.ndarray, np.ndarray]]

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The source and the target ids of the pair at this place, without BOS and EOS."""
        return self.pairs[index]

    @property
    def lengths(self) -> tuple[Ids, Ids]:
        """The number of source and of target tokens of each pair."""
        return np.array([len(source) for source, _ in self.pairs]), np.array([len(target) for _, target in self.pairs])


class Segmenter:
    """Gives the pairs of an update as shards hold them or, where `train.bpe_dropout` is set, cut anew each time.

    What a pair is cut into is a function of seed, step and its place in the update, whatever came before. The `Sampler`
    knows stored lengths only, so that with dropout an update has more tokens than `train.batch_tokens`: at 0.1 about a
    third more.
    """

    def __init__(self, shards: Shards, tokenizers: Tokenizers, recipe: Recipe) -> None:
        self._shards = shards
        self._tokenizers = tokenizers
        self._dropout = recipe.train.bpe_dropout
        self._longest = recipe.data.max_length
        self._seed = recipe.seed

    def update(self, step: int, pairs: Ids) -> Segmented:
        """The pairs of update `step`. One that would become longer than `data.max_length` stays as it is stored."""
        stored = [self._shards.pair(int(i)) for i in pairs]
        if not self._dropout:
            return Segmented(stored)
        sides = [
            tokenizer.resample([ids.tolist() for ids in texts], self._dropout, self._side_seed(step, side))
            for side, (tokenizer, texts) in enumerate(zip(self._tokenizers, zip(*stored, strict=True), strict=True))
        ]
        anew = [(np.array(source), np.array(target)) for source, target in zip(*sides, strict=True)]
        fit = [max(len(source), len(target)) <= self._longest for source, target in anew]
        return Segmented([new if fits else old for new, old, fits in zip(anew, stored, fit, strict=True)])

    def _side_seed(self, step: int, side: int) -> int:
        return int(np.random.default_rng([self._seed, step, side]).integers(SEEDS))
