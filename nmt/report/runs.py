"""What a run folder says of a training, whether it is done, going on, stopped, or has hardly begun."""

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nmt import recipe as recipes
from nmt.data.shards import MANIFEST
from nmt.errors import DataError, NmtError, RecipeError
from nmt.files import read_json
from nmt.model.size import parameter_count
from nmt.recipe import Layout, Recipe
from nmt.training import checkpoint, history

SILENCE = 10 * 60, 5  # seconds, and lines of the usual pace, after which a training that says nothing may have died
RECENT = 20  # lines of progress from which what is left is told

Line = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run folder, read. recipe: as training began the last time, None if nothing tells.

    train, valid, samples: the lines of metrics.jsonl and samples.jsonl, none of an update that was done again.
    sessions, skipped: those of sessions.jsonl and skipped.jsonl. looked: when it was read.
    """

    layout: Layout
    recipe: Recipe | None
    train: list[Line]
    valid: list[Line]
    samples: list[Line]
    sessions: list[Line]
    skipped: list[Line]
    looked: float

    @classmethod
    def at(cls, path: Path) -> "Run":
        """The run of a recipe, or in a folder. Raises `NmtError` where there is none, `RecipeError`."""
        given = None if path.is_dir() else recipes.load(path)
        layout = Layout.of(given) if given else Layout.at(path)
        signs = layout.data / MANIFEST, layout.checkpoints, layout.metrics, layout.sessions
        if not any(sign.exists() for sign in signs):
            what = f"no run of this recipe is in {layout.folder} yet: nmt prepare makes one" if given else NO_RUN
            raise NmtError(f"{path}: {what}")
        lines, sessions = history.settled(history.read(layout.metrics)), history.read(layout.sessions)
        return cls(
            layout,
            _recipe(layout, sessions) or given,
            [line for line in lines if line.get("kind") == "train"],
            [line for line in lines if line.get("kind") == "valid"],
            history.settled(history.read(layout.samples)),
            sessions,
            history.read(layout.skipped),
            time.time(),
        )

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.layout.folder.resolve().name

    @property
    def step(self) -> int:
        """Updates that are known to be done."""
        lines = (*self.train[-1:], *self.valid[-1:])
        saved = checkpoint.last(self.layout.checkpoints)
        return max([*(line["step"] for line in lines), int(saved.name.removeprefix("step-")) if saved else 0])

    @property
    def heard(self) -> float | None:
        """When it last said something."""
        return max((line["time"] for line in (*self.train[-1:], *self.valid[-1:], *self.sessions[-1:])), default=None)

    def rewinds(self) -> list[Line]:
        """When training went back, from which update to which, and why."""
        return [line for line in self.sessions if line.get("kind") == "rewind"]

    def begun(self) -> Line:
        """What it said when it began the last time: on what it computes, and the like."""
        return next((line for line in reversed(self.sessions) if line.get("kind") == "begin"), {})

    def state(self) -> tuple[str, str]:
        """How it is: "done", "going", "stopped", "silent" or "new"; and that in words."""
        last = self.sessions[-1] if self.sessions else None
        if self.recipe and self.step >= self.recipe.train.steps:
            return "done", "done"
        if last and last.get("kind") == "end":
            why = str(last["why"])
            kind = "stopped" if why.startswith(("the time is up", "stopped by")) else "done"
            return ("failed", why) if kind == "done" and not why.startswith("done") else (kind, why)
        if self.heard is None:
            return "new", "prepared, and not trained yet"
        silent = self.looked - self.heard
        if silent < max(SILENCE[0], SILENCE[1] * self._pause()):
            return "going", f"training, last heard of {told(silent)} before this page was made"
        return "silent", f"not done, and not heard of for {told(silent)}: stopped or killed"

    def seconds_left(self) -> float | None:
        """How long it will take at the pace of the last lines, all that happens between them included."""
        if not self.recipe or self.step >= self.recipe.train.steps or len(self.train) < 3:
            return None
        # Their median knows nothing of a night between two of them.
        paces = [(b["time"] - a["time"]) / (b["step"] - a["step"]) for a, b in _pairs(self.train[-RECENT:])]
        return statistics.median(paces) * (self.recipe.train.steps - self.step)

    def _pause(self) -> float:
        """Seconds from one line to the next, as a rule."""
        return statistics.median([0.0, *(b["time"] - a["time"] for a, b in _pairs(self.train[-RECENT:]))])

    def parameters(self) -> int | None:
        """How many the model has, if that is known."""
        if stored := self.begun().get("parameters"):
            return int(stored)
        try:
            return parameter_count(self.recipe) if self.recipe else None
        except RecipeError:
            return None


NO_RUN = (
    "no run folder, for it has no prepared data, checkpoints or metrics.jsonl: name a recipe, or the folder it says"
)


def told(seconds: float) -> str:
    """A time in two units at most, such as 1 h 43 min."""
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (whole % 60, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count or first == 3)


def _pairs(lines: Sequence[Line]) -> Iterator[tuple[Line, Line]]:
    return itertools.pairwise(lines)


def _recipe(layout: Layout, sessions: Sequence[Line]) -> Recipe | None:
    """As training began the last time; or as the last checkpoint or the model has it."""
    stored = next((line["recipe"] for line in reversed(sessions) if "recipe" in line), None)
    try:
        if stored is None and (place := checkpoint.last(layout.checkpoints)):
            stored = read_json(place / checkpoint.STATE)["recipe"]
        if stored is not None:
            return Recipe.model_validate(stored)
        model = layout.model / "recipe.yaml"
        return recipes.load(model) if model.exists() else None
    except (DataError, RecipeError, ValidationError, KeyError, TypeError):  # of another version of nmt, or damaged
        return None
