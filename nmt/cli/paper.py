"""What "Attention Is All You Need" (Vaswani et al., 2017) says, from the command line: `nmt table3`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nmt.recipe.table3 import Table


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

    wanted = None if row is None else table3.row(row)
    other = None if base is None else recipes.load(base)

    from nmt.model.size import parameter_count

    if wanted:
        print(table3.commented(wanted, parameter_count, other, str(base)), end="")
        return
    table = table3.Table.of(parameter_count, other, str(base))
    if as_json:
        print(json.dumps(table.to_json(), indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        _on_terminal(table)
    else:
        print(*table.lines(), sep="\n")


def _on_terminal(table: "Table") -> None:
    """The table with lines drawn between the groups of its rows."""
    from rich.console import Console
    from rich.table import Table as Drawn

    drawn = Drawn(title=table.title, caption="\n".join(table.notes), caption_justify="left")
    for number, heading in enumerate(table.headings):
        drawn.add_column(heading, justify="left" if number < 2 else "right")
    before = ""
    for cells in table.cells:
        if before and before != cells[0][0]:
            drawn.add_section()
        before = cells[0][0]
        drawn.add_row(*cells)
    Console().print(drawn)
