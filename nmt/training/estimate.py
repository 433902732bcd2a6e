"""What training will take: parameters, memory and time, from updates of small models like the recipe's.

One layer of encoder and decoder are computed each, then one more of either: the differences are what a layer takes.
That is the code that trains, on this device, on sentences as long as those of the text, so that nothing about attention
or dropout need be guessed; but only a chunk or two are computed.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nmt.data.batches import Chunk, pack, split
from nmt.data.segmentation import Segmented
from nmt.diagnosis import Advice
from nmt.ids import SPECIALS
from nmt.model.device import pick_device, pick_precision
from nmt.model.size import parameter_count, vocabulary_size
from nmt.model.transformer import Transformer
from nmt.recipe import Depths, Recipe
from nmt.training.cores import at_once
from nmt.training.finetuning import restrict
from nmt.training.fitting import chunk_tokens
from nmt.training.learner import Learner
from nmt.training.lora import stored
from nmt.training.loss import BLOCK_BYTES, BLOCK_NUMBERS
from nmt.training.optimizer import kept_numbers
from nmt.training.world import World

_SHAPES = (1, 1), (2, 1), (1, 2)  # layers of encoder and decoder that are computed
_REPEATS = 5  # the fastest counts: other work makes it slower, nothing makes it faster
_PATIENCE = 1.0  # seconds, after which nothing is repeated
_WORK = {"cpu": 3e10, "cuda": 1e13}  # operations that a measurement may take; less is done of a chunk that takes more
_FEWEST_TOKENS = 128
_FEW_WORDS = 1000
_BUSY = 1.5


@dataclass(frozen=True)
class Estimate:
    """What training will take. Bytes of memory, seconds of time."""

    parameters: int
    learning: int
    """How many of the parameters learn: not what `train.freeze` names; with `train.lora` what it adds, alone."""
    state: int
    """Weights, gradients (on a CPU of each core), what the optimizer keeps, and the running mean, if there is one."""
    copy: int
    """Of the state, in the computer's own memory, while a checkpoint is written: what that holds."""
    activations: int
    """What the backward pass keeps of the largest chunk, and the block of logits at hand; on a CPU for each core."""
    chunk_tokens: int
    update_seconds: float
    updates: int
    epochs: float
    device: str
    precision: str
    threads: int | None
    available: int | None
    """Memory of the device, as far as it is known."""
    load: float = 0.0
    """Of a CPU: programs that wanted a core in the last minute, for each core there is."""

    @property
    def memory(self) -> int:
        """All of it on the device, beside what Python and torch take themselves."""
        return self.state + self.activations + (self.copy if self.device == "cpu" else 0)

    @property
    def hours(self) -> float:
        """Of all updates; measuring the valid corpus and saving come on top."""
        return self.update_seconds * self.updates / 3600


def estimate(recipe: Recipe, lengths: np.ndarray, pairs: int, device: str = "auto") -> Estimate:
    """What training a recipe on `pairs` pairs takes, whose lengths are like those [n, 2] of pairs drawn from them.

    It takes the memory of a model of three layers itself. Raises `DeviceError`.
    """
    where = pick_device(device)
    precision = pick_precision(recipe.train.precision, where)
    size = chunk_tokens(recipe, where, precision, World())
    update = _update(recipe, lengths)
    tokens = int((update + 1).sum())
    shapes = [_with_layers(recipe, *shape) for shape in _SHAPES]
    budget = _WORK[where.type] / (6 * parameter_count(shapes[0]))
    typical = _chunk(recipe, update, max(_FEWEST_TOKENS, min(size, int(budget))), None)
    seconds, step = zip(*(_times(shape, typical, where, precision) for shape in shapes), strict=True)
    # What is kept does not depend on the vocabulary, but for the gradient of its projection.
    words = min(_FEW_WORDS, vocabulary_size(recipe))
    tokenizer = recipe.tokenizer.model_copy(update={"vocab_size": words})
    small = [shape.model_copy(update={"tokenizer": tokenizer}) for shape in shapes]
    lanes = at_once(where)
    longest = _chunk(small[0], lengths, min(size, -(-recipe.train.batch_tokens // lanes)), -1)
    kept = [_kept(shape, longest, where, precision) for shape in small]
    whole = _restricted(recipe, torch.device("meta"))
    block = BLOCK_BYTES[precision] * BLOCK_NUMBERS[where.type]
    state, copy = _state(recipe, whole)
    projection = 4 * recipe.model.d_model * (vocabulary_size(recipe) - words) if whole.projection.requires_grad else 0
    return Estimate(
        parameters=whole.parameter_count(),
        learning=_learning(whole),
        state=state + 4 * (lanes - 1) * _learning(whole),
        copy=copy,
        activations=lanes * (int(_of_all_layers(recipe, kept)) + projection + block),
        chunk_tokens=size,
        update_seconds=_of_all_layers(recipe, seconds) * tokens / _tokens(typical) + step[0] * _learning(whole),
        updates=recipe.train.steps,
        epochs=recipe.train.steps * len(update) / pairs,
        device=str(where),
        precision="bf16" if precision == torch.bfloat16 else "fp32",
        threads=torch.get_num_threads() if where.type == "cpu" else None,
        available=_memory_of(where),
        load=_load_of(where),
    )


def advise(taken: Estimate) -> Iterator[Advice]:
    """What to mend about what training takes."""
    if taken.available and taken.memory > taken.available:
        what = f"training takes about {taken.memory / 1e9:.1f} GB, and {taken.device} has {taken.available / 1e9:.1f}"
        large = "the model is too large for it" if taken.state > taken.available else "set train.chunk_tokens lower"
        yield Advice("warning", "train.chunk_tokens", what, large)
    if taken.load > _BUSY:
        what = f"{taken.device} was busy when time was measured ({taken.load:.1f} programs for each core)"
        yield Advice("note", "train.steps", what, "training is faster than that when it is not")
    if taken.epochs < 1:
        what = f"{taken.updates:,} updates see only {taken.epochs:.0%} of the pairs"
        yield Advice("note", "train.steps", what, "raise it to see all")


def _with_layers(recipe: Recipe, encoder: int, decoder: int) -> Recipe:
    layers = Depths(encoder=encoder, decoder=decoder)
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"layers": layers})})


