"""Using and judging a translator: `nmt translate`, `nmt score`."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from nmt.cli.options import (
    BatchSize,
    Beam,
    Changes,
    Device,
    Drawing,
    Others,
    Penalty,
    Precision,
    Search,
    Threads,
    Workers,
    given,
    hands,
    model_of,
    progress,
    shown,
    spread,
    watched,
)
from nmt.errors import DataError, NmtError, RecipeError
from nmt.files import whole_file

if TYPE_CHECKING:
    from nmt.processes import Shard
    from nmt.text import Share
    from nmt.translation import Translation

NBest = Annotated[
    int, typer.Option(min=1, help="Print N translations a line, as 'line ||| text ||| score', lines from 0.")
]
Alignments = Annotated[
    bool, typer.Option("--alignments", help="Add ' ||| 0-0 1-2': which words belong together, source-translation.")
]
Tag = Annotated[
    str, typer.Option(help="Put this before every line, such as '<2de>': what the model is to do. [nothing]")
]
Prefix = Annotated[
    str | None, typer.Option(metavar="FILE", help="Begin each translation as this file says, line by line.")
]
Mbr = Annotated[
    int | None, typer.Option(min=2, metavar="N", help="Draw N samples of a line; take the most typical one, by chrF.")
]
ONCE = "-: standard input can be read only once: name files for the others"

Suspect = Annotated[
    Literal["retry", "warn", "fail", "off"],
    typer.Option(
        help="Where a translation is empty, copied, loops, is far too short or long, or has lost numbers or markup: "
        "try others, only count it, end at the first that no other mends, or do not look. Not with --mbr."
    ),
]


@dataclass(frozen=True)
class Sharing:
    """Who does which part of the work, and where that goes."""

    workers: Workers = None
    threads: Threads = None
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Translate part I of N of the files; auto asks torchrun or srun. [all]"),
    ] = None
    output: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write to a file, or for a part FILE.I-of-N. [standard output]")
    ] = None

    @property
    def hands(self) -> dict[str, Any]:
        """How many workers there are, with how many threads each."""
        return hands(self.workers, self.threads)

    @property
    def part(self) -> "Shard":
        """The part that is asked for, or is this process's among those of torchrun. Raises `NmtError`."""
        from nmt.processes import Shard

        part = Shard.of_torchrun() if self.shard is None else Shard.parse(self.shard)
        if part.total > 1 and not self.output and self.shard in (None, "auto"):
            raise NmtError("several processes would write to one standard output: add --output FILE (for FILE.1-of-N)")
        return part


