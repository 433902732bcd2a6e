"""The mean of several checkpoints, which translates better than any of them (Vaswani et al. 2017, section 6.1)."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from nmt.errors import CheckpointError, NmtError
from nmt.model import folder
from nmt.recipe import Layout, Recipe
from nmt.text import Tokenizers
from nmt.training import checkpoint, history, lora
from nmt.training.finetuning import new_model


def average(
    recipe: Recipe,
    last: int | None = None,
    best: int | None = None,
    named: Sequence[Path] = (),
    output: Path | None = None,
    report: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> Path:
    """Averages the `named` checkpoints, or the `best` or the `last` ones, and writes a model folder; gives its path.

    Holds two sets of weights at a time; `report` is told which checkpoints they are. What `train.lora` has added to
    the weights of `train.init` is merged with them, so that the model is one like any other.
    Raises `CheckpointError`, `ModelError`, `OutputError`, and `NmtError` for more than one way to choose.
    """
    layout = Layout.of(recipe)
    ways = {"--checkpoint": named, "--last": last, "--best": best}
    if len(asked := [option for option, value in ways.items() if value]) > 1:
        raise NmtError(f"{' and '.join(asked)}: each says which checkpoints to average: give one of them")
    paths, wanted = (list(named), len(named)) if named else _chosen(recipe, last, best)
    if not paths:
        raise CheckpointError(f"{layout.checkpoints}: no checkpoint is there yet: run `nmt train` first")
    origin = checkpoint.Origin.of(recipe)
    for path in paths:
        checkpoint.check(path, recipe, origin)
    tokenizers = Tokenizers.load(layout.data)
    weights = _merging(recipe, tokenizers) if recipe.train.lora.rank else checkpoint.weights
    mean = weights(paths[0])
    for count, path in enumerate(paths[1:], start=2):
        for name, tensor in weights(path).items():
            mean[name].lerp_(tensor, 1 / count)  # what is the same in all stays so to the bit
    target = output or layout.model
    folder.save(target, recipe, tokenizers, mean)
    fewer = f", for there are no more of the {wanted} asked for" if len(paths) < wanted else ""
    report(f"the average of {len(paths)} checkpoints{fewer}: {', '.join(map(str, paths))}")
    return target


def _merging(recipe: Recipe, tokenizers: Tokenizers) -> Callable[[Path], dict[str, Tensor]]:
    """Gives what gives the weights of the model that a checkpoint's additions make of that in `train.init`."""
    model, _ = new_model(recipe, tokenizers)

    def weights(path: Path) -> dict[str, Tensor]:
        checkpoint.set_weights(lora.stored(model), checkpoint.weights_file(path))
        return lora.merged(model)

    return weights


def _chosen(recipe: Recipe, last: int | None, best: int | None) -> tuple[list[Path], int]:
    """The checkpoints that are averaged where none are named, in the order of their updates, and how many are asked."""
    layout, asked = Layout.of(recipe), recipe.average
    present = checkpoint.present(layout.checkpoints)
    count = best if best is not None else 0 if last else asked.best
    if not count:
        count = last or asked.last
        return present[-count:], count
    found = checkpoint.best(present, history.scores(history.read(layout.metrics), recipe.train.best_by))[:count]
    if present and not found:
        raise CheckpointError(f"{layout.metrics}: says of no checkpoint that is there how good it is: average the last")
    return sorted(found), count
