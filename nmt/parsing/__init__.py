"""Constituency parsing as translation (paper, 6.3): trees, their form as a sequence, their score."""

from nmt.parsing.evalb import COLLINS, CUTOFF, Rules, Sentence, Summary, compare, scores
from nmt.parsing.linear import KINDS, Repaired, linearise, restore
from nmt.parsing.trees import Leaf, Tree, read_tree_lines, read_trees, split_words

__all__ = [
    "COLLINS",
    "CUTOFF",
    "KINDS",
    "Leaf",
    "Repaired",
    "Rules",
    "Sentence",
    "Summary",
    "Tree",
    "compare",
    "linearise",
    "read_tree_lines",
    "read_trees",
    "restore",
    "scores",
    "split_words",
]
