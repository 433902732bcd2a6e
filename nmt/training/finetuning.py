"""The model before its first update: drawn by the seed, or begun with another's weights; and what of it learns."""

from pathlib import Path

import torch

from nmt.errors import ModelError
from nmt.model import folder
from nmt.model.transformer import Transformer
from nmt.recipe import Recipe
from nmt.text import Tokenizer, Tokenizers
from nmt.training.lora import adapt

_PARTS = {  # what the names of parameters begin with
    "embeddings": ("encoder.embedding.", "decoder.embedding.", "output."),
    "encoder": ("encoder.layers.", "encoder.norm."),
    "decoder": ("decoder.layers.", "decoder.norm."),
}


def new_model(recipe: Recipe, tokenizers: Tokenizers) -> tuple[Transformer, list[str]]:
    """The model that a recipe trains, on the CPU; and the symbols that the one it begins with did not know.

    Raises `ModelError`.
    """
    torch.manual_seed(recipe.seed)
    model = folder.build(recipe, tokenizers)
    new = _begin(model, recipe, tokenizers, Path(recipe.train.init)) if recipe.train.init else []
    restrict(model, recipe)
    return model, new


def restrict(model: Transformer, recipe: Recipe) -> None:
    """Has only that of a model learn which `train.freeze` and `train.lora` let."""
    beginnings = tuple(beginning for part in recipe.train.freeze for beginning in _PARTS[part])
    for name, parameter in model.named_parameters():
        if name.startswith(beginnings):
            parameter.requires_grad_(False)
    if recipe.train.lora.rank:
        adapt(model, recipe.train.lora)


def _begin(model: Transformer, recipe: Recipe, tokenizers: Tokenizers, path: Path) -> list[str]:
    """Gives `model` the weights in a model folder; gives the symbols whose rows stay as they were drawn.

    Dropout, which is no weight, may differ. Raises `ModelError` where that is another model.
    """
    found = folder.load(path)
    ours, theirs = (each.model_dump(mode="json") for each in (recipe.model, found.recipe.model))
    if differing := [key for key in ours if ours[key] != theirs[key] and not key.endswith("dropout")]:
        told = "; ".join(f"model.{key} is {theirs[key]} there and {ours[key]} here" for key in differing)
        raise ModelError(f"train.init: {path}: another model: {told}")
    added = [_added(*sides, path) for sides in zip(tokenizers, found.tokenizers, strict=True)]
    new = list(dict.fromkeys(symbol for side in added for symbol in side))
    if new and (recipe.train.lora.rank or "embeddings" in recipe.train.freeze):
        key = "train.lora" if recipe.train.lora.rank else "train.freeze"
        raise ModelError(
            f"train.init: {path}: does not know {_some(new)}, and could not learn it, for with {key} embeddings stay "
            "as they are: train without it first, or leave the symbols out"
        )
    given = dict(found.model.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter[: len(given[name])] = given[name]
    return new


def _added(ours: Tokenizer, theirs: Tokenizer, path: Path) -> list[str]:
    """What our vocabulary has behind all of theirs. Raises `ModelError` where it does not begin with that."""
    size = theirs.vocab_size
    if ours.pieces(range(min(size, ours.vocab_size))) != theirs.pieces(range(size)):
        raise ModelError(
            f"train.init: {path}: its vocabulary is not this run's, nor how this run's begins: take its tokenizer, by "
            f"tokenizer.reuse: {path}, and run `nmt prepare` again"
        )
    return ours.pieces(range(size, ours.vocab_size))


def _some(symbols: list[str], most: int = 5) -> str:
    """The first of them, as they are told."""
    rest = f" and {len(symbols) - most} more" if len(symbols) > most else ""
    return ", ".join(symbols[:most]) + rest


def told(path: str, new: list[str]) -> str:
    """What training begins with, in words."""
    rows = f", with rows drawn for what is new in the vocabulary: {_some(new)}" if new else ""
    return f"from the weights in {path}{rows}"
