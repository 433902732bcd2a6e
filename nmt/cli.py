"""The command line: each command reads the recipe, calls one function and prints.

torch is imported inside the commands that need it, so that `nmt --help` answers at once.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from nmt.errors import ModelError, NmtError, RecipeError
from nmt.files import output_error


class Commands(TyperGroup):
    """What the user can mend is one line on standard error and exit code 2, whichever command says it."""

    def invoke(self, context: Any) -> Any:
        """Runs the command that is named."""
        try:
            try:
                return super().invoke(context)
            finally:
                sys.stdout.flush()  # what came before a fault is kept; and only here may the disk be full
        except NmtError as error:
            _leave(f"nmt: error: {error}", 2)
        except KeyboardInterrupt:
            _leave("nmt: interrupted", 128 + signal.SIGINT)
        except BrokenPipeError:  # the reader has what it wanted, as `nmt translate | head` does
            _leave("", 128 + signal.SIGPIPE)
        except OSError as error:
            if error.filename or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise
            _leave(f"nmt: error: {output_error('standard output', error)}", 2)


app = typer.Typer(
    name="nmt",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""A machine translation toolkit: from raw parallel text to a translator, in five commands.

    **nmt prepare** R, **nmt train** R, **nmt average** R, then **nmt translate** R < in > out and **nmt score** R,
    where R is a recipe such as recipes/quickstart.yaml: the one file that says every choice of a run.""",
)

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


@app.command()
def prepare(
    recipe: RecipePath,
    changes: Changes = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that encode. [one per core]")] = None,
    force: Annotated[bool, typer.Option(help="Prepare again even if nothing has changed.")] = False,
) -> None:
    """Turn raw parallel text into a BPE vocabulary and token shards, in RUN/data.

    Says what was dropped and why; run again with nothing changed, it does nothing.
    """
    from nmt import recipe as recipes
    from nmt.data import prepare

    prepare(recipes.load(recipe, changes or ()), workers=workers, force=force)


@app.command()
def train(recipe: RecipePath, changes: Changes = None, device: Device = "auto") -> None:
    """Train the model; checkpoints land in RUN/checkpoints, figures in RUN/metrics.jsonl.

    Run again, it goes on from the last checkpoint. Ctrl-C and SIGTERM save first; the exit code then is 128 plus the
    number of the signal.
    """
    from nmt import recipe as recipes
    from nmt.training import train

    if stopped := train(recipes.load(recipe, changes or ()), device):
        raise typer.Exit(128 + stopped)


@app.command()
def average(
    recipe: RecipePath,
    changes: Changes = None,
    last: Annotated[int | None, typer.Option(min=1, help="How many of the last checkpoints. [average.last]")] = None,
    checkpoint: Annotated[list[Path] | None, typer.Option(help="A checkpoint by its folder. Repeatable.")] = None,
    output: Annotated[Path | None, typer.Option(help="The model folder to write. [RUN/model]")] = None,
) -> None:
    """Average the last checkpoints into the model that translates, RUN/model.

    Its folder holds the recipe, the tokenizer and the weights: all that a translator needs.
    """
    from nmt import recipe as recipes
    from nmt.training import average

    print(average(recipes.load(recipe, changes or ()), last, checkpoint or (), output))


