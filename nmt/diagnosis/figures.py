"""What is found in text, as figures: of corpora, of their two sides, of the vocabulary."""

from dataclasses import dataclass, field

import numpy as np

from nmt.recipe import Tsv
from nmt.text import Corpus

TRAIN, VALID = "data.train", "data.valid"
UNLIKELY = "unlikely lengths"


@dataclass(frozen=True)
class Lengths:
    """How long lines are. `counts` has those of up to `width` units, of up to twice that, and so on; then the rest."""

    mean: float
    median: int
    p95: int  # 95 % are no longer
    longest: int
    width: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Side:
    """One side of the pairs that are kept. A word is what lies between spaces, a piece what the tokenizer makes."""

    language: str
    words: int
    characters: int
    pieces: int
    in_bytes: int
    """Pieces that spell a byte of a character that the vocabulary lacks."""
    lacking: dict[str, int]
    """The commonest of these characters."""
    in_words: Lengths
    in_pieces: Lengths

    @property
    def fertility(self) -> float:
        """Pieces per word (Rust et al., 2021, "How Good is Your Tokenizer?")."""
        return self.pieces / max(1, self.words)

    @property
    def byte_share(self) -> float:
        """The share of pieces that spell bytes."""
        return self.in_bytes / max(1, self.pieces)


@dataclass(frozen=True)
class Example:
    """A suspicious pair as it was read; `number` counts from 1."""

    number: int
    source: str
    target: str


@dataclass(frozen=True)
class Finding:
    """Pairs with the same fault in one corpus, and the first of them; `fate` is what `nmt prepare` does with them."""

    kind: str
    fate: str  # dropped, repaired or kept
    pairs: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Shift:
    """Lines `first` to `last`, whose targets fit the sources `lines` lines further up better than their own."""

    first: int
    last: int
    lines: int


@dataclass(frozen=True)
class Languages:
    """Of `checked` pairs drawn from a corpus, how many have a side in another language, and how many swapped sides."""

    checked: int
    wrong: int
    swapped: int


@dataclass(frozen=True)
class CorpusFigures:
    """A corpus of the recipe."""

    key: str  # in the recipe
    name: str
    files: tuple[str, ...]
    unit: str  # what the number of an example counts: line or pair
    pairs: int
    kept: int
    sides: tuple[Side, Side]
    findings: tuple[Finding, ...]
    shifts: tuple[Shift, ...]
    correlation: float | None
    """Of the lengths of the sides, from -1 to 1; None for a few pairs."""
    languages: Languages | None

    def found(self, *kinds: str) -> int:
        """Pairs with one of these faults, or with any."""
        return sum(finding.pairs for finding in self.findings if not kinds or finding.kind in kinds)


@dataclass(frozen=True)
class Vocabulary:
    """The entries that are neither special nor bytes, by how often the training text has them; of both if shared."""

    language: str
    asked: int  # of the tokenizer, special ones and bytes included
    entries: int
    used: int
    seen_10: int  # ten times or more
    seen_100: int
    counts: tuple[int, ...]  # sorted, the commonest first; thinned out


@dataclass(frozen=True)
class Unseen:
    """Words of a held-out corpus that the training text lacks on that side, punctuation at their ends left out."""

    words: int
    unseen: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """Sources that a held-out corpus shares with the training text, or with another held-out corpus."""

    key: str
    other: str
    sources: int
    found: int
    same: int  # pairs with the same translation too
    pairs: int  # of the other side that have one of them


@dataclass(frozen=True)
class Diagnosis:
    """All that was found in the text of a recipe."""

    corpora: tuple[CorpusFigures, ...]
    vocabularies: tuple[Vocabulary, ...]
    tokenizer: str
    """Where the vocabulary comes from, in words."""
    unseen: dict[str, tuple[Unseen, Unseen]]
    overlaps: tuple[Overlap, ...]
    unread: dict[str, str]
    """Test sets that could not be read, and why."""
    sampled: int | None
    """How many pairs of each corpus were read, where not all were."""
    languages_checked: bool
    lengths: np.ndarray = field(compare=False, repr=False)
    """Pieces of source and target of pairs drawn from the training text that is kept, [pairs, 2]."""

    @property
    def train(self) -> tuple[CorpusFigures, ...]:
        """The corpora to train on."""
        return tuple(one for one in self.corpora if one.key == "data.train")

    @property
    def held_out(self) -> tuple[CorpusFigures, ...]:
        """The others."""
        return tuple(one for one in self.corpora if one.key != "data.train")


def unit_of(corpus: Corpus) -> str:
    """What the pairs of a corpus are counted by: lines where each has one."""
    return "line" if isinstance(corpus.entry, str | Tsv) else "pair"
