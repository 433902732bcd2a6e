"""What several commands take, and how it is read."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nmt.errors import ModelError, NmtError

if TYPE_CHECKING:
    from nmt.search import Sampling

RecipePath = Annotated[  # that it cannot be read we say ourselves, as of any other file
    Path, typer.Argument(metavar="RECIPE", readable=False, help="The YAML file that says every choice of the run.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the recipe, e.g. --set train.steps=1000. Repeatable."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto: the GPU if there is one.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16, or auto: bf16 where the device has it in hardware.")]
Beam = Annotated[int | None, typer.Option(min=1, help="Hypotheses kept for each sentence; 1 is greedy. [recipe's]")]
Penalty = Annotated[float | None, typer.Option(min=0, help="Exponent α of the length penalty. [recipe's]")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Sentences translated at once. [recipe's]")]
Others = Annotated[
    list[Path] | None,
    typer.Option(
        "--with", metavar="MODEL", help="Another model of the same vocabulary: both say together. Repeatable."
    ),
]
Sample = Annotated[bool, typer.Option("--sample", help="Draw translations by their probability instead of searching.")]
Temperature = Annotated[
    float | None, typer.Option(help="With --sample: below 1 the likely gets likelier; 0 takes the likeliest. [1]")
]
TopK = Annotated[int | None, typer.Option(help="With --sample: draw from the K likeliest tokens. [all]")]
TopP = Annotated[
    float | None, typer.Option(help="With --sample: draw from the fewest tokens that have probability P. [1]")
]
Seed = Annotated[int | None, typer.Option(help="With --sample: another seed draws others. [1]")]


def seconds(text: str) -> float:
    """A time such as 1d12h, 7h30m, 90m or 45s. Raises `NmtError` for what is none."""
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    if not re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
        raise NmtError(f"--max-time must be a time such as 7h30m, 90m or 45s, found {text}")
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([dhms])", text))


def model_of(path: Path) -> tuple[Path, dict[str, Any]]:
    """The model folder that is meant: itself, or where a recipe says it lies; and how that recipe decodes."""
    from nmt import recipe as recipes

    if path.is_dir():
        return path, {}
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder: name a model folder or a recipe")
    recipe = recipes.load(path)
    return recipes.Layout.of(recipe).model, recipe.decode.model_dump()


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, by name."""
    return {name: value for name, value in options.items() if value is not None}


def sampling(sample: bool, **options: Any) -> "Sampling | None":
    """How to sample, if that is asked for. Raises `NmtError` for options that say how where it is not."""
    how = given(**options)
    if sample:
        from nmt.search import Sampling

        return Sampling(**how)
    if how:
        raise NmtError(f"--{next(iter(how)).replace('_', '-')} says how to sample: add --sample")
    return None


def watched(
    lines: Iterable[Any], total: int | None = None, what: str = "translating", unit: str = "lines"
) -> Iterable[Any]:
    """The lines, with a bar on standard error where that is a terminal."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty()
    bar: Iterable[Any] = tqdm(lines, what, total, unit=f" {unit}", disable=hidden, smoothing=0.1, dynamic_ncols=True)
    return bar
