"""A preparation under way: what is done of it, in a folder beside the one that it will become; who is at work there.

The folder is for exactly the choices and the text that its plan names. What is finished in it, a record vouches for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from nmt.data.changes import choices, difference, is_same, record_input
from nmt.data.parts import Part, changed, is_whole
from nmt.data.shards import FileRecord, InputRecord
from nmt.errors import DataError, OutputError
from nmt.files import Lock, locked, make_folder, read_json, remove, write_json
from nmt.processes import Shard
from nmt.recipe import Recipe

FORMAT = 1
WHOLE = "whole"  # the folder that takes the place of the final one
_PLAN, _SURVEY = "plan.json", "survey.json"
_LOCK, _GATE = "all.lock", "gate.lock"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Plan(_Record):
    """What is prepared: the choices of the recipe, and the raw files."""

    format: int
    choices: dict[str, Any]
    inputs: dict[str, InputRecord]


class Survey(_Record):
    """What reading all text once has told: its parts, units that are no pairs; and files with what was learned."""

    parts: tuple[Part, ...]
    skipped: dict[str, tuple[dict[str, int], ...]]
    learned: dict[str, FileRecord]


class Unfinished:
    """The folder of a preparation under way that will become `folder`."""

    def __init__(self, folder: Path, recipe: Recipe, files: Sequence[Path]) -> None:
        final = folder.resolve()
        self.folder = final.with_name(f"{final.name}.partial")
        self._final, self._recipe, self._files = final, recipe, files

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps all others out while the block runs, and clears up what a killed process has left half-written.

        Raises `OutputError` where another process is at work.
        """
        with locked(self.folder / _LOCK):
            for old in (*self.folder.glob(".*.tmp"), *self._final.parent.glob(f".{self._final.name}.*.tmp")):
                remove(old)
            yield

    @contextmanager
    def sharing(self, shard: Shard, begin: Callable[[bool], None]) -> Iterator[None]:
        """Lets other shards work beside the block. Before it, `begin` is called by one of them after the other.

        It is told whether no other is at work yet. Raises `OutputError` where one is that wants to be alone, or one
        that has the same share.
        """
        lock = Lock(self.folder / _LOCK)
        try:
            with locked(self.folder / f"shard-{shard.number}-of-{shard.total}.lock"):
                with locked(self.folder / _GATE, wait=True):
                    first = lock.acquire()
                    if not first and not lock.acquire(shared=True):
                        raise OutputError(f"{self.folder}: another process is at work in it: wait for it, or stop it")
                    self._check_total(shard)
                    begin(first)
                    lock.acquire(shared=True, wait=True)
                yield
        finally:
            lock.release()

    def _check_total(self, shard: Shard) -> None:
        """Refuses a share of N while shares of another N are at work, which might make the same parts."""
        for path in self.folder.glob("shard-*.lock"):
            if not path.stem.endswith(f"-of-{shard.total}"):
                with locked(path):
                    pass

    def difference(self) -> str | None:
        """How what has been begun differs from what is asked for, or None where it is the same."""
        try:
            plan = Plan.model_validate(read_json(self.folder / _PLAN))
        except (DataError, ValidationError):
            return "nothing was begun" if not (self.folder / _PLAN).exists() else "its plan is damaged"
        if plan.format != FORMAT:
            return "it is of another version of nmt"
        return difference(plan.choices, plan.inputs, self._recipe, self._files)

    def begin(self) -> None:
        """Empties the folder and writes down what is to be done. Raises `DataError` for a file that cannot be read."""
        make_folder(self.folder)
        for path in self.folder.iterdir():
            if path.suffix != ".lock":
                remove(path)
        inputs = {str(path): record_input(path) for path in self._files}
        plan = Plan(format=FORMAT, choices=choices(self._recipe), inputs=inputs)
        write_json(self.folder / _PLAN, plan.model_dump(mode="json"))

    @property
    def inputs(self) -> dict[str, InputRecord]:
        """The raw files, as they were in the beginning."""
        return Plan.model_validate(read_json(self.folder / _PLAN)).inputs

    def check_inputs(self) -> None:
        """Raises `DataError` where a raw file is another one than in the beginning."""
        for path, record in self.inputs.items():
            if not is_same(Path(path), record):
                raise changed(Path(path))

    def survey(self) -> Survey | None:
        """The survey, if it is there and what was learned is whole."""
        try:
            survey = Survey.model_validate(read_json(self.folder / _SURVEY))
        except (DataError, ValidationError):
            return None
        whole = all(is_whole(self.folder / name, record) for name, record in survey.learned.items())
        return survey if whole else None

    def save_survey(self, survey: Survey) -> None:
        """Writes down a survey; what was learned lies in the folder."""
        write_json(self.folder / _SURVEY, survey.model_dump(mode="json"))

    def remove(self) -> None:
        """Removes the folder."""
        remove(self.folder)

    def clear(self) -> None:
        """Removes the folder if there is one, unless a process is at work in it."""
        with suppress(OutputError):
            if self.folder.exists():
                with self.alone():
                    self.remove()
