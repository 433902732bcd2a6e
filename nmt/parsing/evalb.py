"""Labelled bracketing as EVALB counts it (Sekine and Collins, 1997), by default with Collins' parameters.

The counting is ours because the one package on PyPI, PYEVALB 0.1.3 of 2016, takes no parameters: it deletes nothing and
makes no labels equal, counts equal brackets over the same words once, and needs exactly one tree on each line.

A constituent is a label over a span of words, and is right if the gold tree has it too. Punctuation does not count,
nor does the bracket around the whole.

Which words are punctuation the tags say, and here is the one difference. EVALB asks each tree for its own: a comma that
a parser tags as a noun is a word too many, the sentence is an error, and it does not count. So a parser that tags badly
is judged on fewer sentences, and one that has no tags on next to none. Here the gold tags decide for both trees
where these have equally many words; where they have not, each tree's own. `own_tags` makes it EVALB's way,
without QUOTE_LABEL, a parameter of its later versions that Collins' do not set.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nmt.errors import DataError
from nmt.parsing.linear import XX
from nmt.parsing.trees import EMPTY, OUTER, Leaf, Tree, many, plain, read_tree_lines, read_trees, walk

CUTOFF = 40  # words; shorter sentences are also counted by themselves, as has been done since 1995


@dataclass(frozen=True)
class Rules:
    """What does not count, and what counts as equal: EVALB's parameters.

    delete       labels of constituents that do not count, and tags of words that are taken out
    same_labels  pairs of labels, or of tags, that are one
    same_words   pairs of words that are one
    """

    delete: frozenset[str]
    same_labels: tuple[tuple[str, str], ...] = ()
    same_words: tuple[tuple[str, str], ...] = ()


# COLLINS.prm has TOP; ROOT, S1 and a bracket without a label are the same thing in other treebanks.
COLLINS = Rules(OUTER | {EMPTY, ",", ":", "``", "''", "."}, same_labels=(("ADVP", "PRT"),))

Status = Literal["valid", "error", "skipped"]


class Sentence(NamedTuple):
    """How a tree compares with the gold tree.

    status    "skipped" where there is no tree, "error" where its words are others: the figures are then 0
    length    words of the gold tree, punctuation with them
    words     words without punctuation
    gold      constituents that count in the gold tree, test in the other, matched in both
    crossing  constituents of the other tree that overlap one of the gold tree, neither being inside the other
    tags      words with the right tag; None where there are none but XX
    """

    status: Status
    length: int
    words: int
    matched: int = 0
    gold: int = 0
    test: int = 0
    crossing: int = 0
    tags: int | None = None

    @property
    def recall(self) -> float:
        """The share of the gold constituents that are found, in percent."""
        return _percent(self.matched, self.gold)

    @property
    def precision(self) -> float:
        """The share of the constituents found that are right, in percent."""
        return _percent(self.matched, self.test)

    @property
    def exact(self) -> bool:
        """Whether both trees have the same constituents."""
        return self.matched == self.gold == self.test


def compare(gold: Tree, test: Tree | None, rules: Rules = COLLINS, *, own_tags: bool = False) -> Sentence:
    """How `test` compares with `gold`; with `own_tags` each tree's own tags say what is punctuation, as in EVALB."""
    golden, tested = gold.leaves(), test.leaves() if test else []
    by_gold = [leaf.tag not in rules.delete for leaf in golden]
    of_both = len(golden) == len(tested) and not own_tags
    by_test = by_gold if of_both else [leaf.tag not in rules.delete for leaf in tested]
    golden_words, tested_words = _kept(golden, by_gold), _kept(tested, by_test)
    length, words = len(golden), len(golden_words)
    if test is None or not tested_words:
        return Sentence("skipped", length, words)
    same = _One(rules.same_words)
    if [same[leaf.word] for leaf in golden_words] != [same[leaf.word] for leaf in tested_words]:
        return Sentence("error", length, words)
    ours, theirs = _constituents(gold, by_gold, rules), _constituents(test, by_test, rules)
    return Sentence(
        "valid",
        length,
        words,
        matched=(Counter(ours) & Counter(theirs)).total(),
        gold=len(ours),
        test=len(theirs),
        crossing=_crossing([(start, end) for _, start, end in ours], [(start, end) for _, start, end in theirs]),
        tags=_right_tags(golden_words, tested_words, rules),
    )


