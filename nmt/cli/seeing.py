"""Seeing how a model learned and what it does: `nmt report`, `nmt attention`."""

import errno
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import typer

from nmt.cli.options import Device, Precision, model_of
from nmt.errors import NmtError
from nmt.files import output_error


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", readable=False, help="A run folder, or its recipe; or several.")
    ],
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="The page to write. [RUN/report.html]")] = None,
) -> None:
    """Write a web page about a training, or about several side by side.

    nmt report RECIPE

    nmt report runs/one runs/another --output both.html

    It has curves, speed, settings, the scores and translations that nmt score left, BLEU by length, and how some
    sentences were translated while the model learned. It opens without a network, and may be written at any time: while
    training goes on, too.
    """
    from nmt.files import whole_file
    from nmt.report.runs import Run
    from nmt.report.training import page

    found = [Run.at(path) for path in runs]
    content = page(found, import_module("nmt").__version__)
    place = output or found[0].layout.report
    with whole_file(place, "w") as file:
        file.write(content)
    print(place)


def attention(
    model: Annotated[Path, typer.Argument(readable=False, help="A model folder, or the recipe that made it.")],
    source: Annotated[str, typer.Argument(help="A sentence to translate.")],
    target: Annotated[str | None, typer.Argument(help="Its translation. [the model's]")] = None,
    output: Annotated[
        Path, typer.Option(help="The file to write: .html to look around in; .png, .svg or .pdf to print.")
    ] = Path("attention.html"),
    kind: Annotated[
        Literal["encoder", "decoder", "cross"], typer.Option(help="Self-attention of one side, or to the source.")
    ] = "cross",
    layer: Annotated[
        int | None, typer.Option(min=1, help="Which layer, from 1. [page: the one before the last; picture: all]")
    ] = None,
    head: Annotated[
        int | None, typer.Option(min=1, help="Which head, from 1. [page: their mean; picture: all]")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Show what each layer and head looks at in a sentence and its translation, as a web page or a picture.

    nmt attention RECIPE "A sentence." --output attention.html
    """
    from nmt.files import whole_file
    from nmt.report import attention as report
    from nmt.report import figure

    form = _form(output)
    if form != "html":
        figure.require()
    folder, choices = model_of(model)
    found = report.look(folder, source, target, device, precision, **choices)
    choice = report.Choice(kind, layer and layer - 1, head and head - 1)
    report.check(found, choice)
    if target is None:
        _tell(f"translation: {found.target}")
    if form == "html":
        content = report.page(found, choice, import_module("nmt").__version__).encode()
    else:
        content = figure.draw(found, choice, form, _tell)
    with whole_file(output) as file:
        file.write(content)
    print(output)


def _form(path: Path) -> str:
    """What kind of file is meant by its name. Raises `NmtError`."""
    if path.is_dir():
        raise output_error(path, IsADirectoryError(errno.EISDIR, ""))
    form = path.suffix.lower().removeprefix(".")
    if form not in ("html", "png", "svg", "pdf"):
        raise NmtError(f"{path}: name a file that ends in .html, .png, .svg or .pdf: that says what is written")
    return form


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
