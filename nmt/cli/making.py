"""Making a translator: `nmt prepare`, `nmt train`, `nmt average`."""

from pathlib import Path
from typing import Annotated

import typer

from nmt.cli.options import Changes, Device, RecipePath, seconds


def prepare(
    recipe: RecipePath,
    changes: Changes = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that encode. [one per core]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Prepare all of it again, whatever is there.")] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Encode only the I-th of N shares; run with each I, where and when you like."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Check and join what --shard made; refuse if any of it is missing.")
    ] = False,
) -> None:
    """Turn raw parallel text into a BPE vocabulary and token shards, in RUN/data.

    Says what was dropped and why; run again with nothing changed, it does nothing. Interrupted and run again, it goes
    on where it stopped: until all is done, what is done lies in RUN/data.partial.

    On many machines that share a disk, such as nodes under Slurm:

    nmt prepare RECIPE --shard 1/8, … and nmt prepare RECIPE --shard 8/8, and after them nmt prepare RECIPE --merge

    The first share to begin learns the vocabulary, and the others wait for that. The result is the same to the byte.
    """
    from nmt import recipe as recipes
    from nmt.data import prepare

    prepare(recipes.load(recipe, changes or ()), workers=workers, force=force, shard=shard, merge=merge)


def train(
    recipe: RecipePath,
    changes: Changes = None,
    device: Device = "auto",
    max_time: Annotated[
        float | None,
        typer.Option(
            parser=seconds,
            metavar="TIME",
            help="Save and leave after this long: 7h30m, 90m, 45s. The exit code is 142.",
        ),
    ] = None,
    fsdp: Annotated[
        bool,
        typer.Option(
            "--fsdp", help="For a model too large for one GPU: each of several processes holds a share of it (FSDP2)."
        ),
    ] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same bits each time on a GPU too; somewhat slower.")
    ] = False,
) -> None:
    """Train the model; checkpoints land in RUN/checkpoints, figures in RUN/metrics.jsonl.

    Run again, it goes on from the last checkpoint. Ctrl-C, SIGTERM and SIGUSR1 save first; the exit code then is 128
    plus the number of the signal.
    """
    from nmt import recipe as recipes
    from nmt.training import train

    if stopped := train(recipes.load(recipe, changes or ()), device, max_time, fsdp, deterministic):
        raise typer.Exit(128 + stopped)


def average(
    recipe: RecipePath,
    changes: Changes = None,
    last: Annotated[int | None, typer.Option(min=1, help="How many of the last checkpoints. [average.last]")] = None,
    best: Annotated[int | None, typer.Option(min=1, help="How many of the best instead. [average.best]")] = None,
    checkpoint: Annotated[list[Path] | None, typer.Option(help="A checkpoint by its folder. Repeatable.")] = None,
    output: Annotated[Path | None, typer.Option(help="The model folder to write. [RUN/model]")] = None,
) -> None:
    """Average the last checkpoints, or the best, into the model that translates, RUN/model.

    Its folder holds the recipe, the tokenizer and the weights: all that a translator needs.
    """
    from nmt import recipe as recipes
    from nmt.training import average

    print(average(recipes.load(recipe, changes or ()), last, best, checkpoint or (), output))
