"""Every choice of a model learns: a small task whose answer is known, to say a sequence backwards."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nmt import recipe as recipes
from nmt.data.batches import Chunk, pack_sources
from nmt.ids import BOS, EOS, SPECIALS
from nmt.model.cache import Decoding
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.search import Settings, beam_search
from nmt.training import learner

SYMBOLS = 10
UPDATES, PEAK = 400, 0.005

RECIPE = """
run: none
data: {source: forwards, target: backwards, train: none, valid: none}
tokenizer: {vocab_size: 300}
model: {layers: 2, d_model: 64, heads: 4, d_ffn: 128, dropout: 0}
train: {label_smoothing: 0}
"""

VARIANTS = [
    [],
    ["positions=learned", "max_positions=300"],
    ["positions=relative", "max_distance=8"],
    ["positions=rotary"],
    ["positions=alibi"],
    ["norm=pre"],
    ["norm_type=rms"],
    ["activation=gelu"],
    ["activation=swiglu", "d_ffn=96"],
    ["d_k=8", "d_v=32"],
    ["heads=1"],
    ["window=4"],
    ["layers={encoder: 3, decoder: 1}"],
    ["embeddings=separate"],
    ["attention_dropout=0.02", "activation_dropout=0.02", "dropout=0.02"],
]

Sequence = NDArray[np.int64]


def drawn(draw: np.random.Generator, count: int) -> list[Sequence]:
    return [draw.integers(SPECIALS, SPECIALS + SYMBOLS, draw.integers(2, 9)) for _ in range(count)]


def chunk(sequences: list[Sequence]) -> Chunk:
    lengths = np.array([len(x) + 1 for x in sequences])
    source = np.concatenate([np.append(x, EOS) for x in sequences])
    fed = np.concatenate([np.insert(x[::-1], 0, BOS) for x in sequences])
    said = np.concatenate([np.append(x[::-1], EOS) for x in sequences])
    return Chunk(source, lengths, fed, said, lengths)


def answers(model: Transformer, sequences: Iterable[Sequence]) -> list[list[int]]:
    """What greedy search says."""
    model.eval()
    stream, lengths = pack_sources([x.tolist() for x in sequences])
    with torch.inference_mode():
        decoding = Decoding(model, torch.from_numpy(stream), Cut.of(lengths))
        return [best[0].ids for best in beam_search(decoding, [12] * len(lengths), Settings(beam=1))]


@pytest.mark.slow
@pytest.mark.parametrize("choices", VARIANTS, ids=lambda choices: " ".join(choices) or "the paper's")
def test_every_variant_learns_to_say_a_sequence_backwards(choices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipes.loads(RECIPE, overrides=[f"model.{choice}" for choice in choices])
    monkeypatch.setattr(  # up, and down to nothing, so that the last updates settle what is learned
        learner, "learning_rate", lambda _, step: PEAK * min(step / 50, (UPDATES + 1 - step) / (UPDATES - 50))
    )
    torch.manual_seed(1)
    model = Transformer(recipe.model, SPECIALS + SYMBOLS, SPECIALS + SYMBOLS)
    learns = learner.Learner(recipe, model, torch.device("cpu"), torch.float32)
    draw = np.random.default_rng(1)
    for step in range(1, UPDATES + 1):
        learns.apply(step, learns.gradients(step, {0: chunk(drawn(draw, 80))}))
    held_out = drawn(np.random.default_rng(2), 300)
    right = [said == x[::-1].tolist() for said, x in zip(answers(model, held_out), held_out, strict=True)]
    assert np.mean(right) >= 0.99
