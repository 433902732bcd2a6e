"""Constituency parsing as translation (paper, 6.3): trees, their form as a sequence, their score."""

from nmt.parsing.evalb import COLLINS, CUTOFF, Rules, Sentence, Summary, compare, scores
from nmt.parsing.grammar import Grammar
from nmt.parsing.linear import KINDS, Repaired, has_brackets, linearise, restore
from nmt.parsing.pairs import Pairs, write_pairs
from nmt.parsing.parser import Parse, Tally, parses
from nmt.parsing.report import Report, judge
from nmt.parsing.trees import Leaf, Tree, read_tree_lines, read_trees, split_words

__all__ = [
    "COLLINS",
    "CUTOFF",
    "KINDS",
    "Grammar",
    "Leaf",
    "Pairs",
    "Parse",
    "Repaired",
    "Report",
    "Rules",
    "Sentence",
    "Summary",
    "Tally",
    "Tree",
    "compare",
    "has_brackets",
    "judge",
    "linearise",
    "parses",
    "read_tree_lines",
    "read_trees",
    "restore",
    "scores",
    "split_words",
    "write_pairs",
]
