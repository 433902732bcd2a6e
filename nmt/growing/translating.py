"""What becomes of lines: the translations that are worth training on, and how many lines gave none."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nmt.data.prepare import tell
from nmt.data.shards import sha256
from nmt.errors import DataError
from nmt.growing.job import Finished, Job, Part, Row, run
from nmt.model.device import pick_device, pick_precision
from nmt.model.folder import read_recipe
from nmt.processes import WHOLE, Shard, cores
from nmt.recipe import Corpus, Decode, Recipe, redecide
from nmt.recipe.yaml12 import write
from nmt.search import Sampling
from nmt.text import keep_standard_input, read_lines
from nmt.translation import Translation, Translator

BATCHES = 16  # of lines in a chunk: what a kill may cost, and what is sorted by length
ALWAYS = {"beam", "length_penalty", "penalty_form", "max_extra", "batch_size"}  # the oldest keys of `decode`
SEARCH = {"beam", "length_penalty", "penalty_form", "coverage_penalty", "groups", "diversity"}  # no matter to samples
GOOD, BLANK, LONG, FAILED = "translated", "blank", "too long", "without a translation"

Rows = Callable[[Row, list[Translation]], list[Row]]
"""Gives of an input row and the translations of its first text what is written; has to go through a pipe."""


@dataclass(frozen=True)
class How:
    """How to translate: by which models, together if they are several, and by which search or sampling.

    `decode` overrides keys of the section `decode` of the first model's recipe. `workers` processes share the work on a
    CPU, one thread each, by default one per core; neither they nor the shard change a line.
    """

    models: tuple[Path, ...]
    decode: dict[str, Any] = field(default_factory=dict)
    sampling: Sampling | None = None
    n_best: int = 1
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    shard: Shard = WHOLE
    force: bool = False

    @property
    def recipe(self) -> Recipe:
        """That of the first model. Raises `ModelError`."""
        return read_recipe(self.models[0])


class Grown(NamedTuple):
    """What a job wrote: the prefixes of all its shards' files, and how it went with this one."""

    prefixes: list[str]
    finished: Finished
    languages: tuple[str, str]

    def listing(self, beside: Iterable[Corpus] = (), tag: str = "") -> str:
        """What the next recipe says of its text: the files, of all shards, and `beside` these what there was before.

        Of that only what is the same in both directions is listed. The new files get a `tag`, if there is one.
        """
        source, target = self.languages
        listed: list[Any] = [entry for entry in beside if isinstance(entry, str) and entry not in self.prefixes]
        listed += [{"path": prefix, "tag": tag} if tag else prefix for prefix in self.prefixes]
        return write({"data": {"source": source, "target": target, "train": listed}})

    @property
    def summary(self) -> str:
        """In a line: what came of how many lines."""
        lines, rows, counts = self.finished
        left_out = [f"{counts[reason]:,} {reason}" for reason in (BLANK, LONG, FAILED) if counts.get(reason)]
        return f"{rows:,} pairs from {lines:,} lines" + (f"; left out: {', '.join(left_out)}" if left_out else "")


def grow(
    prefix: str,
    languages: tuple[str, str],
    read: Callable[[], Iterable[Row]],
    rows: Rows,
    how: How,
    depends: dict[str, Any],
) -> Grown:
    """Translates the first text of each row, and writes what `rows` makes of it to PREFIX.LANGUAGE for both.

    `depends` is what `rows` depends on, by the names of the options. Raises what `run` does, and `ModelError`.
    """
    device = pick_device(how.device)
    precision = str(pick_precision(how.precision, device)).removeprefix("torch.")
    decode = redecide(how.recipe.decode, **how.decode)
    job = Job(
        how.shard.named(prefix),
        languages,
        read,
        partial(_Translating, how, decode.model_dump(), rows),
        {
            "model": [_fingerprint(folder) for folder in how.models],
            "precision": precision,
            **_choices(decode, how.sampling),
            "n_best": how.n_best,
            **depends,
        },
        BATCHES * decode.batch_size,
        how.shard,
    )
    workers = 1 if device.type != "cpu" else how.workers or cores()
    finished = run(job, workers, how.force)
    total = how.shard.total
    others = (Shard(number, total).named(prefix) for number in range(1, total + 1))
    grown = Grown(list(others), finished, languages)
    tell(f"{job.files[0]}: {grown.summary}")
    return grown


def _choices(decode: Decode, sampling: Sampling | None) -> dict[str, Any]:
    """What of search or sampling the result depends on.

    Of choices that recipes did not always have only those that are made, so that work begun before then goes on.
    """
    told = decode.model_dump(include=ALWAYS) | decode.model_dump(exclude_defaults=True)
    if sampling is None:
        return told
    drawn = {name: value for name, value in vars(sampling).items() if value or name != "epsilon"}
    return {"sampling": drawn} | {name: value for name, value in told.items() if name not in SEARCH}


class _Translating:
    """A worker's way from a chunk of rows to what is written of it."""

    def __init__(self, how: How, decode: dict[str, Any], rows: Rows) -> None:
        if pick_device(how.device).type == "cpu":
            torch.set_num_threads(1)  # as many results as threads is one too many, in the last bit
        self._translator = Translator.load(how.models[0], how.device, how.precision, how.models[1:])
        self._how, self._decode, self._rows = how, decode, rows

    def __call__(self, chunk: list[Row]) -> Part:
        """The rows to write, and how many lines were translated, blank, too long, or without a translation."""
        tokens = self._translator.tokenizers.source.encode([row[0] for row in chunk])
        ends = [self._end(len(ids)) for ids in tokens]
        good = [row for row, end in zip(chunk, ends, strict=True) if end == GOOD]
        counts, out = Counter(ends), list[Row]()
        for row, found in zip(good, self._translated(good), strict=True):
            if found:
                out += self._rows(row, found)
            else:
                counts.update({GOOD: -1, FAILED: 1})
        return Part(out, dict(counts))

    def _end(self, tokens: int) -> str:
        return BLANK if not tokens else LONG if tokens > self._translator.longest else GOOD

    def _translated(self, rows: list[Row]) -> Iterator[list[Translation]]:
        """The translations of each row that say something."""
        how = self._how
        lines = (row[0] for row in rows)
        found = self._translator.stream(lines, how.n_best, sampling=how.sampling, on_suspect="off", **self._decode)
        for several in found:
            yield [one for one in several if one.text]


def lines_of(files: Sequence[str], prefix: str) -> tuple[list[str], Callable[[], Iterator[Row]]]:
    """The lines of these files as rows, to be read more than once: of standard input a copy is kept beside the output.

    Gives that copy too, if there is one, to be removed in the end. Raises `DataError` for what cannot be read twice.
    """
    for path in map(Path, files):
        if path.is_fifo():
            raise DataError(f"{path}: must be a regular file, for its text is read more than once: pipe it in instead")
    copy = f"{prefix}.standard-input"
    named = [copy if file == "-" else file for file in files]
    if copy in named:
        keep_standard_input(Path(copy))
    return [copy] if copy in named else [], lambda: ((line,) for file in named for line in read_lines(file))


def _fingerprint(folder: Path) -> str:
    """What the weights and the vocabulary of a model are known by."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".model"))
    return " ".join(f"{path.name}:{sha256(path)}" for path in files)
