"""How large a recipe's model is."""

import torch

from nmt.errors import RecipeError
from nmt.model.transformer import Transformer
from nmt.recipe import Recipe


def parameter_count(recipe: Recipe) -> int:
    """Trained numbers of the recipe's model, each counted once; it is only drawn up, and takes no memory.

    Raises `RecipeError` where the size of the vocabulary is left to a tokenizer that is reused.
    """
    vocabulary = recipe.tokenizer.vocab_size  # of each side, where it is not shared
    if vocabulary is None:
        raise RecipeError("tokenizer.vocab_size: must be given, for the parameters to be counted")
    with torch.device("meta"):
        return Transformer(recipe.model, vocabulary, vocabulary).parameter_count()