@app.command()
def translate(
    model: Annotated[Path, typer.Argument(readable=False, help="A model folder, or the recipe that made it.")],
    files: Annotated[list[str] | None, typer.Argument(help="Text, a sentence a line. [standard input]")] = None,
    beam: Beam = None,
    length_penalty: Penalty = None,
    n_best: Annotated[
        int, typer.Option(min=1, help="Print N translations a line, as 'line ||| text ||| score', lines from 0.")
    ] = 1,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sentences translated at once. [recipe's]")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Translate text, line by line: one line in, one line out, in order; a blank line stays blank.

    nmt translate RECIPE < in.txt > out.txt
    """
    from nmt.text import read_lines
    from nmt.translation import Translator

    folder, choices = _model(model)
    translator = Translator.load(folder, device, precision)
    choices |= _given(beam=beam, length_penalty=length_penalty, batch_size=batch_size)
    typed = not files and sys.stdin.isatty()
    lines: Iterable[str] = (line for file in files or ["-"] for line in read_lines(file))
    lines = lines if typed else _watched(lines)
    for number, best in enumerate(translator.stream(lines, n_best, at_once=typed, **choices)):
        texts = [t.text for t in best] if n_best == 1 else [f"{number} ||| {t.text} ||| {t.score:.4f}" for t in best]
        sys.stdout.write("".join(text + "\n" for text in texts))
        if typed:
            sys.stdout.flush()


@app.command()
def score(
    hypotheses: Annotated[
        list[str], typer.Argument(metavar="RECIPE | HYPOTHESES...", help="A recipe; or with --reference, translations.")
    ],
    reference: Annotated[list[str] | None, typer.Option(help="A reference file; several are alternatives.")] = None,
    tokenize: Annotated[
        str | None, typer.Option(help="sacreBLEU's tokenization: 13a, none for tokenised text, zh, … [13a]")
    ] = None,
    lowercase: Annotated[bool, typer.Option(help="Compare without case (BLEU and chrF++).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    show: Annotated[int, typer.Option(min=0, help="With a recipe: print this many sample translations.")] = 0,
    changes: Changes = None,
    beam: Beam = None,
    length_penalty: Penalty = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Translate and score a recipe's test sets; or score files of translations against a reference.

    nmt score RECIPE

    nmt score --reference REF.de ours.de theirs.de

    BLEU, chrF++ and TER by sacreBLEU, with signatures and 95 % intervals; with several systems, p-values of a paired
    bootstrap against the first. `-` is standard input.
    """
    how = {"tokenize": tokenize, "lowercase": lowercase}
    if reference:
        scored: Scored = [("files", _score_files(reference, hypotheses, how), [])]
    elif len(hypotheses) > 1:
        raise NmtError("several files to score need --reference FILE; without it, name one recipe")
    else:
        choices = _given(beam=beam, length_penalty=length_penalty)
        scored = _score_recipe(Path(hypotheses[0]), changes or [], how, show, choices, device, precision)
    if as_json:
        values = {
            name: report.to_json() | ({"samples": samples} if samples else {}) for name, report, samples in scored
        }
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return
    for name, report, samples in scored:
        for sample in samples:
            print(*(f"{kind:<12} {text}" for kind, text in sample.items()), "", sep="\n")
        print(*([] if reference else [f"{name}:"]), *report.lines(), sep="\n")


Scored = list[tuple[str, Any, list[dict[str, str]]]]
"""For each test set its name, a `Report`, and samples of its translation."""


def _score_files(references: list[str], hypotheses: list[str], how: dict[str, Any]) -> Any:
    from nmt.evaluation import score
    from nmt.text import read_lines

    if (references + hypotheses).count("-") > 1:
        raise NmtError("-: standard input can be read only once: name files for the others")
    systems = {name: list(read_lines(name)) for name in hypotheses}
    return score([list(read_lines(name)) for name in references], systems, **how)


def _score_recipe(
    path: Path, changes: list[str], how: dict[str, Any], show: int, choices: dict[str, Any], device: str, precision: str
) -> Scored:
    from nmt import recipe as recipes
    from nmt.evaluation import score
    from nmt.translation import Translator, translate_test_sets

    try:
        recipe = recipes.load(path, changes)
    except RecipeError as error:
        raise RecipeError(f"{error}; to score a file of translations, add --reference FILE") from None
    translator = Translator.load(recipes.Layout.of(recipe).model, device, precision)
    return [
        (test.name, score(test.references, {recipe.run: test.translations}, **how), test.samples(show))
        for test in translate_test_sets(recipe, translator, _watched, **choices)
    ]


def _model(path: Path) -> tuple[Path, dict[str, Any]]:
    """The model folder that is meant: itself, or where a recipe says it lies; and how that recipe decodes."""
    from nmt import recipe as recipes

    if path.is_dir():
        return path, {}
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder: name a model folder or a recipe")
    recipe = recipes.load(path)
    return recipes.Layout.of(recipe).model, recipe.decode.model_dump()


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _watched(lines: Iterable[str], total: int | None = None, what: str = "translating") -> Iterable[str]:
    """The lines, with a bar on standard error where that is a terminal."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty()
    bar: Iterable[str] = tqdm(lines, what, total, unit=" lines", disable=hidden, smoothing=0.1, dynamic_ncols=True)
    return bar


def main() -> None:
    """The command `nmt`: text is UTF-8 whatever the locale, and SIGTERM leaves nothing half-written either."""
    if sys.stdout is None:
        _leave("nmt: error: standard output is closed: name a file for it, or /dev/null", 2)
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    app()


def _leave(message: str, code: int) -> NoReturn:
    """Ends at once: standard output may be a pipe that nobody reads any more."""
    if message:
        print(message, file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


if __name__ == "__main__":
    main()
