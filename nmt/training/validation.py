"""What the valid corpus says of a model in training."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nmt.data.batches import Ids, pack, split
from nmt.data.shards import Shards
from nmt.errors import DataError
from nmt.evaluation import bleu, chrf
from nmt.recipe import Layout, Recipe, tag_of
from nmt.text import Tokenizers, read_pairs
from nmt.training.entropy import attention_entropy
from nmt.training.learner import Learner
from nmt.translation import Translator

FEW_TOKENS = 2048  # a side, from which attention is judged: it goes the slow way to be seen
SAMPLES = 5  # sentences whose translations are kept each time, so that one can see the model learn


class Sample(NamedTuple):
    """One sentence of the valid corpus."""

    source: str
    reference: str
    translation: str


class Measurement(NamedTuple):
    """loss: -log p per target token, in nats. bleu, chrf: of the sentences translated, None if there are none.

    attention_entropy: as `nmt.training.entropy` has it, of some sentences. samples: some of the translations, always of
    the same sentences; `shown` is the place of one among them, another each time.
    """

    loss: float
    attention_entropy: dict[str, list[float]]
    bleu: float | None = None
    chrf: float | None = None
    samples: Sequence[Sample] = ()
    shown: int = 0


class Validation:
    """The valid corpus of a recipe, packed; and some of its sentences as text."""

    def __init__(self, recipe: Recipe, tokenizers: Tokenizers, chunk_tokens: int) -> None:
        shards = Shards.open(Layout.of(recipe).data, "valid")
        _check_lengths(recipe, shards)
        parts = split(np.arange(len(shards)), shards.lengths, chunk_tokens)
        self._chunks = [pack(shards, part) for part in parts]
        self._few = pack(shards, _first(shards, FEW_TOKENS))
        pairs = list(read_pairs(recipe.data.valid, recipe.data.source, recipe.data.target))
        count = min(len(pairs), recipe.train.valid_bleu)
        self._text = [pairs[len(pairs) * i // count] for i in range(count)]  # from all over the corpus
        self._recipe, self._tokenizers = recipe, tokenizers

    def measure(self, learner: Learner, step: int) -> Measurement:
        """Loss, BLEU and chrF++ of the model as it is, and how it translates some sentences."""
        loss = learner.negative_log_likelihood(self._chunks)
        entropy = attention_entropy(learner, self._few)
        if not self._text:
            return Measurement(loss, entropy)
        translator = Translator.of(
            learner.measured, self._tokenizers, self._recipe, learner.device, learner.precision, _ignore
        )
        translator.static, translator.room = False, "decode.batch_size"  # the memory is training's
        sources = (source for source, _ in self._text)
        translations = translator.translate(sources, tag=tag_of(self._recipe.data.valid), on_suspect="off")
        references = [reference for _, reference in self._text]
        scores = bleu(translations, references), chrf(translations, references)
        some = min(SAMPLES, len(self._text))
        places = [len(self._text) * i // some for i in range(some)]
        samples = [Sample(*self._text[place], translations[place]) for place in places]
        return Measurement(loss, entropy, *scores, samples, step // self._recipe.train.valid_every % some)


def _check_lengths(recipe: Recipe, shards: Shards) -> None:
    """Raises `DataError` where a sentence is beyond learned positions; of the valid corpus none is ever dropped."""
    lengths = np.stack(shards.lengths).max(0)
    if (tokens := int(lengths.max(initial=0))) >= recipe.model.longest:
        raise DataError(
            f"data.valid: line {int(lengths.argmax()) + 1} has {tokens} tokens, and a model with "
            f"{recipe.model.longest} learned positions (model.max_positions) can take {recipe.model.longest - 1}: "
            "shorten it, or learn more positions"
        )


def _first(shards: Shards, tokens: int) -> Ids:
    """The first pairs that have no more tokens than this on either side; at least one."""
    ends = np.stack(shards.lengths).astype(np.int64) + 1
    return np.arange(max(1, int((ends.cumsum(1) <= tokens).all(0).sum())))


def _ignore(warning: str) -> None:
    """Long sentences are no news during training."""
