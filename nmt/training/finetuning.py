"""Training that begins with a model: its weights, and which of them stay as they are."""

from collections.abc import Collection
from pathlib import Path

from nmt.errors import ModelError
from nmt.model import folder
from nmt.model.transformer import Transformer
from nmt.recipe import Recipe
from nmt.text import Tokenizers

_PARTS = {  # what the names of parameters begin with
    "embeddings": ("encoder.embedding.", "decoder.embedding.", "output."),
    "encoder": ("encoder.layers.", "encoder.norm."),
    "decoder": ("decoder.layers.", "decoder.norm."),
}


def begin(model: Transformer, recipe: Recipe, tokenizers: Tokenizers, path: Path) -> None:
    """Gives `model` the weights in a model folder. Raises `ModelError` where that is another model.

    Dropout, which is no weight, may differ.
    """
    found = folder.load(path)
    ours, theirs = (each.model_dump(mode="json") for each in (recipe.model, found.recipe.model))
    if differing := [key for key in ours if ours[key] != theirs[key] and not key.endswith("dropout")]:
        told = "; ".join(f"model.{key} is {theirs[key]} there and {ours[key]} here" for key in differing)
        raise ModelError(f"train.init: {path}: another model: {told}")
    if [side.model for side in found.tokenizers] != [side.model for side in tokenizers]:
        raise ModelError(
            f"train.init: {path}: its vocabulary is not this run's: take its tokenizer, and run `nmt prepare` again"
        )
    model.load_state_dict(found.model.state_dict())


def freeze(model: Transformer, parts: Collection[str]) -> None:
    """Keeps these parts of a model, as `train.freeze` names them, from learning."""
    beginnings = tuple(beginning for part in parts for beginning in _PARTS[part])
    for name, parameter in model.named_parameters():
        if name.startswith(beginnings):
            parameter.requires_grad_(False)
