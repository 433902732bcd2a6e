"""More training text from a model's translations: `nmt backtranslate`, `nmt distill`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nmt.cli.options import (
    BatchSize,
    Device,
    Drawing,
    Others,
    Precision,
    Search,
    given,
    model_of,
    spread,
)

if TYPE_CHECKING:
    from nmt.growing import How

Output = Annotated[
    str, typer.Option(metavar="PREFIX", help="Write PREFIX.SOURCE and PREFIX.TARGET, for a recipe to list as PREFIX.")
]
Several = Annotated[int, typer.Option("--n-best", min=1, help="Write N translations of each line, N pairs.")]
ShardOf = Annotated[
    str,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do part I of N only; all, one after another, are the whole. auto asks torchrun or srun.",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes that translate on a CPU, one thread each. [one per core]")
]
Force = Annotated[bool, typer.Option("--force", help="Begin anew, whatever was made before.")]


@spread
def backtranslate(
    model: Annotated[
        Path,
        typer.Argument(readable=False, help="A model from the target language to the source, or its recipe."),
    ],
    files: Annotated[list[str] | None, typer.Argument(help="Text of the target language. [standard input]")] = None,
    *,
    output: Output,
    others: Others = None,
    tag: Annotated[
        str, typer.Option(help="The tag that the next recipe puts before these sources; '' is none.")
    ] = "<BT>",
    search: Search,
    n_best: Several = 1,
    drawing: Drawing,
    shard: ShardOf = "1/1",
    workers: Workers = None,
    batch_size: BatchSize = None,
    force: Force = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Make parallel text of monolingual text, by a model that translates backwards.

    nmt backtranslate DE-EN-RECIPE news.de.gz --output data/bt --sample

    For English to German, a model from German to English gives German lines English sources. Stopped and run again, it
    goes on where it was. At the end it prints what the next recipe lists.
    """
    from nmt import growing

    decode = given(**vars(search), batch_size=batch_size)
    how = _how(model, others, decode, shard, sampling=drawing.sampling(search), n_best=n_best, device=device,
               precision=precision, workers=workers, force=force)  # fmt: skip
    grown = growing.backtranslate(files or ["-"], output, how)
    print(grown.listing(how.recipe.data.train, tag), end="")


@spread
def distill(
    teacher: Annotated[Path, typer.Argument(readable=False, help="A model folder, or the recipe that made it.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Text of the source language. [what the teacher was trained on]"),
    ] = None,
    *,
    output: Output,
    others: Others = None,
    recipe: Annotated[
        Path | None, typer.Option(readable=False, help="Distil the training text of this recipe.")
    ] = None,
    closest: Annotated[
        Literal["bleu", "chrf"] | None,
        typer.Option(help="Of the beam, or of N, take the translation closest to the reference."),
    ] = None,
    search: Search,
    n_best: Several = 1,
    drawing: Drawing,
    shard: ShardOf = "1/1",
    workers: Workers = None,
    batch_size: BatchSize = None,
    force: Force = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Make training text for a small model of a large one's translations.

    nmt distill TEACHER --with ANOTHER --output data/distilled

    Stopped and run again, it goes on where it was. At the end it prints what the next recipe lists.
    """
    from nmt import growing
    from nmt import recipe as recipes

    decode = given(**vars(search), batch_size=batch_size)
    how = _how(teacher, others, decode, shard, sampling=drawing.sampling(search), n_best=n_best, device=device,
               precision=precision, workers=workers, force=force)  # fmt: skip
    data = recipes.load(recipe).data if recipe else None
    print(growing.distill(files or [], output, how, data, closest).listing(), end="")


def _how(model: Path, others: list[Path] | None, decode: dict[str, Any], shard: str, **how: Any) -> "How":
    """How the models are to translate, as their options say."""
    from nmt.growing import How
    from nmt.processes import Shard

    folder, choices = model_of(model)
    models = (folder, *(model_of(other)[0] for other in others or ()))
    return How(models, choices | decode, shard=Shard.parse(shard), **how)
