"""What several commands take, and how it is read."""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from nmt.errors import ModelError, NmtError

if TYPE_CHECKING:
    from nmt.search import Sampling

T = TypeVar("T")

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
Precision = Annotated[str, typer.Option(help="fp32, bf16, int8, or auto: bf16 where the device has it in hardware.")]
Beam = Annotated[int | None, typer.Option(min=1, help="Hypotheses kept for each sentence; 1 is greedy. [recipe's]")]
Penalty = Annotated[float | None, typer.Option(min=0, help="Exponent α of the length penalty. [recipe's]")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Sentences translated at once. [recipe's]")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that translate on a CPU. [one per core, once there is enough to do]"),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of each worker; given alone, of this process, which has no workers. [1]"),
]
Others = Annotated[
    list[Path] | None,
    typer.Option(
        "--with", metavar="MODEL", help="Another model of the same vocabulary: both say together. Repeatable."
    ),
]
EPSILON = 0.02  # under which tokens are left out for --mbr, as Freitag et al. 2023 found best


def _searching(text: str, **bounds: Any) -> Any:
    """What is said of an option of the search."""
    return typer.Option(rich_help_panel="Searching", help=f"{text} [recipe's]", **bounds)


def _drawing(text: str, *names: str) -> Any:
    """What is said of an option of sampling."""
    return typer.Option(*names, rich_help_panel="Drawing", help=text)


@dataclass(frozen=True)
class Search:
    """How to search, and what may be said: keys of a recipe's `decode`; what is None is the recipe's."""

    beam: Annotated[int | None, _searching("Hypotheses kept for each sentence; 1 is greedy.", min=1)] = None
    length_penalty: Annotated[
        float | None, _searching("Exponent α of the length penalty: more favours longer output.", min=0)
    ] = None
    coverage_penalty: Annotated[
        float | None, _searching("Weight β of what source that no attention fell on costs; 0 is off.", min=0)
    ] = None
    min_length: Annotated[int | None, _searching("The fewest tokens of an output.", min=0)] = None
    max_ratio: Annotated[
        float | None, _searching("Output stops at the source's tokens times this, plus --max-extra.", min=0)
    ] = None
    max_extra: Annotated[int | None, _searching("Output stops at so many tokens more than that.", min=0)] = None
    no_repeat_ngram: Annotated[int | None, _searching("Say no N tokens in a row twice; 0 is off.", min=0)] = None
    groups: Annotated[
        int | None, _searching("Diverse beam search: groups of the beam that avoid what the others say.", min=1)
    ] = None
    diversity: Annotated[
        float | None, _searching("With --groups: what a token that another group says costs, in nats.", min=0)
    ] = None


RANKING = ("beam", "length_penalty", "coverage_penalty", "groups", "diversity")  # what bounds an output is not here


@dataclass(frozen=True)
class Drawing:
    """How to draw translations instead; what is None is as it is in `Sampling`."""

    sample: Annotated[bool, _drawing("Draw translations by their probability instead of searching.", "--sample")] = (
        False
    )
    temperature: Annotated[float | None, _drawing("Below 1 the likely get likelier; 0 takes the likeliest. [1]")] = None
    top_k: Annotated[int | None, _drawing("Draw from the K likeliest tokens. [all]")] = None
    top_p: Annotated[float | None, _drawing("Draw from the fewest tokens that have probability P. [1]")] = None
    epsilon: Annotated[
        float | None, _drawing(f"Draw from tokens of at least this probability. [0; with --mbr {EPSILON}]")
    ] = None
    seed: Annotated[int | None, _drawing("Another seed draws others. [1]")] = None

    def sampling(self, search: Search, mbr: bool = False) -> "Sampling | None":
        """How to sample, if that is asked for. Raises `NmtError` for options of what is not done: this, or `search`."""
        how = given(**{name: value for name, value in vars(self).items() if name != "sample"})
        if not (self.sample or mbr):
            if how:
                raise NmtError(f"--{next(iter(how)).replace('_', '-')} says how to sample: add --sample")
            return None
        if idle := [name for name in RANKING if getattr(search, name) is not None]:
            name = idle[0].replace("_", "-")
            raise NmtError(f"--{name} says how to search, and translations are drawn: leave it out")
        from nmt.search import Sampling

        if mbr and not how.keys() & {"top_k", "top_p", "epsilon"}:
            how["epsilon"] = EPSILON
        return Sampling(**how)


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each parameter that is a dataclass, such as `Search`, as options of its own: its fields."""
    parameters = inspect.signature(command).parameters.values()
    bundles: dict[str, Any] = {one.name: one.annotation for one in parameters if is_dataclass(one.annotation)}

    def options(one: inspect.Parameter) -> list[inspect.Parameter]:
        if one.name not in bundles:
            return [one]
        return [one.replace(name=f.name, default=f.default, annotation=f.type) for f in fields(bundles[one.name])]

    @wraps(command)
    def gathered(**said: Any) -> None:
        for name, bundle in bundles.items():
            said[name] = bundle(**{field.name: said.pop(field.name) for field in fields(bundle)})
        command(**said)

    several = [option for one in parameters for option in options(one)]
    gathered.__signature__ = inspect.Signature(several)  # type: ignore[attr-defined]
    gathered.__annotations__ = {one.name: one.annotation for one in several}
    return gathered


def seconds(text: str) -> float:
    """A time such as 1d12h, 7h30m, 90m or 45s. Raises `NmtError` for what is none."""
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    parts = re.findall(r"([\d.]+)([dhms])", text) if re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text) else []
    total = sum(float(number) * units[unit] for number, unit in parts)
    if not total:
        raise NmtError(f"--max-time must be a time such as 7h30m, 90m or 45s, found {text}")
    return total


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


def watched(
    lines: Iterable[T], total: int | None = None, what: str = "translating", unit: str = "lines"
) -> Iterable[T]:
    """The lines, with a bar on standard error where that is a terminal."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty()
    bar: Iterable[T] = tqdm(lines, what, total, unit=f" {unit}", disable=hidden, smoothing=0.1, dynamic_ncols=True)
    return bar


def shown() -> bool:
    """Whether there is a terminal to show on how far the work has come."""
    return sys.stderr.isatty()


@contextmanager
def progress(total: int | None, what: str = "translating", show: bool = True) -> Iterator[Callable[[int], object]]:
    """Gives what is told how many more lines are done, and is to `show` it by a bar, on standard error if `shown`."""
    from tqdm import tqdm

    with tqdm(
        desc=what, total=total, unit=" lines", disable=not (show and shown()), smoothing=0.1, dynamic_ncols=True
    ) as bar:
        yield bar.update


def hands(workers: int | None, threads: int | None) -> dict[str, Any]:
    """How many workers share the work, with how many threads each; threads alone are those of this process."""
    if threads is None or (workers or 1) > 1:
        return {"workers": workers, "threads": threads or 1}
    import torch

    torch.set_num_threads(threads)
    return {"workers": 1}