def _of_all_layers(recipe: Recipe, costs: Sequence[float]) -> float:
    """What all layers take, given what those of `_SHAPES` do."""
    base, encoder, decoder = costs
    more = recipe.model.encoder_layers - 1, recipe.model.decoder_layers - 1
    return base + more[0] * max(0, encoder - base) + more[1] * max(0, decoder - base)


def _update(recipe: Recipe, lengths: np.ndarray) -> np.ndarray:
    """The lengths [pairs, 2] of an update's pairs: random ones, up to `train.batch_tokens` a side."""
    most = recipe.train.batch_tokens
    order = np.random.default_rng(recipe.seed).permutation(len(lengths))
    some = lengths[np.resize(order, most)]  # an update has at most a pair a token
    fits = int(np.searchsorted(((some + 1).cumsum(0) > most).any(1), True))
    return some[: max(1, fits)]


def _chunk(recipe: Recipe, lengths: np.ndarray, size: int, which: int | None) -> Chunk:
    """One of the chunks that pairs of these lengths are cut into, or the middle one; its words are drawn."""
    source, target = lengths.T
    parts = split(np.arange(len(lengths)), (source, target), size)
    part = parts[len(parts) // 2 if which is None else which]
    draw = np.random.default_rng(recipe.seed)
    words = [draw.integers(SPECIALS, recipe.tokenizer.vocab_size, length) for length in lengths[part].ravel()]
    return pack(Segmented(list(zip(words[0::2], words[1::2], strict=True))), range(len(part)))


def _tokens(chunk: Chunk) -> int:
    return len(chunk.source) + len(chunk.labels)


def _times(recipe: Recipe, chunk: Chunk, device: torch.device, precision: torch.dtype) -> tuple[float, float]:
    """Seconds that the gradients of a chunk take, and that the optimizer takes for a parameter."""
    learner = _learner(recipe, device, precision)
    found: list[tuple[float, float]] = []
    give_up = _now(device) + _PATIENCE
    while len(found) < _REPEATS and (len(found) < 2 or _now(device) < give_up):  # the first lays out memory
        begun = _now(device)
        sums = learner.gradients(len(found) + 1, {0: chunk})
        between = _now(device)
        learner.apply(len(found) + 1, sums)
        found.append((between - begun, _now(device) - between))
    gradients, steps = zip(*found, strict=True)
    return min(gradients), min(steps) / learner.parameter_counts[1]


def _kept(recipe: Recipe, chunk: Chunk, device: torch.device, precision: torch.dtype) -> int:
    """Bytes that the model keeps of a chunk for the backward pass, beside its parameters."""
    learner = _learner(recipe, device, precision)
    own = {parameter.untyped_storage().data_ptr() for parameter in learner.model.parameters()}
    seen: dict[int, tuple[Tensor, int]] = {}  # held, or another tensor would get the same address

    def pack_one(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack_one, lambda tensor: tensor):
        loss = learner.loss(chunk, recipe.train.label_smoothing, recipe.train.r_drop)
    del loss
    return sum(size for _, size in seen.values())


def _learner(recipe: Recipe, device: torch.device, precision: torch.dtype) -> Learner:
    return Learner(recipe, _restricted(recipe, device).train(), device, precision)


def _restricted(recipe: Recipe, device: torch.device) -> Transformer:
    """The recipe's model as it learns, its weights drawn; on the device `meta` it takes no memory."""
    vocabulary = vocabulary_size(recipe)
    torch.manual_seed(recipe.seed)
    with device:
        model = Transformer(recipe.model, vocabulary, vocabulary)
        restrict(model, recipe)
    return model


def _state(recipe: Recipe, model: Transformer) -> tuple[int, int]:
    """Bytes, in fp32, that a model takes in training beside activations; and how many of them are copied to be saved.

    What does not learn takes only its weights; the running mean shares them.
    """
    kept = kept_numbers(recipe, model)
    mean = _learning(model) if recipe.train.ema else 0
    saved = sum(parameter.numel() for parameter in stored(model).values())
    frozen = saved - _learning(model)  # of which a checkpoint holds the mean, too
    copied = saved + kept + (mean + frozen if mean else 0)
    return 4 * (model.parameter_count() + _learning(model) + mean + kept), 4 * copied


def _learning(model: Transformer) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _now(device: torch.device) -> float:
    """The time, once the device has done all that it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _load_of(device: torch.device) -> float:
    if device.type != "cpu" or not hasattr(os, "getloadavg"):
        return 0.0
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _memory_of(device: torch.device) -> int | None:
    """The memory there is, in bytes, as far as it is known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not on every system
        return None
