"""What was found in a recipe's text: as values for JSON, and as tables for a terminal of 80 columns."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nmt.data.accounts import shown
from nmt.diagnosis import Advice, Diagnosis, advise, diagnose
from nmt.diagnosis.figures import TRAIN, CorpusFigures, Example, Side
from nmt.recipe import Recipe

if TYPE_CHECKING:
    from nmt.training.estimate import Estimate

WIDTH = 80
_BARS = " ▁▂▃▄▅▆▇█"
_LABEL, _SOME = 16, 24  # characters
_EXAMPLES = 2  # of each kind on a terminal
_LEVELS = "error", "warning", "note"
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
HOW = (
    "Memory: weights, gradients, what the optimizer keeps and a running mean of weights, if there is one (16 bytes a "
    "parameter with Adam and no mean), and what the backward pass keeps of the longest pairs, counted; torch itself "
    "and its allocator take about half as much again. Time: updates of models with one and two layers, measured here "
    "and now on sentences of these lengths, and extended to all layers; measuring the valid corpus is not in it. A "
    "busy machine makes it longer."
)


@dataclass(frozen=True)
class Report:
    """All that `nmt check` says. Without an estimate nothing was measured."""

    recipe: Recipe
    found: Diagnosis
    advice: Sequence[Advice]
    estimate: "Estimate | None"

    @classmethod
    def on(
        cls, recipe: Recipe, *, sample: int | None = None, workers: int = 1, device: str | None = "auto"
    ) -> "Report":
        """Reads the text of a recipe, as `diagnose` does, and measures on `device`; None leaves that out.

        Raises `DataError`, `DeviceError` and other `NmtError`s.
        """
        found = diagnose(recipe, sample=sample, workers=workers)
        advice, taken = advise(found, recipe), None
        if device and (pairs := sum(one.kept for one in found.train)):
            from nmt.training import estimate  # which takes torch along

            size = {"vocab_size": max(one.asked for one in found.vocabularies)}
            sized = recipe.model_copy(update={"tokenizer": recipe.tokenizer.model_copy(update=size)})
            taken = estimate.estimate(sized, found.lengths, pairs, device)
            advice += estimate.advise(taken)
        return cls(recipe, found, sorted(advice, key=lambda one: _LEVELS.index(one.level)), taken)

    def labels(self) -> dict[int, str]:
        """A short name of each corpus, by its place."""
        several = len(self.found.train) > 1
        names = {
            place: f" {Path(one.name).name}" if several and one.key == TRAIN else ""
            for place, one in enumerate(self.found.corpora)
        }
        return {place: self.found.corpora[place].key.removeprefix("data.") + name for place, name in names.items()}

    def count(self, level: str) -> int:
        """How many errors, warnings or notes there are."""
        return sum(advice.level == level for advice in self.advice)

    @property
    def verdict(self) -> str:
        """All in a line."""
        counts = [(self.count(level), level) for level in _LEVELS]
        said = ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for count, level in counts if count)
        return f"{said or 'nothing to mend'}: the text is {'not usable' if self.count('error') else 'usable'}"

    def to_json(self) -> dict[str, Any]:
        """The same as values for a program."""
        found = asdict(self.found)
        del found["lengths"]
        for vocabulary in found["vocabularies"]:
            del vocabulary["counts"]
        for one, values in zip(self.found.corpora, found["corpora"], strict=True):
            for side, figures in zip(one.sides, values["sides"], strict=True):
                figures |= {"pieces_per_word": side.fertility, "byte_share": side.byte_share}
        taken = None
        if self.estimate:
            taken = asdict(self.estimate) | {"memory": self.estimate.memory, "hours": self.estimate.hours}
        return {
            "run": self.recipe.run,
            "usable": not self.count("error"),
            **found,
            "training": taken,
            "advice": [asdict(advice) for advice in self.advice],
        }

    def print(self, stream: TextIO) -> None:
        """Prints it all, in at most 80 columns; what to mend comes last, where it is seen."""
        on_terminal = stream.isatty()
        console = Console(file=stream if on_terminal else StringIO(), highlight=False)
        width = min(WIDTH, console.width) if on_terminal else WIDTH
        for title, *parts in self._sections():
            console.print(Text(title, style="bold"))
            console.print(Padding(Group(*parts), (0, 0, 1, 2)), width=width)
        console.print(Text(self.verdict, style="bold"))
        if isinstance(console.file, StringIO):
            for line in console.file.getvalue().splitlines():
                print(line.rstrip(), file=stream)

    def _sections(self) -> Iterator[tuple[Any, ...]]:
        yield "Text", _text(self)
        yield "Lengths", _lengths(self), Text("The bars go from short lines to long ones.", style="dim")
        yield "Vocabulary", *_vocabulary(self)
        if any(one.findings for one in self.found.corpora):
            yield "Suspicious pairs", *_findings(self)
        if any(overlap.found for overlap in self.found.overlaps):
            yield "Overlap", _overlaps(self)
        if self.estimate:
            yield "Training", _training(self.estimate), Text(HOW, style="dim")
        if self.advice:
            yield "To mend", *(_advice(advice) for advice in self.advice)


def share(part: int, whole: int) -> str:
    """A part as a percentage; never 0% for something, nor 100% for less than all."""
    percent = 100 * part / max(1, whole)
    if part and percent < 0.01:
        return "<0.01%"
    digits = 0 if not part else 2 if percent < 1 or 99 < percent < 100 else 1 if percent < 10 else 0
    return "100%" if part and part == whole else f"{percent:.{digits}f}%"


def size(count: int) -> str:
    """A count that may be rounded."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if count >= unit:
            return f"{count / (1000 if name == 'k' else unit):.{1 if name != 'k' else 0}f} {name}"
    return f"{count:,}"


