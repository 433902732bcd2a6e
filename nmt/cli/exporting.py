"""Models for other tools: `nmt export`."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from nmt.cli.options import Beam, Penalty, given, model_of, watched


def export(
    model: Annotated[Path, typer.Argument(readable=False, help="A model folder, or the recipe that made it.")],
    to: Annotated[Literal["ctranslate2"], typer.Option(help="The tool that is to run it.")],
    output: Annotated[Path, typer.Option(help="The folder to write.", metavar="FOLDER")],
    quantization: Annotated[
        Literal["float32", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16"],
        typer.Option(help="What its weights are kept in; int8 computes in it too."),
    ] = "float32",
    beam: Beam = None,
    length_penalty: Penalty = None,
) -> None:
    """Write a model for CTranslate2, and prove that it translates as ours does: both translate a built-in sample.

    nmt export RECIPE --to ctranslate2 --quantization int8 --output FOLDER > translate.py

    Nothing is written unless greedy search says the same in both, with the same scores, in float32. What a quantisation
    changes is told then, and how the searches differ. On standard output comes Python that translates by the folder.
    """
    from nmt.interop import export as write

    folder, choices = model_of(model)
    choices |= given(beam=beam, length_penalty=length_penalty)
    done = write(folder, output, quantization, watched=partial(watched, unit="batches"), **choices)
    print(*done.told, sep="\n", file=sys.stderr)
    print(done.snippet, end="")
