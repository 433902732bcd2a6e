"""Checkpoints: all that training needs to go on as if it had never stopped, written whole or not at all.

A checkpoint is a folder `step-00001000` of `model.safetensors` (weights by name), `optimizer.safetensors` (its moments
by name), `mean.safetensors` (the running mean of the weights, if one is kept) and `state.json` (step, cursor, what went
wrong, recipe, fingerprint of the data). Nothing random is stored: order and dropout follow from seed, epoch and step.
With `train.lora` the weights are what it adds; those it is added to are in the folder `train.init`, of which
`state.json` has the fingerprint.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from nmt.data.batches import Cursor
from nmt.data.shards import fingerprint, sha256
from nmt.errors import CheckpointError, DataError, ModelError
from nmt.files import make_folder, read_json, whole_folder, write_json
from nmt.model.folder import WEIGHTS, fitting, read_weights, write_weights
from nmt.recipe import Layout, Recipe
from nmt.training.health import Health
from nmt.training.learner import Learner
from nmt.training.lora import stored
from nmt.training.schedule import learning_rate
from nmt.training.sharding import copies, like

OPTIMIZER = "optimizer.safetensors"
MEAN = "mean.safetensors"
STATE = "state.json"
FREE = {  # what may change between two runs of one training: neither what is learned nor from what
    "run", "train.steps", "train.chunk_tokens", "train.precision", "train.valid_every", "train.valid_bleu",
    "train.checkpoint_every", "train.keep", "train.keep_best", "train.best_by", "train.patience", "train.log_every",
    "train.tensorboard", "data.valid", "data.test", "average", "decode",
}  # fmt: skip


class Origin(NamedTuple):
    """What a training is made from, by fingerprint: prepared data, and the weights that `train.lora` adds to."""

    data: str
    base: str | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """As it lies on disk. Raises `DataError`, and `ModelError` where the model that is adapted is gone."""
        data = fingerprint(Layout.of(recipe).data)
        if not recipe.train.lora.rank:
            return cls(data)
        weights = Path(recipe.train.init or "") / WEIGHTS
        if not weights.is_file():
            raise ModelError(
                f"train.init: {weights}: there is no such file, and training has only added to its weights"
            )
        return cls(data, sha256(weights))


class State(NamedTuple):
    """How far training has come: updates done, the place in the data, seconds spent, and what went wrong with it."""

    step: int = 0
    cursor: Cursor = Cursor()
    seconds: float = 0.0
    health: Health = Health()


class Snapshot(NamedTuple):
    """A copy of all that a checkpoint holds, which no later update changes; `tensors` by file and name, on the CPU."""

    tensors: dict[str, dict[str, Tensor]]
    state: State
    recipe: Recipe
    origin: Origin


def snapshot(learner: Learner, recipe: Recipe, origin: Origin, state: State) -> Snapshot:
    """Copies what there is to save; takes as much memory as that, in the first process. All processes must ask.

    Raises `TrainingError` where another process is gone.
    """
    held: dict[str, Mapping[str, Tensor]] = {WEIGHTS: stored(learner.model), OPTIMIZER: learner.optimizer.tensors()}
    if learner.mean:
        held[MEAN] = stored(learner.mean.model)
    return Snapshot({file: copies(named, learner.world) for file, named in held.items()}, state, recipe, origin)


def save(checkpoints: Path, snapshot: Snapshot, scores: Mapping[int, float]) -> Path:
    """Writes a checkpoint and removes those that are outdated; gives its folder.

    `scores` says how good the models of some updates are. What a process that was killed has left half-written goes
    too. Raises `OutputError`.
    """
    tensors, state, recipe, origin = snapshot
    path = checkpoints / f"step-{state.step:08d}"
    make_folder(checkpoints)
    with whole_folder(path) as folder:
        for file, named in tensors.items():
            write_weights(folder / file, named)
        said = state._asdict() | {"health": state.health._asdict()}
        write_json(folder / STATE, said | origin._asdict() | {"recipe": recipe.model_dump(mode="json")})
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


def restore(path: Path, learner: Learner, recipe: Recipe, origin: Origin) -> State:
    """Puts a checkpoint into `learner` and gives its state.

    Raises `CheckpointError` where it is damaged, or was made by another recipe or from other data.
    """
    said = check(path, recipe, origin)
    try:
        set_weights(stored(learner.model), path / WEIGHTS)
        if learner.mean:
            set_weights(stored(learner.mean.model), path / MEAN)
        learner.optimizer.set_tensors(read_weights(path / OPTIMIZER))
        return State(int(said["step"]), Cursor(*said["cursor"]), float(said["seconds"]), _health(said))
    except (ModelError, KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from None


@torch.no_grad()
def set_weights(parameters: Mapping[str, nn.Parameter], file: Path) -> None:
    """Copies the weights in a file into a model's parameters. Raises `ModelError` where they are not its own."""
    for parameter, weight in fitting(parameters, read_weights(file), file):
        parameter.copy_(like(weight, parameter))


def check(path: Path, recipe: Recipe, origin: Origin) -> dict[str, Any]:
    """What a checkpoint says of itself. Raises `CheckpointError` where it belongs to another recipe or other data."""
    if not path.is_dir():
        others = ", ".join(str(other) for other in present(path.parent)) or "none"
        raise CheckpointError(f"{path}: no such checkpoint; beside it there are {others}")
    said = _read_state(path)
    before = _completed(said["recipe"])
    if differences := list(_differences(before, recipe.model_dump(mode="json"), _free(before, recipe, said["step"]))):
        raise CheckpointError(
            f"{path}: made by another recipe: {'; '.join(differences)}. Take the recipe back to that, "
            "or train the new one in a folder of its own (run: …)"
        )
    if said["data"] != origin.data:
        raise CheckpointError(
            f"{path}: made from other data than now lies prepared; train in a folder of its own (run: …), "
            f"or remove {path.parent} to begin again"
        )
    if said.get("base") != origin.base:
        raise CheckpointError(
            f"{path}: what is to be added to the model in {recipe.train.init}, which has since changed: "
            f"bring it back as it was, or remove {path.parent} to begin again"
        )
    return said


def weights_file(path: Path) -> Path:
    """The file of the weights in a checkpoint, or of their running mean where there is one."""
    return path / (MEAN if (path / MEAN).exists() else WEIGHTS)


def weights(path: Path) -> dict[str, Tensor]:
    """What is in that file. Raises `CheckpointError`."""
    try:
        return read_weights(weights_file(path))
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
