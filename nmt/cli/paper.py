"""What "Attention Is All You Need" (Vaswani et al., 2017) says, from the command line: `nmt table3`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from nmt.recipe import Recipe
    from nmt.recipe.table3 import Row


def table3(
    row: Annotated[str | None, typer.Argument(help="base, A1 to A4, B1, B2, C1 to C7, D1 to D4, E or big.")] = None,
    base: Annotated[
        Path | None,
        typer.Option(metavar="RECIPE", readable=False, help="Vary this recipe instead of the paper's base model."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Print table 3 of the paper with our numbers of parameters; or, with a row of it, the recipe of that row.

    nmt table3 C1 > c1.yaml

    With --base, layers, widths, heads and updates are multiplied by what the paper multiplies its own by; dropout,
    label smoothing and positions become what the row says; text and vocabulary stay.
    """
    from nmt import recipe as recipes
    from nmt.recipe import table3

    other = None if base is None else recipes.load(base)
    if row is not None:
        print(
            *_head(_entry(table3.row(row), other), base),
            recipes.dump(table3.recipe_of(table3.row(row), other)),
            sep="\n",
            end="",
        )
        return
    entries = [_entry(found, other) for found in table3.ROWS]
    if as_json:
        print(json.dumps([entry.to_json() for entry in entries], indent=2, ensure_ascii=False))
    else:
        _print_table(entries)


class _Entry(NamedTuple):
    """A row with what we count."""

    row: "Row"
    recipe: "Recipe"
    differences: list[str]
    parameters: int
    with_said_vocabulary: int | None
    """The same with the vocabulary of section 5.1; None for another base than the paper's."""

    def to_json(self) -> dict[str, Any]:
        """All of it, by name."""
        ours = {"parameters": self.parameters, "vocabulary": self.recipe.tokenizer.vocab_size}
        if self.with_said_vocabulary is not None:
            ours |= {"parameters_with_37000": self.with_said_vocabulary}
        paper = {name: getattr(self.row, name) for name in ("millions", "steps", "perplexity", "bleu")}
        return {"row": self.row.name, "differs": self.differences, **ours, "paper": paper}


def _entry(row: "Row", base: "Recipe | None") -> _Entry:
    from nmt.recipe import table3

    recipe = table3.recipe_of(row, base)
    said = None if base else _parameters(recipe, table3.SAID_VOCABULARY)
    differences = table3.differences(recipe, base or table3.BASE)
    return _Entry(row, recipe, differences, _parameters(recipe, recipe.tokenizer.vocab_size), said)


def _parameters(recipe: "Recipe", vocabulary: int) -> int:
    """Trained numbers of the recipe's model; it is only drawn up, and takes no memory."""
    import torch

    from nmt.model.transformer import Transformer

    with torch.device("meta"):
        return Transformer(recipe.model, vocabulary, vocabulary).parameter_count()


def _head(entry: _Entry, base: Path | None) -> list[str]:
    """The comment above a row's recipe."""
    row, recipe = entry.row, entry.recipe
    of = "the paper's base model" if base is None else str(base)
    changes = ", ".join(entry.differences) or "nothing"
    millions = f"{row.parameters} million parameters"
    lines = [
        f'# Table 3 of "Attention Is All You Need" (Vaswani et al., 2017), row {row.name}.',
        "#",
        f"# Differs from {of} in: {changes}.",
        f"# The paper, on newstest2013, the last checkpoint alone: perplexity {row.perplexity:.2f} per subword, BLEU "
        f"{row.bleu:.1f}; {millions}.",
        f"# This recipe: {entry.parameters / 1e6:.1f} million parameters with a vocabulary of "
        f"{recipe.tokenizer.vocab_size:,}.",
    ]
    if base is not None:
        lines.append(
            "# Sizes are multiplied as the paper multiplies its own; text and vocabulary are the base recipe's."
        )
    return [*lines, ""]


def _print_table(entries: list[_Entry]) -> None:
    """As a table on a terminal, as aligned text in a pipe."""
    ours = entries[0].with_said_vocabulary is not None
    headings = ["row", "differs in", "vocabulary", "parameters"]
    headings += ["paper", "off by", "with 37,000", "off by"] if ours else []
    headings += ["PPL", "BLEU"]
    cells = [_cells(entry) for entry in entries]
    notes = ["PPL and BLEU are the paper's, on newstest2013; parameters are in millions."]
    if ours:
        notes.append("(65): blank in the paper, which means that of base. Vocabularies: docs/table3.md.")
    else:
        notes.append("Sizes are multiplied as the paper multiplies its own; text and vocabulary are the base recipe's.")
    if sys.stdout.isatty():
        _on_terminal(headings, cells, notes)
        return
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    for line in (headings, *cells):
        aligned = (
            f"{cell:<{width}}" if i < 2 else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(aligned).rstrip())
    print("", *notes, sep="\n")


def _cells(entry: _Entry) -> list[str]:
    row = entry.row
    cells = [row.name, ", ".join(entry.differences) or "—", f"{entry.recipe.tokenizer.vocab_size:,}"]
    cells.append(f"{entry.parameters / 1e6:.1f}")
    if entry.with_said_vocabulary is not None:
        paper = f"{row.millions}" if row.millions else f"({row.parameters})"
        cells += [paper, _off(entry.parameters, row), f"{entry.with_said_vocabulary / 1e6:.1f}"]
        cells.append(_off(entry.with_said_vocabulary, row))
    return [*cells, f"{row.perplexity:.2f}", f"{row.bleu:.1f}"]


def _off(parameters: int, row: "Row") -> str:
    """How far a count is from the paper's."""
    percent = round(100 * (parameters / (row.parameters * 1e6) - 1), 1)
    return f"{percent + 0.0:+.1f} %"  # -0.0 + 0.0 is 0.0


def _on_terminal(headings: list[str], cells: list[list[str]], notes: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Table 3 of “Attention Is All You Need”", caption="\n".join(notes), caption_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 2 else "right")
    for before, line in zip([None, *cells], cells, strict=False):
        if before and before[0][0] != line[0][0]:
            table.add_section()
        table.add_row(*line)
    Console().print(table)
