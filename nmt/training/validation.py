"""What the valid corpus says of a model in training."""

from itertools import islice
from typing import NamedTuple

import numpy as np

from nmt.data.batches import pack, split
from nmt.data.shards import Shards
from nmt.evaluation import bleu
from nmt.recipe import Layout, Recipe
from nmt.text import Tokenizers, read_pairs
from nmt.training.learner import Learner
from nmt.translation import Translator


class Sample(NamedTuple):
    """One sentence of the valid corpus."""

    source: str
    reference: str
    translation: str


class Measurement(NamedTuple):
    """loss: -log p per target token, in nats. bleu and sample: of the sentences translated, None if there are none."""

    loss: float
    bleu: float | None = None
    sample: Sample | None = None


class Validation:
    """The valid corpus of a recipe, packed; and its first sentences as text."""

    def __init__(self, recipe: Recipe, tokenizers: Tokenizers, chunk_tokens: int) -> None:
        shards = Shards.open(Layout.of(recipe).data, "valid")
        parts = split(np.arange(len(shards)), shards.lengths, chunk_tokens)
        self._chunks = [pack(shards, part) for part in parts]
        pairs = read_pairs(recipe.data.valid, recipe.data.source, recipe.data.target)
        self._text = list(islice(pairs, recipe.train.valid_bleu))
        self._recipe, self._tokenizers = recipe, tokenizers

    def measure(self, learner: Learner, step: int) -> Measurement:
        """Loss and BLEU of the model as it is; the sample is another one each time."""
        loss = learner.negative_log_likelihood(self._chunks)
        if not self._text:
            return Measurement(loss)
        translator = Translator.of(learner.model, self._tokenizers, self._recipe, learner.device, learner.precision)
        translations = translator.translate(source for source, _ in self._text)
        score = bleu(translations, [reference for _, reference in self._text])
        place = step // self._recipe.train.valid_every % len(self._text)
        return Measurement(loss, score, Sample(*self._text[place], translations[place]))
