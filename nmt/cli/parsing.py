"""Constituency parsing: `nmt trees`, `nmt parse`, `nmt evalb`."""

import json
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from nmt.cli.options import BatchSize, Beam, Device, Penalty, Precision, given, model_of, progress
from nmt.errors import NmtError

MANY_TOKENS = "brackets are several tokens in this model (tokenizer.split_by_unicode_script: false makes them one)"


def trees(
    files: Annotated[list[str], typer.Argument(help="Trees in the brackets of the Penn Treebank, plain or .gz.")],
    output: Annotated[str, typer.Option(help="Write PREFIX.words and PREFIX.tree.", metavar="PREFIX")],
) -> None:
    """Turn a treebank into parallel text, a tree a line: its words, and its brackets and tags as a sequence to learn.

    nmt trees train.mrg --output data/train
    """
    from nmt.parsing import write_pairs

    print(write_pairs(files, output).summary, file=sys.stderr)


def parse(
    model: Annotated[Path, typer.Argument(readable=False, help="A model folder, or the recipe that made it.")],
    files: Annotated[
        list[str] | None, typer.Argument(help="Sentences, one a line, spaces between the words. [standard input]")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Print what the model says, before a tree is made of it.")] = False,
    free: Annotated[bool, typer.Option("--free", help="Let the model say anything, well-formed or not.")] = False,
    beam: Beam = None,
    length_penalty: Penalty = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Parse tokenised sentences: one line in, one tree out, in order; a blank line stays blank.

    The search allows only what can become a tree of the words of the line, or with --free anything; what is malformed
    nevertheless is repaired, and how many took repairs is told at the end.

    nmt parse RECIPE < test.words > test.parsed
    """
    from nmt.parsing import Grammar, Tally, parses
    from nmt.text import lines_of
    from nmt.translation import Translator

    folder, choices = model_of(model)
    translator = Translator.load(folder, device, precision)
    choices |= given(beam=beam, length_penalty=length_penalty, batch_size=batch_size)
    read = deque[str]()  # whose parses are still to come
    lines = lines_of(files or ["-"], read.append)
    tokenizer = translator.tokenizers.target
    grammar = Grammar(tokenizer.pieces(range(tokenizer.vocab_size)))
    if not (free or grammar.usable):
        print(f"{MANY_TOKENS}: the search is free, and more will need repair", file=sys.stderr)
    constrain = grammar.over if grammar.usable and not free else None
    tally = Tally()
    with progress(None, "parsing", not sys.stdout.isatty()) as done:
        choices |= {"split": False, "on_suspect": "off"}
        said = (best.text for (best,) in translator.stream(lines, constrain=constrain, done=done, **choices))
        for found in parses(_popped(read), said):
            tally.add(found)
            print(found.said if raw else found.tree or "", flush=True)
    if not raw:
        print(tally.summary, file=sys.stderr)
    if tally.warning:
        print(tally.warning, file=sys.stderr)


def _popped(lines: deque[str]) -> Iterator[str]:
    while lines:
        yield lines.popleft()


def evalb(
    gold: Annotated[str, typer.Argument(help="The trees as they should be, in brackets, plain or .gz.")],
    parsed: Annotated[str, typer.Argument(help="The trees to be judged, one a line, in the same order.")],
    own_tags: Annotated[
        bool, typer.Option("--own-tags", help="What is punctuation each tree's own tags say, as in EVALB itself.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Score parses against gold trees: labelled precision, recall and F1 as EVALB counts them, by COLLINS.prm.

    nmt evalb test.mrg test.parsed

    Function tags, punctuation and the bracket around the whole do not count; PRT counts as ADVP. What is
    punctuation the gold tags say; with --own-tags a sentence where the tags disagree on it has other words, and does
    not count.
    """
    from nmt.parsing import judge

    if (gold, parsed) == ("-", "-"):
        raise NmtError("-: standard input can be read only once: name a file for the other")
    report = judge(gold, parsed, own_tags=own_tags)
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print(*report.lines(), sep="\n")
    if report.note:
        print(report.note, file=sys.stderr)
