"""Constituency parsing: `nmt trees`, `nmt parse`, `nmt evalb`."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from pathlib import Path
from typing import Annotated, Any

import typer

from nmt.cli.options import Beam, Device, Penalty, Precision, given, model_of, watched
from nmt.errors import NmtError


def trees(
    files: Annotated[list[str], typer.Argument(help="Trees in the brackets of the Penn Treebank, plain or .gz.")],
    output: Annotated[Path, typer.Option(help="Write PREFIX.words and PREFIX.tree.", metavar="PREFIX")],
) -> None:
    """Turn a treebank into parallel text, a tree a line: its words, and its brackets as a sequence to learn.

    nmt trees train.mrg --output data/train
    """
    from nmt.files import make_folder, whole_file
    from nmt.parsing import linearise, read_trees

    make_folder(output.parent)
    kept = left_out = 0
    with whole_file(f"{output}.words", "w") as words, whole_file(f"{output}.tree", "w") as sequences:
        for file in files:
            for tree in read_trees(file):
                if tree.children:
                    kept += 1
                    words.write(" ".join(tree.words()) + "\n")
                    sequences.write(linearise(tree) + "\n")
                else:
                    left_out += 1
    because = ": they have no words" if left_out else ""
    print(f"{kept + left_out:,} trees read, {left_out:,} left out{because}", file=sys.stderr)


def parse(
    model: Annotated[Path, typer.Argument(readable=False, help="A model folder, or the recipe that made it.")],
    files: Annotated[
        list[str] | None, typer.Argument(help="Sentences, one a line, spaces between the words. [standard input]")
    ] = None,
    raw: Annotated[bool, typer.Option(help="Print what the model says, before a tree is made of it.")] = False,
    beam: Beam = None,
    length_penalty: Penalty = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sentences parsed at once. [recipe's]")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Parse tokenised sentences: one line in, one tree out, in order; a blank line stays blank.

    What the model says is made a tree of exactly the words of the line; how many took repairs is told at the end.

    nmt parse RECIPE < test.words > test.parsed
    """
    from nmt.parsing import KINDS, restore, split_words
    from nmt.text import read_lines
    from nmt.translation import Translator

    folder, choices = model_of(model)
    translator = Translator.load(folder, device, precision)
    choices |= given(beam=beam, length_penalty=length_penalty, batch_size=batch_size)
    typed = not files and sys.stdin.isatty()
    lines: Iterable[str] = (line for file in files or ["-"] for line in read_lines(file))
    lines, again = tee(lines if typed else watched(lines, what="parsing"))
    told = Counter[str]()
    for (best,), line in zip(translator.stream(lines, at_once=typed, **choices), again, strict=True):
        text = best.text
        if not raw and (words := split_words(line)):
            tree, repairs = restore(text, words)
            told.update(["parsed", *repairs, *(["repaired"] if repairs else [])])
            text = str(tree)
        print(text, flush=typed)
    if not raw:
        kinds = ", ".join(f"{kind} {told[kind]:,}" for kind in KINDS if told[kind])
        print(f"{told['parsed']:,} parsed, {told['repaired']:,} repaired" + (kinds and f": {kinds}"), file=sys.stderr)


def evalb(
    gold: Annotated[str, typer.Argument(help="The trees as they should be, in brackets, plain or .gz.")],
    parsed: Annotated[str, typer.Argument(help="The trees to be judged, one a line, in the same order.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Score parses against gold trees: labelled precision, recall and F1 as EVALB counts them, by COLLINS.prm.

    nmt evalb test.mrg test.parsed

    Function tags, punctuation and the bracket around the whole do not count; PRT counts as ADVP.
    """
    from nmt.parsing import CUTOFF, Summary, scores

    if (gold, parsed) == ("-", "-"):
        raise NmtError("-: standard input can be read only once: name a file for the other")
    sentences = scores(gold, parsed)
    short = [sentence for sentence in sentences if sentence.length <= CUTOFF]
    summaries = {"all": Summary.of(sentences), f"up to {CUTOFF} words": Summary.of(short)}
    if as_json:
        print(json.dumps({name: summary.to_json() for name, summary in summaries.items()}, indent=2))
    else:
        print(*_table(list(summaries), list(summaries.values())), sep="\n")


def _table(names: Sequence[str], summaries: Sequence[Any]) -> Iterator[str]:
    """The summaries side by side, each under its name."""
    rows = {
        "sentences": [f"{s.sentences:,}" for s in summaries],
        "with other words": [f"{s.errors:,}" for s in summaries],
        "without a tree": [f"{s.skipped:,}" for s in summaries],
        "recall": [f"{s.recall:.2f}" for s in summaries],
        "precision": [f"{s.precision:.2f}" for s in summaries],
        "F1": [f"{s.f1:.2f}" for s in summaries],
        "exact match": [f"{s.exact:.2f}" for s in summaries],
        "average crossing": [f"{s.crossing:.2f}" for s in summaries],
        "no crossing": [f"{s.no_crossing:.2f}" for s in summaries],
        "2 or less crossing": [f"{s.at_most_two_crossing:.2f}" for s in summaries],
        "tagging accuracy": ["no tags" if s.tagging is None else f"{s.tagging:.2f}" for s in summaries],
    }
    for head, cells in {"": names, **rows}.items():
        yield f"{head:<18}" + "".join(f"  {cell:>14}" for cell in cells)
