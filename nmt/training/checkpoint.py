"""Checkpoints: all that training needs to go on as if it had never stopped, written whole or not at all.

A checkpoint is a folder `step-00001000` of `model.safetensors` (weights by name), `optimizer.safetensors` (its moments
by name), `mean.safetensors` (the running mean of the weights, if one is kept) and `state.json` (step, cursor, what went
wrong, recipe, fingerprint of the data). Nothing random is stored: order and dropout follow from seed, epoch and step.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from torch import Tensor

from nmt.data.batches import Cursor
from nmt.errors import CheckpointError, DataError, ModelError
from nmt.files import make_folder, read_json, whole_folder, write_json
from nmt.model.folder import WEIGHTS, read_weights, set_weights, weights_of, write_weights
from nmt.recipe import Recipe
from nmt.training.health import Health
from nmt.training.learner import Learner
from nmt.training.schedule import learning_rate

OPTIMIZER = "optimizer.safetensors"
MEAN = "mean.safetensors"
STATE = "state.json"
FREE = {  # what may change between two runs of one training: neither what is learned nor from what
    "run", "train.steps", "train.chunk_tokens", "train.precision", "train.valid_every", "train.valid_bleu",
    "train.checkpoint_every", "train.keep", "train.keep_best", "train.best_by", "train.patience", "train.log_every",
    "train.tensorboard", "data.valid", "data.test", "average", "decode",
}  # fmt: skip


class State(NamedTuple):
    """How far training has come: updates done, the place in the data, seconds spent, and what went wrong with it."""

    step: int = 0
    cursor: Cursor = Cursor()
    seconds: float = 0.0
    health: Health = Health()


def save(
    checkpoints: Path, learner: Learner, recipe: Recipe, data: str, state: State, scores: Mapping[int, float]
) -> Path:
    """Writes the checkpoint of `state` and removes those that are outdated; gives its folder.

    `scores` says how good the models of some updates are. What a process that was killed has left half-written goes
    too. Raises `OutputError`.
    """
    path = checkpoints / f"step-{state.step:08d}"
    make_folder(checkpoints)
    with whole_folder(path) as folder:
        write_weights(folder / WEIGHTS, weights_of(learner.model))
        if learner.mean:
            write_weights(folder / MEAN, weights_of(learner.mean.model))
        write_weights(folder / OPTIMIZER, learner.optimizer.tensors())
        said = state._asdict() | {"health": state.health._asdict()}
        write_json(folder / STATE, said | {"data": data, "recipe": recipe.model_dump(mode="json")})
    for old in (*_outdated(checkpoints, recipe, scores), *checkpoints.glob(".step-*.tmp")):
        shutil.rmtree(old, ignore_errors=True)
    return path


def _outdated(checkpoints: Path, recipe: Recipe, scores: Mapping[int, float]) -> list[Path]:
    """All but the last `train.keep`, the best `train.keep_best`, and the one to rewind to. One that a stop made goes
    once there is a later one.

    So an interrupted training keeps, averages and goes back to the same checkpoints as an undisturbed one.
    """
    *before, newest = present(checkpoints)
    due = [path for path in before if _is_due(path, recipe)]
    kept = {
        *[*due, newest][-recipe.train.keep :],
        *best(due, scores)[: recipe.train.keep_best],
        good(checkpoints, recipe),
    }
    return [path for path in before if path not in kept]


def _is_due(path: Path, recipe: Recipe) -> bool:
    return _step(path) % recipe.train.checkpoint_every == 0


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def present(checkpoints: Path) -> list[Path]:
    """The checkpoints in a folder, in the order of their steps."""
    return sorted(path for path in checkpoints.glob("step-[0-9]*") if path.is_dir())


def best(paths: Sequence[Path], scores: Mapping[int, float]) -> list[Path]:
    """Those of these checkpoints that have a score, the best first; of equal ones the first."""
    scored = (path for path in paths if _step(path) in scores)
    return sorted(scored, key=lambda path: (-scores[_step(path)], path))


def last(checkpoints: Path) -> Path | None:
    """The checkpoint of the highest step, if there is one."""
    return max(present(checkpoints), default=None)


def good(checkpoints: Path, recipe: Recipe) -> Path | None:
    """The checkpoint to rewind to, if there is one: the last one that was due, and made while all went well."""
    due = [path for path in present(checkpoints) if _is_due(path, recipe)]
    return next((path for path in reversed(due) if _is_good(path)), None)


def _is_good(path: Path) -> bool:
    try:
        return _health(_read_state(path)).row == 0
    except (CheckpointError, TypeError):
        return False


def remove_after(checkpoints: Path, step: int) -> None:
    """Removes the checkpoints of later updates, which are about to be done again, on other data."""
    for path in present(checkpoints):
        if _step(path) > step:
            shutil.rmtree(path, ignore_errors=True)


def restore(path: Path, learner: Learner, recipe: Recipe, data: str) -> State:
    """Puts a checkpoint into `learner` and gives its state.

    Raises `CheckpointError` where it is damaged, or was made by another recipe or from other data.
    """
    stored = check(path, recipe, data)
    try:
        set_weights(learner.model, read_weights(path / WEIGHTS), path / WEIGHTS)
        if learner.mean:
            set_weights(learner.mean.model, read_weights(path / MEAN), path / MEAN)
        learner.optimizer.set_tensors(read_weights(path / OPTIMIZER))
        return State(int(stored["step"]), Cursor(*stored["cursor"]), float(stored["seconds"]), _health(stored))
    except (ModelError, KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from None


def check(path: Path, recipe: Recipe, data: str) -> dict[str, Any]:
    """What a checkpoint says of itself. Raises `CheckpointError` where it belongs to another recipe or other data."""
    if not path.is_dir():
        others = ", ".join(str(other) for other in present(path.parent)) or "none"
        raise CheckpointError(f"{path}: no such checkpoint; beside it there are {others}")
    stored = _read_state(path)
    before = _completed(stored["recipe"])
    if differences := list(_differences(before, recipe.model_dump(mode="json"), _free(before, recipe, stored["step"]))):
        raise CheckpointError(
            f"{path}: made by another recipe: {'; '.join(differences)}. Take the recipe back to that, "
            "or train the new one in a folder of its own (run: …)"
        )
    if stored["data"] != data:
        raise CheckpointError(
            f"{path}: made from other data than now lies prepared; train in a folder of its own (run: …), "
            f"or remove {path.parent} to begin again"
        )
    return stored


def weights(path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint, or their running mean where there is one. Raises `CheckpointError`."""
    try:
        return read_weights(path / (MEAN if (path / MEAN).exists() else WEIGHTS))
    except ModelError as error:
        raise _damaged(path, error) from None


