"""How large a recipe's model is."""

import torch

from nmt.model.transformer import Transformer
from nmt.recipe import Recipe


def parameter_count(recipe: Recipe) -> int:
    """Trained numbers of the recipe's model, each counted once; it is only drawn up, and takes no memory."""
    vocabulary = recipe.tokenizer.vocab_size  # of each side, where it is not shared
    with torch.device("meta"):
        return Transformer(recipe.model, vocabulary, vocabulary).parameter_count()
