"""Looking at text before anything is made of it: `nmt check`."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from nmt.cli.options import Changes, Device, RecipePath
from nmt.errors import DataError


def check(
    recipe: RecipePath,
    changes: Changes = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a web page with plots, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Read only the first so many pairs of each corpus, for a quick look.")
    ] = None,
    no_estimate: Annotated[bool, typer.Option("--no-estimate", help="Do not measure what training will take.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with exit code 2 after a warning, too.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that encode. [one per core]")] = None,
    device: Device = "auto",
) -> None:
    """Say what is in a recipe's text and what to mend, without training.

    Counts, lengths, vocabulary, suspicious pairs with their lines, overlap of training text with held-out text, and the
    memory and time that training will take. It works before `nmt prepare` and after, and leaves the run folder alone.
    The exit code is 0 where the text is usable, and 2 where it is not.
    """
    from nmt import recipe as recipes
    from nmt.files import whole_file
    from nmt.processes import cores
    from nmt.report.diagnosis import Report

    asked = recipes.load(recipe, changes or ())
    report = Report.on(asked, sample=sample, workers=workers or cores(), device=None if no_estimate else device)
    if html:
        from nmt.report.diagnosis_page import page

        with whole_file(html) as file:
            file.write(page(report, import_module("nmt").__version__).encode())
    if as_json:
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        report.print(sys.stdout)
    if report.count("error") or (strict and report.count("warning")):
        raise DataError(f"{recipe}: {report.verdict}{'' if report.count('error') else ', but --strict was given'}")
