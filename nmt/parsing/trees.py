"""Constituency trees, and the bracket files of the Penn Treebank that hold them.

Trees may be deeper than Python's stack, for a model may say anything; so nothing here calls itself.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nmt.errors import DataError
from nmt.text import read_lines

OUTER = frozenset({"", "ROOT", "TOP", "S1"})  # what treebanks call the bracket around a whole tree
ROOT = "ROOT"
EMPTY = "-NONE-"  # the tag of what is not in the text: traces, and words left out

# Only these part words. Other white space, such as a no-break space, may stand inside of one.
_WORD = re.compile("[^ \t\n\r\f\v]+")
_TOKEN = re.compile("[()]|[^() \t\n\r\f\v]+")
_ESCAPED = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
_ESCAPES = re.compile("|".join(_ESCAPED))


@dataclass(frozen=True, slots=True)
class Leaf:
    """A word as it stands in the text, with its part-of-speech tag."""

    tag: str
    word: str


@dataclass(frozen=True, slots=True)
class Tree:
    """A constituent: its label, and in order what it is made of."""

    label: str
    children: "tuple[Node, ...]"

    def leaves(self) -> list[Leaf]:
        """The words with their tags, in order."""
        return [node for node, _ in walk(self) if isinstance(node, Leaf)]

    def words(self) -> list[str]:
        """The words, in order."""
        return [leaf.word for leaf in self.leaves()]

    def __str__(self) -> str:
        """The tree in brackets, on one line; brackets that are words are written -LRB- and -RRB-."""
        parts: list[str] = []
        for node, begins in walk(self):
            if isinstance(node, Leaf):
                word = node.word.replace("(", "-LRB-").replace(")", "-RRB-")
                parts.append(f" ({node.tag} {word})")
            else:
                parts.append(f" ({node.label}" if begins else ")")
        return "".join(parts)[1:]


Node = Tree | Leaf


def walk(tree: Tree) -> Iterator[tuple[Node, bool]]:
    """From left to right: each constituent where it begins (True) and where it ends (False), each leaf once (True)."""
    rest: list[tuple[Node, bool]] = [(tree, True)]
    while rest:
        node, begins = rest.pop()
        yield node, begins
        if begins and isinstance(node, Tree):
            rest.append((node, False))
            rest += [(child, True) for child in reversed(node.children)]


def plain(label: str) -> str:
    """A label without its function tags: NP for NP-SBJ-1 and NP=2."""
    return re.split("[-=]", label, maxsplit=1)[0] or label


def split_words(line: str) -> list[str]:
    """The words of a line of tokenised text."""
    return _WORD.findall(line)


def many(number: int, what: str) -> str:
    """How many of something there are, in words: 1 tree, 2 trees."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def read_trees(path: str | Path) -> Iterator[Tree]:
    """The trees of a bracket file, plain or gzipped, one at a time; each may go over several lines.

    Empty elements (-NONE-) are left out, and constituents that hold nothing else; a tree that holds nothing else comes
    without children. Raises `DataError`, naming file and line, for what is not a tree.
    """
    reader = _Reader(str(path))
    for number, line in enumerate(read_lines(path), 1):
        yield from map(_whole, reader.read(number, line))
    reader.finish()


def read_tree_lines(path: str | Path) -> Iterator[Tree | None]:
    """The tree on each line of a bracket file, as `read_trees` reads them; None for a blank line.

    Several brackets on a line are parts of one tree. Raises `DataError`, also for a tree that goes over several lines.
    """
    for number, line in enumerate(read_lines(path), 1):
        reader = _Reader(str(path))
        parts = tuple(reader.read(number, line))
        reader.finish("; each line must hold one tree")
        yield _whole(parts[0]) if len(parts) == 1 else Tree("", parts) if parts else None


def _whole(node: Node) -> Tree:
    return node if isinstance(node, Tree) else Tree("", (node,))


@dataclass(slots=True)
class _Open:
    """A bracket that is not closed yet: what it holds so far, and the line it began on."""

    line: int
    label: str | None = None
    word: str | None = None
    children: list[Node] = field(default_factory=list)

    def node(self) -> Node | None:
        """What it has become; None where nothing is in it."""
        if self.word is None:
            return Tree(self.label or "", tuple(self.children)) if self.children else None
        if self.label == EMPTY:
            return None
        return Leaf(self.label or "", _ESCAPES.sub(lambda escape: _ESCAPED[escape[0]], self.word))


class _Reader:
    """Reads brackets line by line, and remembers those that a line leaves open."""

    def __init__(self, name: str) -> None:
        self._name = "standard input" if name == "-" else name
        self._open: list[_Open] = []

    def read(self, number: int, line: str) -> Iterator[Node]:
        """What is whole at the end of this line and was not before."""
        for token in _TOKEN.findall(line):
            if token == "(":
                if self._open and self._open[-1].word is not None:
                    raise self._error(number, f'a bracket after the word "{self._open[-1].word}"')
                self._open.append(_Open(number))
            elif not self._open:
                raise self._error(number, 'a ")" too many' if token == ")" else f'"{token}" outside of all brackets')
            elif token == ")":
                yield from self._close()
            else:
                self._take(token, number)

    def finish(self, mend: str = "") -> None:
        """Raises `DataError` where a bracket is still open."""
        if self._open:
            raise DataError(f"{self._name}:{self._open[0].line}: a tree that begins here is not closed{mend}")

    def _take(self, token: str, number: int) -> None:
        """A label or a word."""
        bracket = self._open[-1]
        if bracket.label is None and not bracket.children:
            bracket.label = token
        elif bracket.word is None and not bracket.children:
            bracket.word = token
        else:
            raise self._error(number, f'"{token}" where a bracket must open or close')

    def _close(self) -> Iterable[Node]:
        """Ends the innermost bracket; gives what it was if no other is around it."""
        node = self._open.pop().node()
        if not self._open:
            return [node or Tree("", ())]
        if node:
            self._open[-1].children.append(node)
        return []

    def _error(self, number: int, found: str) -> DataError:
        return DataError(
            f"{self._name}:{number}: not a tree in brackets, as (S (NP (PRP We)) (VP (VBP agree))): {found}"
        )