@dataclass(frozen=True)
class Summary:
    """The figures of many sentences together, shares in percent.

    Only valid sentences count: what was skipped or is in error makes no difference to them, so mind how many there are.
    """

    sentences: int
    errors: int
    skipped: int
    recall: float
    precision: float
    f1: float
    exact: float
    crossing: float
    no_crossing: float
    at_most_two_crossing: float
    tagging: float | None

    @property
    def valid(self) -> int:
        """Sentences that the figures are of."""
        return self.sentences - self.errors - self.skipped

    @classmethod
    def of(cls, sentences: Sequence[Sentence]) -> "Summary":
        """The summary of these sentences."""
        valid = [sentence for sentence in sentences if sentence.status == "valid"]
        matched = sum(s.matched for s in valid)
        gold, test = sum(s.gold for s in valid), sum(s.test for s in valid)
        tagged = [s for s in valid if s.tags is not None]
        return cls(
            sentences=len(sentences),
            errors=sum(s.status == "error" for s in sentences),
            skipped=sum(s.status == "skipped" for s in sentences),
            recall=_percent(matched, gold),
            precision=_percent(matched, test),
            f1=_percent(2 * matched, gold + test),
            exact=_percent(sum(s.exact for s in valid), len(valid)),
            crossing=sum(s.crossing for s in valid) / len(valid) if valid else 0.0,
            no_crossing=_percent(sum(s.crossing == 0 for s in valid), len(valid)),
            at_most_two_crossing=_percent(sum(s.crossing <= 2 for s in valid), len(valid)),
            tagging=_percent(sum(s.tags or 0 for s in tagged), sum(s.words for s in valid)) if tagged else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The figures as values that `json` can write."""
        return {"valid": self.valid, **self.__dict__}


def scores(gold: str | Path, test: str | Path, rules: Rules = COLLINS, *, own_tags: bool = False) -> list[Sentence]:
    """How each line of the file `test` compares with the tree in the same place of the file `gold`, as `compare` says.

    A gold tree may go over several lines, and one without words is passed over. A blank line of `test` is no tree.
    Raises `DataError` for what cannot be read, and for unequally many.
    """
    golden = (tree for tree in read_trees(gold) if tree.children)
    counts = [0, 0]
    found = []
    for one, line in zip_longest(golden, _lines(test)):
        counts[0] += one is not None
        counts[1] += line is not None
        if one is not None and line is not None:
            found.append(compare(one, line.tree, rules, own_tags=own_tags))
    if counts[0] != counts[1]:
        raise DataError(
            f"{gold} has {many(counts[0], 'tree')} but {test} has {many(counts[1], 'line')}: "
            "each line of one must be the parse of the same tree of the other"
        )
    if not found:
        raise DataError(f"{gold}: no trees: there is nothing to score against")
    return found


class _Line(NamedTuple):
    tree: Tree | None


def _lines(path: str | Path) -> Iterator[_Line]:
    return map(_Line, read_tree_lines(path))


class _One(dict[str, str]):
    """Names, where several that mean the same are one."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        super().__init__({other: one for one, other in pairs})

    def __missing__(self, name: str) -> str:
        return name


def _kept(leaves: Sequence[Leaf], keep: Sequence[bool]) -> list[Leaf]:
    return [leaf for leaf, kept in zip(leaves, keep, strict=True) if kept]


def _constituents(tree: Tree, keep: Sequence[bool], rules: Rules) -> list[tuple[str, int, int]]:
    """The constituents that count, as label and span; words that are not kept have no width."""
    same = _One(rules.same_labels)
    deleted = {same[label] for label in rules.delete}
    kept = iter(keep)
    place, starts, found = 0, [], []
    for node, begins in walk(tree):
        if isinstance(node, Leaf):
            place += next(kept)
        elif begins:
            starts.append(place)
        elif (start := starts.pop()) < place and (label := same[plain(node.label)]) not in deleted:
            found.append((label, start, place))
    return found


def _crossing(gold: list[tuple[int, int]], test: list[tuple[int, int]]) -> int:
    return sum(
        any(start < begin < end < stop or begin < start < stop < end for start, end in gold) for begin, stop in test
    )


def _right_tags(gold: Sequence[Leaf], test: Sequence[Leaf], rules: Rules) -> int | None:
    if all(leaf.tag == XX for leaf in test):
        return None
    same = _One(rules.same_labels)
    return sum(same[one.tag] == same[other.tag] for one, other in zip(gold, test, strict=True))


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0
