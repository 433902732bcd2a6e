"""Using and judging a translator: `nmt translate`, `nmt score`."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from nmt.cli.options import (
    BatchSize,
    Beam,
    Changes,
    Device,
    Others,
    Penalty,
    Precision,
    Sample,
    Seed,
    Temperature,
    TopK,
    TopP,
    given,
    model_of,
    sampling,
    watched,
)
from nmt.errors import NmtError, RecipeError


def translate(
    model: Annotated[Path, typer.Argument(readable=False, help="A model folder, or the recipe that made it.")],
    files: Annotated[list[str] | None, typer.Argument(help="Text, a sentence a line. [standard input]")] = None,
    others: Others = None,
    beam: Beam = None,
    length_penalty: Penalty = None,
    n_best: Annotated[
        int, typer.Option(min=1, help="Print N translations a line, as 'line ||| text ||| score', lines from 0.")
    ] = 1,
    alignments: Annotated[
        bool, typer.Option("--alignments", help="Add ' ||| 0-0 1-2': which words belong together, source-translation.")
    ] = False,
    tag: Annotated[
        str, typer.Option(help="Put this before every line, such as '<2de>': what the model is to do. [nothing]")
    ] = "",
    sample: Sample = False,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Translate text, line by line: one line in, one line out, in order; a blank line stays blank.

    nmt translate RECIPE < in.txt > out.txt

    nmt translate MODEL --with ANOTHER < in.txt > out.txt
    """
    from nmt.text import read_lines
    from nmt.translation import Translation, Translator, pharaoh

    def told(number: int, t: Translation) -> str:
        fields = [t.text] if n_best == 1 else [str(number), t.text, f"{t.score:.4f}"]
        return " ||| ".join([*fields, pharaoh(t.alignment)] if alignments else fields) + "\n"

    folder, choices = model_of(model)
    how = sampling(sample, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    translator = Translator.load(folder, device, precision, [model_of(other)[0] for other in others or ()])
    choices |= given(beam=beam, length_penalty=length_penalty, batch_size=batch_size)
    typed = not files and sys.stdin.isatty()
    lines: Iterable[str] = (line for file in files or ["-"] for line in read_lines(file))
    lines = lines if typed else watched(lines)
    found = translator.stream(lines, n_best, at_once=typed, alignments=alignments, tag=tag, sampling=how, **choices)
    for number, best in enumerate(found):
        sys.stdout.write("".join(told(number, t) for t in best))
        if typed:
            sys.stdout.flush()


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
        choices = given(beam=beam, length_penalty=length_penalty)
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
        for test in translate_test_sets(recipe, translator, watched, **choices)
    ]
