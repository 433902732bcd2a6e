"""The model folder: `recipe.yaml` (resolved), the tokenizer, `model.safetensors`. Every later command takes it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nmt import recipe as recipes
from nmt.errors import ModelError, RecipeError
from nmt.files import whole_folder
from nmt.model.transformer import Transformer
from nmt.recipe import Recipe
from nmt.text import Tokenizers

WEIGHTS = "model.safetensors"
RECIPE = "recipe.yaml"
FILES = (WEIGHTS, RECIPE, "tokenizer*.model")  # all that a model folder holds
END = "...\n"  # YAML's own mark of the end, so that a recipe cut short shows


class ModelFolder(NamedTuple):
    """What a model folder holds."""

    recipe: Recipe
    tokenizers: Tokenizers
    model: Transformer


def build(recipe: Recipe, tokenizers: Tokenizers) -> Transformer:
    """A new model of this recipe for these vocabularies, its weights drawn from torch's generator.

    Raises `ModelError` where they do not fit into memory.
    """
    try:
        return Transformer(recipe.model, tokenizers.source.vocab_size, tokenizers.target.vocab_size)
    except RuntimeError as error:
        if "alloc" not in str(error):
            raise
        raise ModelError("a model of these sizes does not fit into memory: make it smaller, in section model") from None


def save(path: str | Path, recipe: Recipe, tokenizers: Tokenizers, weights: dict[str, Tensor]) -> None:
    """Writes a model folder, whole or not at all. Raises `OutputError`."""
    with whole_folder(path, FILES) as folder:
        (folder / RECIPE).write_text(recipes.dump(recipe) + END, encoding="utf-8")
        tokenizers.save(folder)
        write_weights(folder / WEIGHTS, weights)


def load(path: str | Path, device: torch.device | str = "cpu") -> ModelFolder:
    """Reads a model folder, in fp32 and ready to translate. Raises `ModelError`.

    On a CPU the weights are the file itself, mapped into memory: all processes that read it share one copy.
    """
    folder = Path(path)
    recipe = read_recipe(folder)
    tokenizers = Tokenizers.load(folder)
    with Undrawn():
        model = build(recipe, tokenizers)
    try:
        parameters = dict(model.named_parameters())
        for parameter, weight in fitting(parameters, read_weights(folder / WEIGHTS), folder / WEIGHTS):
            parameter.data = weight.to(parameter.dtype)
    except ModelError as error:
        raise ModelError(f"{error}: copy the model again, or make it with `nmt average`") from None
    return ModelFolder(recipe, tokenizers, model.to(device).eval())


class Undrawn(TorchFunctionMode):
    """In its block, weights are not drawn: drawing those of a large model only to replace them takes seconds."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(function, "__module__", None) == nn.init.__name__:
            return None
        return function(*args, **(kwargs or {}))


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a model folder. Raises `ModelError`."""
    if not folder.exists():
        raise ModelError(f"{folder}: there is no model here yet: run `nmt average` first")
    path = folder / RECIPE
    if not path.is_file():
        raise ModelError(f"{folder}: not a model folder, for it has no {RECIPE}: name one made by `nmt average`")
    if not path.read_bytes().endswith(END.encode()):
        raise ModelError(f"{path}: cut short, for its last line is not {END.strip()}: copy it again")
    try:
        return recipes.load(path)
    except RecipeError as error:
        raise ModelError(f"{folder}: its recipe was made by another version of nmt, or edited: {error}") from None


def weights_of(model: Transformer) -> dict[str, Tensor]:
    """The model's weights by name on the CPU, a shared one once."""
    return {name: p.detach().to("cpu", torch.float32).contiguous() for name, p in model.named_parameters()}


def fitting(
    parameters: Mapping[str, nn.Parameter], weights: dict[str, Tensor], origin: Path
) -> list[tuple[nn.Parameter, Tensor]]:
    """Each of a model's parameters with its weights, read from `origin`. Raises `ModelError` for another model's."""
    if missing := parameters.keys() ^ weights.keys():
        raise ModelError(f"{origin}: not the weights of this recipe's model: {sorted(missing)[0]} is on one side only")
    for name, parameter in parameters.items():
        if parameter.shape != weights[name].shape:
            found, wanted = list(weights[name].shape), list(parameter.shape)
            raise ModelError(f"{origin}: {name} has the shape {found}, where the recipe asks for {wanted}")
    return [(parameter, weights[name]) for name, parameter in parameters.items()]


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Writes a safetensors file of tensors in fp32 on the CPU.

    One after the other, where safetensors' own writer copies all of them first, and lets no other thread run meanwhile;
    and raises OSError, as Python's writers do and that does not.
    """
    header, end = {}, 0
    for name, tensor in sorted(weights.items()):
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers begin where they can be mapped into memory
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in sorted(weights.items()):
            assert tensor.dtype == torch.float32, tensor.dtype
            file.write(tensor.detach().contiguous().view(-1).numpy().data)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file. Raises `ModelError` where it is missing or cut short."""
    with open_weights(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict


@contextmanager
def open_weights(path: Path) -> "Iterator[safe_open]":
    """A safetensors file, to read tensor by tensor. Raises `ModelError` where it is missing or cut short."""
    try:
        path.open("rb").close()  # safetensors would call whatever it may not read a missing file
        with safe_open(path, "pt") as file:
            yield file
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise ModelError(f"{path}: cut short, or no safetensors file ({error})") from None
