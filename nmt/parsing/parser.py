"""What a translator says of sentences, as trees, and how many of them it took repairs to make.

translator = nmt.Translator.load("runs/gum-parsing/model")
for parse in parses(lines, translator.translate(lines, split=False, on_suspect="off")):
    print(parse.tree)
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from nmt.parsing.linear import KINDS, has_brackets, restore
from nmt.parsing.trees import Tree, split_words


class Parse(NamedTuple):
    """What was said of a line, the tree made of it, and the repairs that took; no tree for a line without words."""

    said: str
    tree: Tree | None = None
    repairs: tuple[str, ...] = ()


def parses(lines: Iterable[str], said: Iterable[str]) -> Iterator[Parse]:
    """The parse of each line, a sentence with spaces between its words, of which a translator has said this.

    There must be as many lines as are said; what is said of a line is asked for before the line.
    """
    for sequence, line in zip(said, lines, strict=True):
        words = split_words(line)
        yield Parse(sequence, *restore(sequence, words)) if words else Parse(sequence)


@dataclass
class Tally:
    """How many sentences were parsed and repaired, how often each repair was made, and whether a bracket was said."""

    parsed: int = 0
    repaired: int = 0
    repairs: Counter[str] = field(default_factory=Counter)
    brackets: bool = False

    def add(self, parse: Parse) -> None:
        """Counts one more."""
        if parse.tree is None:
            return
        self.parsed += 1
        self.repaired += bool(parse.repairs)
        self.repairs.update(parse.repairs)
        self.brackets = self.brackets or has_brackets(parse.said)

    @property
    def summary(self) -> str:
        """The counts in a line."""
        kinds = ", ".join(f"{kind} {self.repairs[kind]:,}" for kind in KINDS if self.repairs[kind])
        return f"{self.parsed:,} parsed, {self.repaired:,} repaired" + (kinds and f": {kinds}")

    @property
    def warning(self) -> str:
        """What is to be said of a model that seems not to parse; empty for one that does."""
        if self.brackets or not self.parsed:
            return ""
        return (
            "this model does not seem to parse, for it said no bracket at all: train one on pairs that nmt trees "
            "writes, with a recipe such as recipes/gum-parsing.yaml"
        )
