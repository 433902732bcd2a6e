"""What the pairs of an update say and how they are cut into subwords: as they are stored, or anew each time."""

import random
from collections.abc import Callable
from operator import le
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmt.data.shards import Shards
from nmt.errors import DataError
from nmt.recipe import Recipe
from nmt.text import Tokenizers, tagged
from nmt.text.noise import Noise
from nmt.text.tokenizer import SEEDS

Ids = NDArray[np.int64]
Pairs = list[tuple[np.ndarray, np.ndarray]]  # source and target ids of each
Sides = list[list[np.ndarray]]  # the same as two lists


class Segmented(NamedTuple):
    """The pairs of an update as ids, each under its place in the update; to be read as `Shards` are."""

    pairs: Pairs

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The source and the target ids of the pair at this place, without BOS and EOS."""
        return self.pairs[index]

    @property
    def lengths(self) -> tuple[Ids, Ids]:
        """The number of source and of target tokens of each pair."""
        return np.array([len(source) for source, _ in self.pairs]), np.array([len(target) for _, target in self.pairs])


class Segmenter:
    """Gives the pairs of an update as shards hold them, or with `train.noise`, or with `train.bpe_dropout` cut anew.

    The noise of a pair is a function of seed, step and its number, whatever else is in the update; what a pair is cut
    into, of seed, step and the update. Neither depends on what came before. The `Sampler` knows stored lengths only, so
    that an update may have more tokens than `train.batch_tokens`: with a dropout of 0.1 about a third more.
    """

    def __init__(self, shards: Shards, tokenizers: Tokenizers, recipe: Recipe) -> None:
        self._shards = shards
        self._tokenizers = tokenizers
        self._noise = Noise(recipe.train.noise, recipe.data.source)
        self._tags = sorted(recipe.data.tags, key=len, reverse=True)
        self._dropout = recipe.train.bpe_dropout
        self._longest = recipe.data.longest_source, recipe.data.max_length
        if self._dropout and not (tokenizers.source.is_bpe and tokenizers.target.is_bpe):
            raise DataError("train.bpe_dropout: must be 0, for the tokenizer is no BPE but of another kind")
        self._seed = recipe.seed

    def update(self, step: int, pairs: Ids) -> Segmented:
        """The pairs of update `step`. One that would become longer than `data.max_length` stays as it was."""
        segmented = [self._shards.pair(int(i)) for i in pairs]
        if self._noise:
            segmented = self._fitting(segmented, self._noised(step, pairs, segmented))
        if self._dropout:
            segmented = self._fitting(segmented, self._resampled(step, segmented))
        return Segmented(segmented)

    def _noised(self, step: int, numbers: Ids, pairs: Pairs) -> Sides:
        """Both sides with noise; a line that it does not touch keeps its ids."""
        sides = list(zip(*pairs, strict=True))
        texts = [
            tokenizer.decode([ids.tolist() for ids in side])
            for tokenizer, side in zip(self._tokenizers, sides, strict=True)
        ]
        changed = [
            self._noisy(pair, random.Random(f"{self._seed} {step} {number}").random)
            for number, pair in zip(numbers, zip(*texts, strict=True), strict=True)
        ]
        noised: Sides = []
        for tokenizer, side, old, new in zip(self._tokenizers, sides, texts, zip(*changed, strict=True), strict=True):
            hit = [place for place in range(len(old)) if new[place] != old[place]]
            anew = dict(zip(hit, tokenizer.encode([new[place] for place in hit]), strict=True))
            noised.append([np.array(anew[place]) if place in anew else ids for place, ids in enumerate(side)])
        return noised

    def _noisy(self, pair: tuple[str, str], draw: Callable[[], float]) -> tuple[str, str]:
        """A pair of lines with noise; the tag before the source stays as it is."""
        tag = next((tag for tag in self._tags if pair[0].startswith(f"{tag} ")), "")
        source, target = self._noise((pair[0].removeprefix(f"{tag} "), pair[1]), draw)
        return tagged(tag, source), target

    def _resampled(self, step: int, pairs: Pairs) -> Sides:
        """Both sides cut anew, with BPE-dropout."""
        return [
            [
                np.array(ids)
                for ids in tokenizer.resample([ids.tolist() for ids in side], self._dropout, self._side_seed(step, n))
            ]
            for n, (tokenizer, side) in enumerate(zip(self._tokenizers, zip(*pairs, strict=True), strict=True))
        ]

    def _fitting(self, old: Pairs, new: Sides) -> Pairs:
        """The new pairs, but for those that are too long to be trained on."""
        fit = (all(map(le, map(len, pair), self._longest)) for pair in zip(*new, strict=True))
        return [pair if fits else was for pair, was, fits in zip(zip(*new, strict=True), old, fit, strict=True)]

    def _side_seed(self, step: int, side: int) -> int:
        return int(np.random.default_rng([self._seed, step, side]).integers(SEEDS))