def memory(number: int) -> str:
    """Bytes as GB or MB."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for length, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2f} seconds" if seconds < 10 else f"{seconds:.0f} seconds"


def place(one: CorpusFigures, example: Example) -> str:
    """Where an example stands."""
    return f"{one.unit} {example.number}"


def facts(estimate: "Estimate") -> list[tuple[str, str]]:
    """What training will take, in words."""
    where = estimate.device + (f", {estimate.threads} thread(s)" if estimate.threads else "")
    total = f" of {memory(estimate.available)}" if estimate.available else ""
    parts = f"{memory(estimate.state)} for weights and optimizer, {memory(estimate.activations)} at work"
    if estimate.device == "cpu":
        parts += f", {memory(estimate.copy)} while it saves"
    each = f"{duration(estimate.update_seconds)} an update"
    learning = f", {estimate.learning:,} of them learn" if estimate.learning < estimate.parameters else ""
    return [
        ("parameters", f"{estimate.parameters:,}{learning}"),
        ("memory", f"{memory(estimate.memory)}{total} ({parts})"),
        ("time", f"{duration(estimate.hours * 3600)} on {where}, {estimate.precision} ({each})"),
        ("updates", f"{estimate.updates:,}, each pair seen {estimate.epochs:.1f} times"),
    ]


def _table(*headings: str) -> Table:
    """A table without lines; a heading that begins with > is of figures."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for heading in headings:
        right = heading.startswith(">")
        table.add_column(heading.lstrip(">"), justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
    table.columns[0].max_width = _LABEL
    return table


def _sides(report: Report) -> Iterator[tuple[str, CorpusFigures, Side, int]]:
    for number, one in enumerate(report.found.corpora):
        for side in (0, 1):
            yield "" if side else report.labels()[number], one, one.sides[side], side


def _text(report: Report) -> RenderableType:
    data = report.recipe.data
    table = _table("", ">pairs", ">kept", f">{data.source} words", f">{data.target} words", ">characters", ">")
    for number, one in enumerate(report.found.corpora):
        words, characters = [f"{side.words:,}" for side in one.sides], [size(side.characters) for side in one.sides]
        kept = "all" if one.kept == one.pairs else f"{one.kept:,}"
        table.add_row(report.labels()[number], f"{one.pairs:,}", kept, *words, *characters)
    return table


def bars(counts: Sequence[int]) -> str:
    """A histogram in one line of text."""
    most = max(counts, default=0) or 1
    return "".join(_BARS[-(-8 * count // most)] for count in counts)


def _lengths(report: Report) -> RenderableType:
    table = _table("", "", ">words", ">95%", ">max", ">pieces", ">95%", ">max", "pieces a line")
    for label, _, side, _ in _sides(report):
        words, pieces = side.in_words, side.in_pieces
        figures = [(f"{one.mean:.1f}", f"{one.p95:,}", f"{one.longest:,}") for one in (words, pieces)]
        table.add_row(label, side.language, *figures[0], *figures[1], bars(pieces.counts))
    return table


def _vocabulary(report: Report) -> Iterator[RenderableType]:
    for one in report.found.vocabularies:
        seen = f"{one.used:,} are used, {one.seen_10:,} ten times or more, {one.seen_100:,} a hundred times"
        yield Text(f"{one.language}: {one.entries:,} learned entries; {seen}")
    yield Text(f"The tokenizer is {report.found.tokenizer}.", style="dim")
    table = _table("", "", ">pieces/word", ">in bytes", ">unseen", "for example")
    for label, corpus, side, which in _sides(report):
        unseen = report.found.unseen.get(corpus.key)
        new = share(unseen[which].unseen, unseen[which].words) if unseen else ""
        some = " ".join(list(side.lacking)[:3]) or ", ".join(unseen[which].examples[:2] if unseen else ())
        in_bytes = share(side.in_bytes, side.pieces) if side.in_bytes else "none"
        table.add_row(label, side.language, f"{side.fertility:.2f}", in_bytes, new, shown(some, _SOME))
    yield table


def _findings(report: Report) -> Iterator[RenderableType]:
    for number, one in enumerate(report.found.corpora):
        if not one.findings:
            continue
        yield Text(f"{report.labels()[number]}: {', '.join(one.files)}", overflow="fold")
        for finding in one.findings:
            said = f"{finding.kind}: {finding.pairs:,} {finding.fate} ({share(finding.pairs, one.pairs)})"
            yield Padding(Text(said), (0, 0, 0, 2))
            table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
            some = finding.examples[:_EXAMPLES]
            places = [place(one, example) for example in some]
            table.add_column(style="dim", no_wrap=True, min_width=max(map(len, places), default=0))
            table.add_column(no_wrap=True, overflow="ellipsis")
            for where, example in zip(places, some, strict=True):
                table.add_row(where, Text(f"{example.source}\n{example.target}", no_wrap=True, overflow="ellipsis"))
            yield Padding(table, (0, 0, 0, 4))


def _overlaps(report: Report) -> RenderableType:
    table = _table("", "is in", ">sources", ">", ">same translation", ">pairs there")
    for one in report.found.overlaps:
        if one.found:
            names = (key.removeprefix("data.") for key in (one.key, one.other))
            table.add_row(*names, f"{one.found:,}", share(one.found, one.sources), f"{one.same:,}", f"{one.pairs:,}")
    return table


def _training(estimate: "Estimate") -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for name, value in facts(estimate):
        table.add_row(Text(name, style="dim"), value)
    return table


def _advice(advice: Advice) -> RenderableType:
    text = Text(f"{advice.level}", style=_STYLES[advice.level])
    text.append(f" {advice.key}: ", style="bold")
    return text.append(f"{advice.what}: {advice.mend}.", style="none")
