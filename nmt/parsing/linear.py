"""A tree as a sequence for a translator to learn, and back (Vinyals et al., 2015, Grammar as a Foreign Language).

    (ROOT (S (NP-SBJ (PRP We)) (VP (VBP agree)) (. .)))   is   (S (NP PRP )NP (VP VBP )VP . )S

Every word is its tag, for the source says which word it is; a bracket that closes repeats its label. Function tags go,
and so does the bracket around the whole. Vinyals et al. write XX for all tags alike; with a small treebank, though, a
model that cannot tell one word from the next loses count of them, and the authors of the Transformer wrote tags too
(tensor2tensor, wsj_parsing.py).

A translator may say anything. `restore` makes a tree of it whatever it says, by these rules from left to right:

- unknown token: a parenthesis that is no bracket with a label is passed over, and -NONE-, which no word has for a tag;
  whatever else is no bracket is a tag, of the next word
- mismatched: a bracket closes what is not the innermost constituent. If that label is open further out, all down to it
  closes; if it is not open at all, it closes the innermost, whose label stays
- stray closing: a bracket closes where nothing is open: passed over
- extra word: a tag after that of the last word is passed over
- unclosed: what is still open at the end closes there
- missing word: words for which there is no tag stand where the sequence ends, before anything closes, tagged XX; if
  nothing is open there, at the end of the constituent that closed last
- empty constituent: one without a word is left out
- no root: what is left is not one constituent: its parts stand side by side under the ROOT
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nmt.parsing.trees import EMPTY as NOT_THERE
from nmt.parsing.trees import OUTER, ROOT, Leaf, Node, Tree, plain, split_words, walk

XX = "XX"

UNKNOWN, MISMATCHED, STRAY, EXTRA = "unknown token", "mismatched", "stray closing", "extra word"
UNCLOSED, MISSING, EMPTY, NO_ROOT = "unclosed", "missing word", "empty constituent", "no root"
KINDS = (UNKNOWN, MISMATCHED, STRAY, EXTRA, UNCLOSED, MISSING, EMPTY, NO_ROOT)

_BRACKET = re.compile("[()][^()]+")
_TAG = re.compile("[^()]+")


class Repaired(NamedTuple):
    """A tree made of a sequence, and which repairs it took, each named once in the order of the rules."""

    tree: Tree
    repairs: tuple[str, ...]


def linearise(tree: Tree) -> str:
    """The tree as a sequence of labelled brackets and tags."""
    return " ".join(_tokens(tree))


def _tokens(tree: Tree) -> Iterator[str]:
    for node, begins in walk(tree):
        if isinstance(node, Leaf):
            yield node.tag
        elif node is not tree or plain(node.label) not in OUTER:
            yield ("(" if begins else ")") + plain(node.label)


def restore(sequence: str, words: Sequence[str]) -> Repaired:
    """The tree that a sequence says, of exactly these words in this order; repaired where it is malformed.

    There must be a word. From what `linearise` gives comes the tree that it was given, save for what that leaves out.
    """
    builder = _Builder(words)
    for token in split_words(sequence):
        if _TAG.fullmatch(token) and token != NOT_THERE:
            builder.word(token)
        elif not _BRACKET.fullmatch(token):
            builder.repairs.add(UNKNOWN)
        elif token[0] == "(":
            builder.open(token[1:])
        else:
            builder.close(token[1:])
    return builder.finish()


def has_brackets(sequence: str) -> bool:
    """Whether there is a bracket with a label in a sequence, as there is in that of any tree."""
    return any(_BRACKET.fullmatch(token) for token in split_words(sequence))


@dataclass(slots=True)
class _Open:
    label: str
    children: list[Node] = field(default_factory=list)


class _Builder:
    """A tree that grows from left to right."""

    def __init__(self, words: Sequence[str]) -> None:
        self.repairs: set[str] = set()
        self._rest = list(reversed(words))
        self._open = [_Open(ROOT)]

    def word(self, tag: str) -> None:
        """The next word."""
        if self._rest:
            self._open[-1].children.append(Leaf(tag, self._rest.pop()))
        else:
            self.repairs.add(EXTRA)

    def open(self, label: str) -> None:
        """A constituent begins."""
        self._open.append(_Open(label))

    def close(self, label: str) -> None:
        """A constituent ends."""
        if len(self._open) == 1:
            self.repairs.add(STRAY)
            return
        down_to = len(self._open) - 1
        if self._open[down_to].label != label:
            self.repairs.add(MISMATCHED)
            outside = range(down_to - 1, 0, -1)
            down_to = next((place for place in outside if self._open[place].label == label), down_to)
        while len(self._open) > down_to:
            self._end()

    def finish(self) -> Repaired:
        """What has grown, with the words that are left, and all closed."""
        if len(self._open) > 1:
            self.repairs.add(UNCLOSED)
        if self._rest:
            self.repairs.add(MISSING)
            self._reopen()
        while self._rest:
            self.word(XX)
        while len(self._open) > 1:
            self._end()
        top = self._open[0].children
        if len(top) != 1 or isinstance(top[0], Leaf):
            self.repairs.add(NO_ROOT)
        return Repaired(Tree(ROOT, tuple(top)), tuple(kind for kind in KINDS if kind in self.repairs))

    def _reopen(self) -> None:
        """Goes back into the constituent that the sequence ended with, if nothing is open."""
        top = self._open[0].children
        if len(self._open) == 1 and top and isinstance(last := top[-1], Tree):
            top.pop()
            self._open.append(_Open(last.label, list(last.children)))

    def _end(self) -> None:
        """The innermost constituent becomes part of the one around it."""
        done = self._open.pop()
        if done.children:
            self._open[-1].children.append(Tree(done.label, tuple(done.children)))
        else:
            self.repairs.add(EMPTY)
