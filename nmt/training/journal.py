"""What training says as it goes: `metrics.jsonl` always, a progress bar on a terminal, plain lines in a pipe."""

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nmt.files import output_error, whole_file
from nmt.recipe import Layout, Recipe
from nmt.training import history
from nmt.training.checkpoint import State
from nmt.training.health import Fault
from nmt.training.learner import Update
from nmt.training.validation import Measurement


class Journal:
    """Writes down the course of one training run; a context manager."""

    def __init__(self, layout: Layout, recipe: Recipe, state: State) -> None:
        """Begins at `state`; what the files of a run hold of later updates is taken out.

        `measured` is the update after which the valid corpus was last measured, 0 for never; `scores` has what it said,
        by `train.best_by`, of each model that was measured.
        """
        self._steps, self._by = recipe.train.steps, recipe.train.best_by
        self._every = recipe.train.log_every
        self._metrics, self._skipped = layout.metrics, layout.skipped
        self._live = sys.stderr.isatty()
        self._console = Console(stderr=True, force_terminal=self._live, highlight=False, soft_wrap=True)
        columns = (
            TextColumn("[bold]training[/bold]"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        self._progress = Progress(*columns, console=self._console, disable=not self._live)
        self._bar = self._progress.add_task("", total=self._steps)
        self._skips = state.health.skips
        _keep_first(self._skipped, self._skips)
        self._go_on_from(state.step)

    @classmethod
    def of(cls, layout: Layout, recipe: Recipe, state: State, *, heard: bool) -> "Journal":
        """A journal; or, for a process that nobody listens to, one that says and writes nothing."""
        return cls(layout, recipe, state) if heard else _Unheard()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """One line for whoever watches, on standard error. That nobody does any more is no reason to end."""
        with suppress(OSError):
            self._progress.print(text, markup=False) if self._live else print(text, file=sys.stderr, flush=True)

    def update(self, step: int, update: Update) -> None:
        """Takes note of one update; writes a line of them all every so often."""
        self._updates.append(update)
        self._progress.update(self._bar, completed=step)
        if step % self._every == 0 or step == self._steps:
            self._summary(step)

    def skip(self, step: int, fault: Fault) -> None:
        """Tells of an update that is left out, and writes down which lines were in it."""
        self._skips += 1
        self.say(f"update {step:>7,}  {fault.describe(self._skipped)}")
        _append(self._skipped, {"step": step} | fault.values())
        self._progress.update(self._bar, completed=step)
        if step % self._every == 0 or step == self._steps:
            self._summary(step)

    def rewind(self, step: int, to: int, why: str) -> None:
        """Tells that training goes back from one update to another; what was measured after that is taken out."""
        place = f"the weights of update {to:,}" if to else "the first weights"
        self.say(f"update {step:>7,}  {why}: back to {place}, without the data since then")
        self._go_on_from(to)

    def _go_on_from(self, step: int) -> None:
        self._updates: list[Update] = []
        self._since = time.perf_counter()
        self._progress.update(self._bar, completed=step)
        lines = _kept(self._metrics, step)
        self.measured = max((line["step"] for line in lines if line["kind"] == "valid"), default=0)
        self.scores = history.scores(lines, self._by)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What the block does is not training: its time does not count towards tokens per second."""
        begun = time.perf_counter()
        yield
        self._since += time.perf_counter() - begun

    def validation(self, step: int, found: Measurement) -> None:
        """Notes what the valid corpus says."""
        shown = "" if found.bleu is None else f"  BLEU {found.bleu:5.2f}"
        self.say(f"update {step:>7,}  valid loss {found.loss:.4f}  perplexity {_perplexity(found.loss):.2f}{shown}")
        if found.sample:
            for name, text in found.sample._asdict().items():
                self.say(f"  {name:<12} {text}")
        figures: dict[str, Any] = {"kind": "valid", "step": step, "loss": found.loss, "bleu": found.bleu}
        figures |= {"chrf": found.chrf, "attention_entropy": found.attention_entropy}
        _append(self._metrics, figures)
        self.measured = step
        self.scores |= history.scores([_finite(figures)], self._by)

    def _summary(self, step: int) -> None:
        """The updates since the last summary, as one line; none where all of them were skipped."""
        updates, self._updates = self._updates, []
        if not updates:
            return
        target = sum(update.target_tokens for update in updates)
        source = sum(update.source_tokens for update in updates)
        loss, nll = (float(sum(kind)) / target for kind in ([u.loss for u in updates], [u.nll for u in updates]))
        norms = torch.stack([update.gradient_norm for update in updates])
        seconds = time.perf_counter() - self._since
        self._since = time.perf_counter()
        speed, rate = target / seconds, updates[-1].rate
        text = f"loss {loss:.4f}  {speed:,.0f} tokens/s"
        self._progress.update(self._bar, description=text)
        if not self._live:
            self.say(f"update {step:>7,}  {text}  perplexity {_perplexity(nll):.2f}  learning rate {rate:.2e}")
        _append(self._metrics, {
            "kind": "train", "step": step, "loss": loss, "nll": nll, "gradient_norm": float(norms[-1]),
            "gradient_norm_max": float(norms.max()), "skipped_updates": self._skips, "learning_rate": rate,
            "target_tokens": target, "source_tokens": source, "target_tokens_per_second": speed,
        })  # fmt: skip


class _Unheard(Journal):
    """Of a process beside the first: it has measured all there is to measure, and says nothing of it."""

    def __init__(self) -> None:
        self.measured = sys.maxsize
        self.scores = {}
        self._since = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass

    def say(self, text: str) -> None:
        """Nothing."""

    def update(self, step: int, update: Update) -> None:
        """Nothing."""

    def skip(self, step: int, fault: Fault) -> None:
        """Nothing."""

    def rewind(self, step: int, to: int, why: str) -> None:
        """Nothing."""


def _perplexity(nats: float) -> float:
    return math.exp(min(nats, 99.0))


def _append(path: Path, values: dict[str, Any]) -> None:
    """One more line of JSON, with the time."""
    line = json.dumps({"time": time.time()} | _finite(values), ensure_ascii=False)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise output_error(path, error) from None


def _finite(value: Any) -> Any:
    """The value with null for each number that JSON cannot write."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _keep_first(path: Path, count: int) -> None:
    """Leaves the first lines of a file, if there are more: those of updates that are not about to be done again."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    if len(lines) > count:
        with whole_file(path) as file:
            file.writelines(lines[:count])


def _kept(metrics: Path, step: int) -> list[dict[str, Any]]:
    """The lines of updates up to `step`. The others are taken out, for these updates are about to be done again."""
    lines = [line for line in history.read(metrics) if line["step"] <= step]
    if metrics.exists():
        with whole_file(metrics, "w") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return lines
