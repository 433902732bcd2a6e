"""How much goes through a model at once: by a rule, and on a GPU as much of that as its memory takes."""

import math

import numpy as np
import torch

from nmt.data.batches import Chunk
from nmt.ids import BOS, EOS, SPECIALS
from nmt.model.views import why_padded
from nmt.recipe import Recipe
from nmt.training.learner import Learner
from nmt.training.optimizer import kept_numbers
from nmt.training.world import World

FEWEST = 256  # tokens below which nothing more is tried: what is the matter then is told when training begins


def chunk_tokens(recipe: Recipe, device: torch.device, precision: torch.dtype, world: World) -> int:
    """Tokens a side to go through the model at once: what the recipe says, or else such that no process has none.

    Short chunks hold sentences of like length, so little is padded where attention is (2048 trained a fifth faster than
    4096 on two CPU cores); CUDA's kernel for bf16 does not pad, and fills with long ones.
    """
    if recipe.train.chunk_tokens != "auto":
        return recipe.train.chunk_tokens
    most = 4096 if why_padded(recipe.model, device, precision) else 32768
    alone = 2048 if device.type == "cpu" else most
    # A little more than an equal share, for sides differ, and one chunk for each process is best.
    return alone if world.size == 1 else min(alone, math.ceil(1.2 * recipe.train.batch_tokens / world.size))


def fitting(recipe: Recipe, learner: Learner, tokens: int, new: bool = True) -> int:
    """So many tokens, or the largest of their halves whose gradients find room on the device, with all else there.

    They are tried on made-up pairs as long as pairs may be. `new`: the optimizer has not kept anything yet. Several
    processes agree on what suits all.
    """
    kept = 4 * kept_numbers(recipe, learner.model) if new else 0
    tried = min(tokens, recipe.train.batch_tokens)  # there are no more to an update
    longest = min(max(recipe.data.longest_source, recipe.data.max_length) + 1, recipe.model.longest)
    while tried > FEWEST and not learner.fits(_made_up(longest, tried, learner), kept):
        tokens = tried = tried // 2
    return min(learner.world.gather(tokens))


def _made_up(longest: int, tokens: int, learner: Learner) -> Chunk:
    """Pairs of this length, EOS counted, with so many tokens a side; their words are drawn."""
    lengths = np.full(-(-tokens // longest), longest)
    draw = np.random.default_rng(0)
    ends = lengths.cumsum() - 1
    source = draw.integers(SPECIALS, len(learner.model.encoder.embedding.table.weight), lengths.sum())
    said = draw.integers(SPECIALS, len(learner.model.projection), lengths.sum())
    source[ends] = said[ends] = EOS
    fed = np.roll(said, 1)
    fed[ends - longest + 1] = BOS
    return Chunk(source, lengths, fed, said, lengths)
