"""What became of the pairs of a corpus: how many were dropped and repaired, with examples."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from nmt.data.shards import CorpusRecord, OverlapRecord
from nmt.errors import NmtError
from nmt.files import whole_file
from nmt.recipe import Data, Prefix, Tsv
from nmt.text import Corpus
from nmt.text.cleaning import ENTITIES, LENGTH_RATIO, OVERLAP, REASONS, TOO_LONG
from nmt.text.corpora import Pair

EXAMPLES = 20  # of each kind are written down
_TOLD = 2  # of them are told
_WIDTH = 40  # characters of a side that are told
_LONGEST = 1000  # and that are written down


class Example(NamedTuple):
    """A pair as it was read, if long only its beginning; `number` counts the pairs of its corpus from 1."""

    number: int
    source: str
    target: str

    @classmethod
    def of(cls, number: int, pair: Pair) -> "Example":
        """Of what is written down of it no more is kept."""
        return cls(number, *(side[: _LONGEST + 1] for side in pair))


class Found(BaseModel):
    """What was found in some pairs of a corpus in a row, of which the first is number `first`, counted from 0."""

    corpus: int
    first: int
    read: int = 0
    dropped: dict[str, int] = {}
    repaired: dict[str, int] = {}
    examples: dict[str, list[Example]] = {}

    def add(self, pairs: Sequence[Pair], reasons: np.ndarray, repaired: np.ndarray) -> None:
        """Enters the next pairs, each with the reason why it is dropped."""
        kinds = [(REASONS[code], self.dropped, reasons == code) for code in np.unique(reasons[reasons > 0]).tolist()]
        kinds.append((ENTITIES, self.repaired, repaired & (reasons == 0)))
        for kind, counts, which in kinds:
            if not which.any():
                continue
            counts[kind] = counts.get(kind, 0) + int(which.sum())
            known = self.examples.setdefault(kind if counts is self.dropped else f"repaired {kind}", [])
            places = np.flatnonzero(which)[: EXAMPLES - len(known)].tolist()
            known.extend(Example.of(self.first + self.read + at + 1, pairs[at]) for at in places)
        self.read += len(pairs)

    def unmend(self, kind: str, numbers: Sequence[int]) -> None:
        """Takes pairs that were repaired, by their numbers, for dropped ones."""
        if numbers:
            self.repaired[kind] -= len(numbers)
            known = self.examples[f"repaired {kind}"]
            known[:] = [one for one in known if one.number not in {*numbers}]


@dataclass
class Account:
    """What became of the pairs of a corpus."""

    corpus: Corpus
    skipped: Counter[str] = field(default_factory=Counter)  # units that were no pairs
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=lambda: defaultdict(list))

    def add(self, pairs: Sequence[Pair], reasons: np.ndarray, repaired: np.ndarray) -> None:
        """Enters the next pairs of the corpus, each with the reason why it is dropped."""
        found = Found(corpus=0, first=self.read)
        found.add(pairs, reasons, repaired)
        self.absorb(found)

    def absorb(self, found: Found) -> None:
        """Enters what was found in the next pairs of the corpus."""
        self.read += found.read
        self.dropped.update(found.dropped)
        self.repaired.update(found.repaired)
        for kind, some in found.examples.items():
            known = self.examples[kind]
            known.extend(some[: EXAMPLES - len(known)])

    def show(self, kind: str, pairs: Sequence[Pair], places: np.ndarray) -> None:
        """Keeps some of the next pairs as examples of a kind, where there are few yet; comes before `add`."""
        known = self.examples[kind]
        some = places[: EXAMPLES - len(known)].tolist()
        known.extend(Example.of(self.read + at + 1, pairs[at]) for at in some)

    @property
    def record(self) -> CorpusRecord:
        """The figures."""
        dropped = self.dropped + self.skipped
        return CorpusRecord(
            name=self.corpus.name,
            pairs=self.read + self.skipped.total(),
            dropped=dict(sorted(dropped.items())),
            repaired=dict(+self.repaired),
        )

    def told(self, data: Data) -> Iterator[str]:
        """The figures in a line, then an example or two of each kind, one below the other."""
        record = self.record
        limits = {TOO_LONG: f" (over {data.max_length} tokens)", LENGTH_RATIO: f" (over {data.max_ratio:g})"}
        total = sum(record.dropped.values())
        share = f", {total:,} dropped ({total / record.pairs:.2%}): " if total else ", none dropped"
        reasons = (f"{count:,} {reason}{limits.get(reason, '')}" for reason, count in record.dropped.items())
        mended = "".join(f"; {count:,} repaired: {kind}" for kind, count in record.repaired.items())
        yield f"{record.pairs:,} pairs read from {record.name}{share}{', '.join(reasons)}{mended}"
        yield from self._aligned()

    def _aligned(self) -> Iterator[str]:
        kinds = {kind: some[:_TOLD] for kind, some in sorted(self.examples.items()) if not kind.startswith(OVERLAP)}
        rows = [(kind, self.place(one), one) for kind, some in kinds.items() for one in some]
        wide = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        for number, (kind, place, one) in enumerate(rows):
            again = number and rows[number - 1][0] == kind
            sides = f"{shown(one.source, _WIDTH):{_WIDTH}}  {shown(one.target, _WIDTH)}"
            yield f"  {'' if again else kind:{wide[0]}}  {place:{wide[1]}}  {sides}".rstrip()

    def place(self, example: Example) -> str:
        """Where an example stands: its line, in files that have a line for each pair."""
        lined = isinstance(self.corpus.entry, str | Prefix | Tsv)
        return f"{'line' if lined else 'pair'} {example.number}"


def shown(text: str, longest: int) -> str:
    """A text as it is told of: on one line, without what a terminal would not print, and not too long."""
    plain = "".join(c if c.isprintable() else "\\t" if c == "\t" else f"\\x{ord(c):02x}" for c in text[: longest + 1])
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def warnings(key: str, found: OverlapRecord, drop: bool, accounts: Sequence[Account]) -> Iterator[str]:
    """What is to be said of the training text's overlap with the held-out corpus `key` of the recipe, if any."""
    if not found.found:
        return
    share = f"{found.found:,} of {found.sources:,} sources ({found.found / found.sources:.2%})"
    same = f"{found.pairs:,} with the same translation"
    end = ", dropped" if drop else "; scores on it will be too good: data.clean.overlap=drop takes these pairs out"
    yield f"WARNING: {key}: {share} are in the training text, {same}; training pairs: {found.training:,}{end}"
    some = ((account, one) for account in accounts for one in account.examples.get(f"{OVERLAP} with {key}", ()))
    for account, one in islice(some, _TOLD):
        where = f"{account.place(one)} of {account.corpus.name}"
        yield f"  {where}  {shown(one.source, _WIDTH)}  {shown(one.target, _WIDTH)}"


def write_examples(path: Path, accounts: Sequence[Account]) -> None:
    """Writes down the first examples of each kind and corpus, as columns with tabs between. Raises `OutputError`."""
    with whole_file(path, "w") as file:
        file.write(f"# Of the training text, the first {EXAMPLES} pairs of each kind: corpus, place, kind, sides\n")
        for account in accounts:
            for kind, some in sorted(account.examples.items()):
                for one in some:
                    sides = (shown(side, _LONGEST) for side in (one.source, one.target))
                    file.write("\t".join((account.corpus.name, account.place(one), kind, *sides)) + "\n")


def warn_of_entities(key: str, pairs: int) -> str:
    """What is said of a held-out corpus that has what is repaired in training text."""
    return (
        f"WARNING: {key}: HTML entities in {pairs:,} pairs, which data.clean.entities repairs in training text only: "
        "set it to false if text to translate has them"
    )


def not_read(key: str, error: NmtError) -> str:
    """What is said of a held-out corpus that is not there, or not yet."""
    return f"WARNING: {key}: not compared with the training text: {error}"