@spread
def translate(
    model: Annotated[Path, typer.Argument(readable=False, help="A model folder, or the recipe that made it.")],
    files: Annotated[list[str] | None, typer.Argument(help="Text, a sentence a line. [standard input]")] = None,
    *,
    others: Others = None,
    n_best: NBest = 1,
    alignments: Alignments = False,
    tag: Tag = "",
    prefix: Prefix = None,
    mbr: Mbr = None,
    search: Search,
    drawing: Drawing,
    on_suspect: Suspect = "retry",
    batch_size: BatchSize = None,
    sharing: Sharing,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Translate text, line by line: one line in, one line out, in order; a blank line stays blank.

    nmt translate RECIPE < in.txt > out.txt

    nmt translate MODEL --with ANOTHER < in.txt > out.txt

    nmt translate MODEL --mbr 64 < in.txt > out.txt

    Lines that come one by one are answered one by one; the more are waiting, the more are translated at once.

    A line longer than those trained on is split, with a warning. How many translations look wrong is told in the end.
    """
    from nmt.text import Share, lines_of, share_of
    from nmt.translation import Tally, Translator, least_risk

    folder, choices = model_of(model)
    part, paths = sharing.part, files or ["-"]
    if mbr and n_best > mbr:
        raise NmtError(f"--n-best {n_best} is more than the {mbr} samples of a line: --mbr {n_best} draws as many")
    how: dict[str, Any] = {"tag": tag, "alignments": alignments, "sampling": drawing.sampling(search, mbr is not None)}
    how["on_suspect"] = "off" if mbr else on_suspect
    lines = lines_of(paths)  # what is piped in is read while the model is
    translator = Translator.load(folder, device, precision, [model_of(other)[0] for other in others or ()])
    choices |= given(**vars(search), batch_size=batch_size)
    share = Share(lines, 0, None) if part.total == 1 else share_of(paths, part, translator.window(**choices))
    how |= {"prefixes": _prefixes(prefix, paths, share, part), "first": share.first + 1, **sharing.hands, **choices}
    tally = Tally(share.first)
    with (
        _output(sharing.output, part) as out,
        progress(_total(share, paths), show=not out.isatty()) as done,
        closing(translator.stream(share.lines, mbr or n_best, done=done, **how)) as stream,
    ):
        for number, found in enumerate(tally.over(stream), share.first):
            best = least_risk(found, n_best) if mbr else found
            out.write("".join(_told(number, one, n_best > 1, alignments) for one in best))
            out.flush()  # whoever sent the line may be waiting
    if tally.summary:
        print(tally.summary, file=sys.stderr)


def _prefixes(path: str | None, paths: Sequence[str], share: "Share", part: "Shard") -> Iterable[str] | None:
    """The prefixes of the lines of a share; of the last share all that are left, so that one too many is told."""
    from nmt.text import read_lines

    if path is None:
        return None
    if path == "-" and "-" in paths:
        raise NmtError(ONCE)
    end = None if share.total is None or part.number == part.total else share.first + share.total
    return islice(read_lines(path), share.first, end)


def _total(share: "Share", paths: Sequence[str]) -> int | None:
    """How many lines there are to translate, if that is to be shown and known."""
    from nmt.text import count_lines

    with suppress(DataError):  # which will be told when its line comes
        return share.total if share.total is not None or not shown() else count_lines(paths)
    return None


@contextmanager
def _output(path: str | None, part: "Shard") -> Iterator[IO[str]]:
    """Where translations go."""
    if path is None:
        yield sys.stdout
        return
    with whole_file(part.named(path), "w") as file:
        yield file


def _told(number: int, t: "Translation", scored: bool, aligned: bool) -> str:
    """A translation as it is printed: with its line and score, and with its links, if these are asked for."""
    from nmt.translation import pharaoh

    fields = [str(number), t.text, f"{t.score:.4f}"] if scored else [t.text]
    return " ||| ".join([*fields, pharaoh(t.alignment)] if aligned else fields) + "\n"


@dataclass(frozen=True)
class Judging:
    """How a model judges translations."""

    model_score: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="MODEL", rich_help_panel="By a model",
                     help="Print what this model, or that of this recipe, thinks of each line: log p, in nats."),
    ] = None  # fmt: skip
    source: Annotated[
        str | None, typer.Option(metavar="FILE", rich_help_panel="By a model", help="What the lines translate.")
    ] = None
    normalise: Annotated[
        Literal["none", "tokens", "search"],
        typer.Option(rich_help_panel="By a model",
                     help="Divide log p by nothing, by the tokens, or by the length penalty, as nmt translate does."),
    ] = "none"  # fmt: skip
    others: Others = None
    tag: Tag = ""
    batch_size: BatchSize = None


@spread
def score(
    hypotheses: Annotated[
        list[str], typer.Argument(metavar="RECIPE | HYPOTHESES...", help="A recipe; or with --reference, translations.")
    ],
    *,
    reference: Annotated[list[str] | None, typer.Option(help="A reference file; several are alternatives.")] = None,
    tokenize: Annotated[
        str | None, typer.Option(help="sacreBLEU's tokenization: 13a, none for tokenised text, zh, … [13a]")
    ] = None,
    lowercase: Annotated[bool, typer.Option(help="Compare without case (BLEU and chrF++).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    show: Annotated[
        int | None, typer.Option(min=0, help="With a recipe: print this many sample translations. [0]")
    ] = None,
    judging: Judging,
    changes: Changes = None,
    beam: Beam = None,
    length_penalty: Penalty = None,
    workers: Workers = None,
    threads: Threads = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Translate and score a recipe's test sets; or score files of translations against a reference, or by a model.

    nmt score RECIPE

    nmt score --reference REF.de ours.de theirs.de

    nmt score --model-score MODEL --source SRC.en ours.de

    BLEU, chrF++ and TER by sacreBLEU, with signatures and 95 % intervals; with several systems, p-values of a paired
    bootstrap against the first. By a model: a line for each line, with the log-probability that it gives the
    translation, and a column for each file. `-` is standard input.
    """
    how, choices = {"tokenize": tokenize, "lowercase": lowercase}, given(beam=beam, length_penalty=length_penalty)
    _check_idle(
        judging, reference=reference, json=as_json, tokenize=tokenize, lowercase=lowercase, show=show, set=changes,
        beam=beam, length_penalty=length_penalty, workers=workers, threads=threads, device=device, precision=precision,
    )  # fmt: skip
    if judging.model_score:
        if judging.source is None:
            raise NmtError("--model-score needs --source FILE")
        hands(1, threads)
        _print_judged(judging, judging.source, hypotheses, choices, device, precision)
        return
    if judging != Judging():
        raise NmtError("--source, --normalise, --with, --tag and --batch-size go with --model-score MODEL")
    if reference:
        scored: Scored = [("files", _score_files(reference, hypotheses, how), [])]
    elif len(hypotheses) > 1:
        raise NmtError("several files to score need --reference FILE; without it, name one recipe")
    else:
        choices |= hands(workers, threads)
        scored = _score_recipe(Path(hypotheses[0]), changes or [], how, show or 0, choices, device, precision)
    _print_scored(scored, as_json, named=not reference)


TRANSLATING = {"show", "set", "beam", "workers"}  # what is asked of a recipe's test sets alone
COMPARING = {"reference", "json", "tokenize", "lowercase"}
COMPUTING = {"length_penalty", "threads", "device", "precision"}


def _check_idle(judging: Judging, **options: Any) -> None:
    """Raises `NmtError` where an option is given that would do nothing beside that of the mode that is chosen."""
    if judging.model_score:
        mode, idle = "--model-score", TRANSLATING | COMPARING
        idle = idle if judging.normalise == "search" else idle | {"length_penalty"}
    elif options["reference"]:
        mode, idle = "--reference", TRANSLATING | COMPUTING
    else:
        return
    for name, value in options.items():
        if name in idle and value is not None and value is not False and value not in ("auto", []):
            raise NmtError(f"--{name.replace('_', '-')}: nothing to do with {mode}: leave it out")


Scored = list[tuple[str, Any, list[dict[str, str]]]]
"""For each test set its name, a `Report`, and samples of its translation."""


def _print_scored(scored: Scored, as_json: bool, named: bool) -> None:
    if as_json:
        values = {
            name: report.to_json() | ({"samples": samples} if samples else {}) for name, report, samples in scored
        }
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return
    for name, report, samples in scored:
        for sample in samples:
            print(*(f"{kind:<12} {text}" for kind, text in sample.items()), "", sep="\n")
        print(*([f"{name}:"] if named else []), *report.lines(), sep="\n")


def _print_judged(
    how: Judging, source: str, hypotheses: list[str], choices: dict[str, Any], device: str, precision: str
) -> None:
    from nmt.text import read_sides
    from nmt.translation import Forced, Translator

    assert how.model_score is not None
    if [source, *hypotheses].count("-") > 1 or (source == "-" and len(hypotheses) > 1):
        raise NmtError(ONCE)
    folder, decode = model_of(how.model_score)
    decode |= choices | given(batch_size=how.batch_size)
    translator = Translator.load(folder, device, precision, [model_of(other)[0] for other in how.others or ()])

    def told(one: Forced) -> str:
        values = {"none": one.log_p, "tokens": one.log_p / one.tokens, "search": one.score}
        return f"{values[how.normalise]:.4f}"

    columns: list[Iterator[Forced]] = []
    for number, file in enumerate(hypotheses):
        pairs: Iterable[tuple[str, str]] = read_sides(source, file)
        pairs = watched(pairs, what="scoring") if number == 0 else pairs
        columns.append(translator.score(pairs, tag=how.tag, **decode))
    for row in zip(*columns, strict=True):
        print(*map(told, row), sep="\t")


def _score_files(references: list[str], hypotheses: list[str], how: dict[str, Any]) -> Any:
    from nmt.evaluation import score
    from nmt.text import read_lines

    if (references + hypotheses).count("-") > 1:
        raise NmtError(ONCE)
    if again := [name for number, name in enumerate(hypotheses) if name in hypotheses[:number]]:
        raise NmtError(f"{again[0]}: given twice: a system is compared with others")
    systems = {name: list(read_lines(name)) for name in hypotheses}
    return score([list(read_lines(name)) for name in references], systems, **how)


def _score_recipe(
    path: Path, changes: list[str], how: dict[str, Any], show: int, choices: dict[str, Any], device: str, precision: str
) -> Scored:
    from nmt import recipe as recipes
    from nmt.evaluation import Kept, digest, keep, score
    from nmt.translation import Translator, translate_test_sets

    try:
        recipe = recipes.load(path, changes)
    except RecipeError as error:
        raise RecipeError(f"{error}; to score a file of translations, add --reference FILE") from None
    layout, found = recipes.Layout.of(recipe), []
    translator = Translator.load(layout.model, device, precision)
    for test in translate_test_sets(recipe, translator, progress, **choices):
        report = score(test.references, {recipe.run: test.translations}, **how)
        found.append((test, Kept(report, **how, translations=digest(test.translations))))
    keep(layout.scores, {test.name: kept for test, kept in found})
    return [(test.name, kept.report, test.samples(show)) for test, kept in found]
