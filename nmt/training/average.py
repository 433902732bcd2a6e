"""The mean of several checkpoints, which translates better than any of them (Vaswani et al. 2017, section 6.1)."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nmt.data.shards import fingerprint
from nmt.errors import CheckpointError
from nmt.model import folder
from nmt.recipe import Layout, Recipe
from nmt.text import Tokenizers
from nmt.training import checkpoint, history


def average(
    recipe: Recipe,
    last: int | None = None,
    best: int | None = None,
    named: Sequence[Path] = (),
    output: Path | None = None,
    report: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> Path:
    """Averages the `named` checkpoints, or the `best` or the `last` ones, and writes a model folder; gives its path.

    Holds two sets of weights at a time; `report` is told which checkpoints they are.
    Raises `CheckpointError`, `ModelError`, `OutputError`.
    """
    layout = Layout.of(recipe)
    paths = list(named) or _chosen(recipe, last, best)
    if not paths:
        raise CheckpointError(f"{layout.checkpoints}: no checkpoint is there yet: run `nmt train` first")
    for path in paths:
        checkpoint.check(path, recipe, fingerprint(layout.data))
    mean = checkpoint.weights(paths[0])
    for path in paths[1:]:
        for name, tensor in checkpoint.weights(path).items():
            mean[name] += tensor
    for tensor in mean.values():
        tensor /= len(paths)
    target = output or layout.model
    folder.save(target, recipe, Tokenizers.load(layout.data), mean)
    report(f"the average of {len(paths)} checkpoints: {', '.join(map(str, paths))}")
    return target


def _chosen(recipe: Recipe, last: int | None, best: int | None) -> list[Path]:
    """The checkpoints that are averaged where none are named, in the order of their updates."""
    layout, asked = Layout.of(recipe), recipe.average
    present = checkpoint.present(layout.checkpoints)
    count = best if best is not None else 0 if last else asked.best
    if not count:
        return present[-(last or asked.last) :]
    found = checkpoint.best(present, history.scores(history.read(layout.metrics), recipe.train.best_by))[:count]
    if present and not found:
        raise CheckpointError(f"{layout.metrics}: says of no checkpoint that is there how good it is: average the last")
    return sorted(found)
