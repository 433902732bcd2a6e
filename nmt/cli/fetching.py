"""Public corpora by name: `nmt download`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nmt.fetching import Catalogue


def download(
    name: Annotated[str | None, typer.Argument(help="A corpus of the list. [none: print the list]")] = None,
    folder: Annotated[Path, typer.Option(help="Where corpora live; each has a folder of its own there.")] = Path(
        "data"
    ),
    urls: Annotated[
        bool, typer.Option("--urls", help="Fetch nothing; print each URL, where to put the file, and its checksum.")
    ] = False,
    corpora: Annotated[
        Path | None, typer.Option(metavar="FILE", readable=False, help="A list of your own, in YAML. [nmt's own]")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="Attempts after one that got nowhere.")] = 5,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a server that is silent.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """Get a public corpus: fetch it, check it, unpack it, and write it as PREFIX.lang for a recipe.

    Without a name, print the corpora that there are, with size and licence. Stopped in the middle and run again, it
    goes on where it stopped. Where its files lie is printed at the end.
    """
    from nmt.fetching import BUILT_IN, Catalogue, Patience, by_hand
    from nmt.fetching import download as fetch

    catalogue = Catalogue.read(corpora or BUILT_IN)
    if name is None:
        _list(catalogue, as_json)
    elif urls:
        for row in by_hand(catalogue[name], folder):
            print(*row, sep="\t")
    else:
        for path, lines in fetch(name, catalogue[name], folder, Patience(retries, timeout)).items():
            print(path, lines, sep="\t")


def _list(catalogue: "Catalogue", as_json: bool) -> None:
    """The corpora that there are: a table, or for a program all that the list says."""
    if as_json:
        print(json.dumps(catalogue.model_dump(exclude_none=True), indent=2, ensure_ascii=False))
        return
    rows = list(catalogue.rows())
    if not sys.stdout.isatty():
        for row in rows:
            print(*row, sep="\t")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column, heading in enumerate(rows[0]):
        table.add_column(heading, no_wrap=column < 4, justify="right" if column in (2, 3) else "left")
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table)