def _read_state(path: Path) -> dict[str, Any]:
    try:
        stored = read_json(path / STATE)
    except DataError as error:
        raise _damaged(path, error) from None
    if not isinstance(stored, dict) or not {"recipe", "data", "step", "cursor", "seconds"} <= stored.keys():
        raise _damaged(path, f"{STATE} says too little")
    return stored


def _health(stored: dict[str, Any]) -> Health:
    """As a checkpoint has it; those of before it was noted had none to note."""
    return Health(**stored.get("health", {}))


def _damaged(path: Path, why: object) -> CheckpointError:
    return CheckpointError(f"{path}: a damaged checkpoint: {why}. Remove this folder to go on from the one before")


def _completed(recipe: Any) -> Any:
    """A stored recipe with the defaults of those keys that did not exist when it was stored."""
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe


def _free(before: Any, now: Recipe, step: int) -> set[str]:
    """What may change after update `step`: the schedule too, and with it the number of updates, for those to come.

    So training may be prolonged, or `wsd` told to fall, where the updates done would have been the same.
    """
    try:
        old = Recipe.model_validate(before)
    except ValidationError:
        return FREE
    steps = {*range(1, step, max(1, step // 1000)), step} - {0}
    if all(learning_rate(old, each) == learning_rate(now, each) for each in steps):
        return FREE | {"train.schedule"}
    return FREE if old.train.schedule != now.train.schedule else FREE - {"train.steps"}


def _differences(old: Any, new: Any, free: set[str], key: str = "") -> Iterator[str]:
    """Where two dumped recipes differ in what training depends on, in words."""
    if key in free:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old | new:
            yield from _differences(old.get(name), new.get(name), free, f"{key}.{name}" if key else name)
    elif old != new:
        yield f"{key} was {old}, now {new}"
