"""What training says as it goes: a progress bar on a terminal, plain lines in a pipe, and files in the run folder.

`metrics.jsonl` has the figures, `samples.jsonl` some translations, both without what was done again after a stop or a
rewind; `skipped.jsonl` the updates left out; `sessions.jsonl` when training began, rewound and ended.
"""

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
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from nmt.errors import NmtError, OutputError
from nmt.files import output_error, whole_file
from nmt.recipe import Layout, Recipe
from nmt.training import history
from nmt.training.checkpoint import State
from nmt.training.events import Events
from nmt.training.health import Fault
from nmt.training.learner import Update
from nmt.training.pace import Pace, memory
from nmt.training.validation import Measurement


class Journal:
    """Writes down the course of one training run; a context manager."""

    def __init__(self, layout: Layout, recipe: Recipe, state: State, pace: Pace | None = None) -> None:
        """Begins at `state`; what the files of a run hold of later updates is taken out.

        `measured` is the update after which the valid corpus was last measured, 0 for never; `scores` has what it said,
        by `train.best_by`, of each model that was measured. Without a `pace` nothing is told of peak and memory.
        Raises `NmtError` where TensorBoard is asked for and not installed.
        """
        self._layout, self._pace = layout, pace
        self._steps, self._by = recipe.train.steps, recipe.train.best_by
        self._every = recipe.train.log_every
        self._metrics, self._skipped = layout.metrics, layout.skipped
        self._events = Events(layout.tensorboard) if recipe.train.tensorboard else None
        self._live = sys.stderr.isatty()
        self._console = Console(stderr=True, force_terminal=self._live, highlight=False, soft_wrap=True)
        columns = (
            TextColumn("[bold]training[/bold]"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),  # rich's own knows nothing where an update takes longer than 30 s
        )  # fmt: skip
        self._progress = _Bar(*columns, console=self._console, disable=not self._live)
        self._bar = self._progress.add_task("", total=self._steps, left="")
        self._skips = state.health.skips
        _keep_first(self._skipped, self._skips)
        self._go_on_from(state.step)

    @classmethod
    def of(cls, layout: Layout, recipe: Recipe, state: State, pace: Pace | None) -> "Journal":
        """A journal; or without a pace, for a process that nobody listens to, one that says and writes nothing."""
        return cls(layout, recipe, state, pace) if pace else _Unheard()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._progress.stop()
        if self._events:
            self._events.close()
        if isinstance(error, NmtError):
            with suppress(OutputError):  # if that is what it ends with, there is no room for this either
                self.end(str(error))

    def begin(self, text: str, facts: dict[str, Any]) -> None:
        """Says what is about to happen, and writes down on what."""
        pace = self._pace
        self.say(f"{text}; {pace.describe()}" if pace else text)
        _append(self._layout.sessions, {"kind": "begin", "step": self._step} | facts | (pace.values() if pace else {}))

    def end(self, text: str) -> None:
        """Writes down how it ended."""
        _append(self._layout.sessions, {"kind": "end", "step": self._step, "why": text})

    def say(self, text: str) -> None:
        """One line for whoever watches, on standard error. That nobody does any more is no reason to end."""
        with suppress(OSError):
            self._progress.print(text, markup=False) if self._live else print(text, file=sys.stderr, flush=True)

    def update(self, step: int, update: Update) -> None:
        """Takes note of one update; writes a line of them all every so often."""
        self._updates.append(update)
        self._move(step)
        if step % self._every == 0 or step == self._steps:
            self._summary(step)

    def skip(self, step: int, fault: Fault) -> None:
        """Tells of an update that is left out, and writes down which lines were in it."""
        self._skips += 1
        self.say(f"update {step:>7,}  {fault.describe(self._skipped)}")
        _append(self._skipped, {"step": step} | fault.values())
        self._move(step)
        if step % self._every == 0 or step == self._steps:
            self._summary(step)

    def rewind(self, step: int, to: int, why: str) -> None:
        """Tells that training goes back from one update to another; what was measured after that is taken out."""
        place = f"the weights of update {to:,}" if to else "the first weights"
        self.say(f"update {step:>7,}  {why}: back to {place}, without the data since then")
        _append(self._layout.sessions, {"kind": "rewind", "step": step, "to": to, "why": why})
        self._go_on_from(to)

    def _go_on_from(self, step: int) -> None:
        self._updates: list[Update] = []
        self._since = self._begun = time.perf_counter()
        self._first = step
        self._move(step)
        lines = _kept(self._metrics, step)
        if self._events:
            self._events.restart(lines)
        self._bleu = next((line["bleu"] for line in reversed(lines) if line.get("bleu") is not None), None)
        self.measured = max((line["step"] for line in lines if line.get("kind") == "valid"), default=0)
        _kept(self._layout.samples, self.measured)  # what is measured again is translated again
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
        for place, sample in enumerate(found.samples):
            if place == found.shown:
                for name, text in sample._asdict().items():
                    self.say(f"  {name:<12} {text}")
            _append(self._layout.samples, {"kind": "sample", "step": step, "sentence": place} | sample._asdict())
        figures: dict[str, Any] = {"kind": "valid", "step": step, "loss": found.loss, "bleu": found.bleu}
        figures |= {"chrf": found.chrf, "attention_entropy": found.attention_entropy}
        self._note(figures)
        self.measured, self._bleu = step, found.bleu
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
        figures: dict[str, Any] = {
            "kind": "train", "step": step, "loss": loss, "nll": nll, "gradient_norm": float(norms[-1]),
            "gradient_norm_max": float(norms.max()), "skipped_updates": self._skips, "learning_rate": rate,
            "target_tokens": target, "source_tokens": source, "target_tokens_per_second": speed,
        }  # fmt: skip
        if self._pace:
            share, held = self._pace.share(source, target, seconds), memory(self._pace.device)
            figures |= {"share_of_peak": share, "memory": held}
            text += f"  {share:.1%} of peak" + (f"  {held / 1e9:.2f} GB" if held else "")
        shown = "" if self._bleu is None else f"  BLEU {self._bleu:.2f}"
        self._progress.figures = text + shown
        if not self._live:
            text += f"  perplexity {_perplexity(nll):.2f}  learning rate {rate:.2e}{self._left(step)}"
            self.say(f"update {step:>7,}  {text}")
        self._note(figures)

    def _left(self, step: int) -> str:
        """How long it will take at the speed since it began, the measuring of the valid corpus and all."""
        done, left = step - self._first, self._steps - step
        if not (done and left):
            return ""
        seconds = int(left * (time.perf_counter() - self._begun) / done)
        return f"  {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"

    def _move(self, step: int) -> None:
        self._step = step
        self._progress.update(self._bar, completed=step, left=self._left(step).strip())

    def _note(self, figures: dict[str, Any]) -> None:
        """One more line of `metrics.jsonl`."""
        line = _append(self._metrics, figures)
        if self._events:
            self._events.add(line)


class _Bar(Progress):
    """A bar with figures under it, for which a narrow terminal has no room beside it."""

    figures = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar, and the figures once there are some."""
        yield from super().get_renderables()
        if self.figures:
            yield Text(self.figures, style="dim", no_wrap=True, overflow="ellipsis")


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

    def begin(self, text: str, facts: dict[str, Any]) -> None:
        """Nothing."""

    def end(self, text: str) -> None:
        """Nothing."""

    def update(self, step: int, update: Update) -> None:
        """Nothing."""

    def skip(self, step: int, fault: Fault) -> None:
        """Nothing."""

    def rewind(self, step: int, to: int, why: str) -> None:
        """Nothing."""


def _perplexity(nats: float) -> float:
    return math.exp(min(nats, 99.0))


def _append(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """One more line of JSON, with the time; gives what it holds."""
    line = {"time": time.time()} | _finite(values)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as error:
        raise output_error(path, error) from None
    return line


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


def _kept(log: Path, step: int) -> list[dict[str, Any]]:
    """The lines of updates up to `step`. The others are taken out, for these updates are about to be done again."""
    lines = [line for line in history.read(log) if line["step"] <= step]
    if log.exists():
        with whole_file(log, "w") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return lines
