"""How large a recipe's model is."""

import torch

from nmt.errors import RecipeError
from nmt.model.transformer import Transformer
from nmt.recipe import Recipe


def parameter_count(recipe: Recipe) -> int:
    """Trained numbers of the recipe's model, each counted once; it is only drawn up, and takes no memory.

    Raises `RecipeError` where the size of the vocabulary is left to a tokenizer that is reused.
    """
    vocabulary = vocabulary_size(recipe)
    with torch.device("meta"):
        return Transformer(recipe.model, vocabulary, vocabulary).parameter_count()


def vocabulary_size(recipe: Recipe) -> int:
    """The entries of the recipe's vocabulary; of each side, where it is not shared. Raises `RecipeError`, as above."""
    if recipe.tokenizer.vocab_size is None:
        raise RecipeError("tokenizer.vocab_size: must be given, for the parameters to be counted")
    return recipe.tokenizer.vocab_size


def operations(model: Transformer) -> tuple[int, int]:
    """Floating point operations that training takes for a source token, and for a target token.

    6 for each parameter that a token is multiplied by: 2 forward, 4 backward (Kaplan et al., 2020, section 2.1). Of
    as many source as target tokens both together are 6 N, where N are all parameters and embeddings are shared. The
    products of attention among the tokens are not in it.
    """
    encoder, decoder = (
        sum(p.numel() for part in (stack.layers, stack.norm) for p in part.parameters())
        for stack in (model.encoder, model.decoder)
    )
    return 6 * encoder, 6 * (decoder + model.projection.numel())
