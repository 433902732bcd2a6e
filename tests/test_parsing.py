"""A tree is a sequence and comes back from it; any sequence is made a tree; trees are scored as EVALB scores them."""

import gzip
import json
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from commands import Server, Shell
from hypothesis import given
from hypothesis import strategies as st

from nmt.errors import DataError, OutputError
from nmt.ids import EOS
from nmt.parsing import (
    COLLINS,
    KINDS,
    Grammar,
    Leaf,
    Rules,
    Sentence,
    Summary,
    Tally,
    Tree,
    compare,
    judge,
    linearise,
    parses,
    read_tree_lines,
    read_trees,
    restore,
    scores,
    split_words,
    write_pairs,
)
from nmt.parsing.grammar import OPEN_AT_ONCE
from nmt.parsing.trees import Node

EVALB = Path(__file__).parent / "evalb"

WE_AGREE = "(ROOT (S (NP-SBJ (PRP We)) (VP=2 (VBP agree)) (. .)))"

# What EVALB's sample.prm says; that a bracket without a label does not count goes without saying there.
SAMPLE = Rules(
    frozenset({"", "TOP", "-NONE-", ",", ":", "``", "''"}),
    same_labels=(("T", "TT"),),
    same_words=(("This", "this"),),
)

labels = st.sampled_from(["S", "NP", "VP", "PP", "X|Y", "ÄP"])
tags = st.sampled_from(["XX", "NN", "PRP$", ".", ",", "``", "-LRB-", "ÄT"])
some_words = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="-"), min_size=1)
nodes = st.recursive(
    st.builds(Leaf, tags, some_words),
    lambda inner: st.builds(Tree, labels, st.lists(inner, min_size=1, max_size=4).map(tuple)),
)
trees = st.builds(Tree, labels, st.lists(nodes, min_size=1, max_size=4).map(tuple))
tokens = st.one_of(
    tags,
    labels.map("({}".format),
    labels.map("){}".format),
    st.sampled_from(["(", ")", "((", "()", "(-NONE-", "-NONE-", "(ROOT", ")ROOT", "⁇", "N(N", "NN)"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)


def tree(text: str, folder: Path) -> Tree:
    """The one tree in a text."""
    (folder / "tree").write_text(text)
    (found,) = read_trees(folder / "tree")
    return found


def several(folder: Path, text: str) -> list[str]:
    """The trees in a text, each on a line."""
    (folder / "trees").write_text(text)
    return [str(found) for found in read_trees(folder / "trees")]


NOT = "not a tree in brackets, as (S (NP (PRP We)) (VP (VBP agree)))"


def complaint(folder: Path, text: str) -> str:
    """What is said of a file with this text, from its line number on."""
    (folder / "trees").write_text(text)
    with pytest.raises(DataError) as caught:
        list(read_trees(folder / "trees"))
    return str(caught.value).removeprefix(f"{folder}/trees:")


# Reading and writing


def test_a_tree_is_written_as_it_was_read(tmp_path: Path) -> None:
    found = tree(WE_AGREE, tmp_path)
    assert str(found) == WE_AGREE
    assert found.words() == ["We", "agree", "."]
    assert found.leaves()[0] == Leaf("PRP", "We")


def test_a_tree_may_go_over_lines_and_a_line_may_hold_several(tmp_path: Path) -> None:
    text = "( (S\n  (NP (NN one))\n) )\n\n(X (NN two)) (X\t(NN three))(X (NN four))"
    assert several(tmp_path, text) == ["( (S (NP (NN one))))", "(X (NN two))", "(X (NN three))", "(X (NN four))"]


def test_a_gzipped_treebank_is_read_like_a_plain_one(tmp_path: Path) -> None:
    (tmp_path / "trees.gz").write_bytes(gzip.compress(WE_AGREE.encode()))
    assert [str(found) for found in read_trees(tmp_path / "trees.gz")] == [WE_AGREE]


def test_empty_elements_go_with_all_that_holds_nothing_else(tmp_path: Path) -> None:
    text = "(S (NP (NN it)) (VP (VBD was) (SBAR (-NONE- 0) (S (-NONE- *T*-1)))))"
    assert str(tree(text, tmp_path)) == "(S (NP (NN it)) (VP (VBD was)))"
    assert tree("(S (NP (-NONE- *)))", tmp_path).children == ()


def test_brackets_that_are_words_are_plain_in_words_and_escaped_in_trees(tmp_path: Path) -> None:
    found = tree("(PRN (-LRB- -LRB-) (NN f-LRB-x-RRB-) (-RRB- -RRB-) (-LRB- -LSB-))", tmp_path)
    assert found.words() == ["(", "f(x)", ")", "["]
    assert str(found) == "(PRN (-LRB- -LRB-) (NN f-LRB-x-RRB-) (-RRB- -RRB-) (-LRB- [))"


def test_a_no_break_space_is_part_of_a_word(tmp_path: Path) -> None:
    found = tree("(QP (CD 10\u00a0000))", tmp_path)
    assert found.words() == split_words(" 10\u00a0000\t") == ["10\u00a0000"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(S (NN a))\n(NP (NN b)\n(NN c)", "2: a tree that begins here is not closed"),
        ("(S (NN a))\n\n)", '3: {NOT}: a ")" too many'),
        ("\nfive words", '2: {NOT}: "five" outside of all brackets'),
        ("(NN two words)", '1: {NOT}: "words" where a bracket must open or close'),
        ("(S (NN a) b)", '1: {NOT}: "b" where a bracket must open or close'),
        ("(S a\n(NN b))", '2: {NOT}: a bracket after the word "a"'),
    ],
)  # fmt: skip
def test_what_is_not_a_tree_is_told_with_file_and_line(text: str, said: str, tmp_path: Path) -> None:
    assert complaint(tmp_path, text) == said.format(NOT=NOT)


def test_where_each_line_is_a_tree_it_must_be_closed_there(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("(S (NN a))\n\n(S\n(NN b))\n")
    with pytest.raises(
        DataError, match=r"lines:3: a tree that begins here is not closed; each line must hold one tree"
    ):
        list(read_tree_lines(tmp_path / "lines"))


def test_trees_may_be_deeper_than_the_stack_of_python(tmp_path: Path) -> None:
    deep = "(X " * 2_000 + "(NN a)" + ")" * 2_000
    found = tree(deep, tmp_path)
    assert str(found) == deep
    assert compare(found, found).matched == 2_000
    assert str(restore(linearise(found), ["a"]).tree) == f"(ROOT {deep})"


# Sequences


def test_a_tree_as_a_sequence_has_tags_for_words_no_functions_and_no_root(tmp_path: Path) -> None:
    assert linearise(tree(WE_AGREE, tmp_path)) == "(S (NP PRP )NP (VP VBP )VP . )S"
    assert linearise(tree("(S (NP (PRP We)))", tmp_path)) == "(S (NP PRP )NP )S"


@given(trees)
def test_a_tree_comes_back_from_its_sequence_unrepaired(found: Tree) -> None:
    again, repairs = restore(linearise(found), found.words())
    assert again == Tree("ROOT", (found,))
    assert repairs == ()


@given(st.lists(nodes, min_size=1).map(tuple))
def test_a_root_around_several_comes_back_too_but_is_told_of(parts: tuple[Node, ...]) -> None:
    whole = Tree("ROOT", parts)
    again, repairs = restore(linearise(whole), whole.words())
    assert again == whole
    assert repairs == (() if len(parts) == 1 and isinstance(parts[0], Tree) else ("no root",))


@given(st.lists(tokens), st.lists(some_words, min_size=1))
def test_whatever_is_said_becomes_a_tree_of_exactly_the_words(said: list[str], words: list[str]) -> None:
    found, repairs = restore(" ".join(said), words)
    assert found.words() == words
    assert set(repairs) <= set(KINDS)
    # it is a fixed point: said again in brackets, nothing is left to repair but a root
    assert restore(linearise(found), words) == (found, tuple(kind for kind in repairs if kind == "no root"))


@given(st.lists(tokens), st.lists(some_words, min_size=1))
def test_whatever_is_said_can_be_written_and_read(said: list[str], words: list[str]) -> None:
    found = restore(" ".join(said), words).tree
    with tempfile.TemporaryDirectory() as folder:
        (again,) = _read_lines(Path(folder), str(found))
    assert again == found


def _read_lines(folder: Path, text: str) -> list[Tree | None]:
    (folder / "lines").write_text(text, newline="\n")
    return list(read_tree_lines(folder / "lines"))


@pytest.mark.parametrize(
    ("said", "made", "repairs"),
    [
        ("(S (NP A )NP (VP B )VP C )S", "(S (NP (A a)) (VP (B b)) (C c))", []),
        # whatever is no bracket is a tag
        ("(S A ⁇ -LRB- )S", "(S (A a) (⁇ b) (-LRB- c))", []),
        # passed over
        ("(S A ( B ) C )S", "(S (A a) (B b) (C c))", ["unknown token"]),
        ("(S A -NONE- B N(N C )S", "(S (A a) (B b) (C c))", ["unknown token"]),
        ("(S A B C )S )NP", "(S (A a) (B b) (C c))", ["stray closing"]),
        ("(S A B C D E )S", "(S (A a) (B b) (C c))", ["extra word"]),
        # closed
        ("(S (NP A (VP B C", "(S (NP (A a) (VP (B b) (C c))))", ["unclosed"]),
        ("(S (NP (PP A B )NP C )S", "(S (NP (PP (A a) (B b))) (C c))", ["mismatched"]),
        ("(S (NP A B )VP C )S", "(S (NP (A a) (B b)) (C c))", ["mismatched"]),
        ("(S (NP (NP A )NP B )S C", "(S (NP (NP (A a)) (B b))) (C c)", ["mismatched", "no root"]),
        # words that are missing
        ("(S (NP A )NP )S", "(S (NP (A a)) (XX b) (XX c))", ["missing word"]),
        ("(S (NP A", "(S (NP (A a) (XX b) (XX c)))", ["unclosed", "missing word"]),
        ("(NP A )NP B", "(NP (A a)) (B b) (XX c)", ["missing word", "no root"]),
        ("", "(XX a) (XX b) (XX c)", ["missing word", "no root"]),
        # constituents without words
        ("(S (NP (PP )PP )NP A B C )S", "(S (A a) (B b) (C c))", ["empty constituent"]),
        ("(S A B C (NP D )NP )S", "(S (A a) (B b) (C c))", ["extra word", "empty constituent"]),
        # several at the top
        ("(NP A )NP (VP B C )VP", "(NP (A a)) (VP (B b) (C c))", ["no root"]),
        ("A B C", "(A a) (B b) (C c)", ["no root"]),
    ],
)
def test_each_repair_is_the_one_that_is_stated(said: str, made: str, repairs: list[str]) -> None:
    found = restore(said, ["a", "b", "c"])
    assert str(found.tree) == f"(ROOT {made})"
    assert list(found.repairs) == repairs


def test_what_is_said_of_lines_is_parsed_without_a_model() -> None:
    tally = Tally()
    found = list(parses(["we agree", " ", "no"], ["(S PRP VBP )S", "", "(S UH"]))
    for parse in found:
        tally.add(parse)
    assert [str(parse.tree) for parse in found] == ["(ROOT (S (PRP we) (VBP agree)))", "None", "(ROOT (S (UH no)))"]
    assert tally.summary == "2 parsed, 1 repaired: unclosed 1"
    assert tally.warning == ""


# What the model may say

PIECES = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "▁(S",
    "▁(NP",
    "▁(VP",
    "▁)S",
    "▁)NP",
    "▁)VP",
    "▁NN",
    "▁.",
    "▁",
    "x",
    "▁(",
    "▁(X",
    "(S",
    "▁)Y",
]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_whatever_the_grammar_allows_becomes_a_tree_without_repair(lengths: list[int], draw: random.Random) -> None:
    lines = [" ".join(["w"] * length) for length in lengths]
    constraint = Grammar(PIECES).over(lines)
    for number, line in enumerate(lines):
        said: list[int] = []
        while line and said[-1:] != [EOS]:
            [allowed] = constraint.allowed(np.array([said], np.int64).reshape(1, -1), np.array([number]))
            said.append(draw.choice(np.flatnonzero(allowed).tolist()))
        text = "".join(PIECES[token] for token in said[:-1]).replace("▁", " ")
        assert not line or restore(text, line.split()).repairs == ()


@given(trees)
def test_every_tree_with_one_root_is_allowed(found: Tree) -> None:
    """Unless it is deeper at once than trees are, or has words of a kind that no token spells."""
    said = linearise(found).split()
    pieces = ["<pad>", "<s>", "</s>", "<unk>", *sorted({f"▁{token}" for token in said})]
    ids = [pieces.index(f"▁{token}") for token in said]
    constraint = Grammar(pieces).over([" ".join("w" for _ in found.words())])
    for place, token in enumerate([*ids, EOS]):
        opened = [said[i][0] == "(" for i in range(place)]
        [allowed] = constraint.allowed(np.array([ids[:place]], np.int64).reshape(1, -1), np.array([0]))
        assert allowed[token] or all(opened[-OPEN_AT_ONCE:])


# Scores


def published() -> tuple[list[list[str]], list[dict[str, str]]]:
    """What EVALB says of its sample: a row of figures for each sentence, and the two summaries."""
    head, *parts = (EVALB / "sample.rsl").read_text().split("-- ")
    rows = [line.split() for line in head.splitlines() if line[:4].strip().isdigit()]
    texts = [part.partition("--\n")[2].splitlines() for part in parts]
    return rows, [dict(map(str.strip, line.split("=")) for line in lines if line) for lines in texts]


def row(number: int, found: Sentence) -> list[str]:
    """A sentence as EVALB prints it."""
    tags = found.tags or 0
    accuracy = 100 * tags / found.words
    status = ["valid", "error", "skipped"].index(found.status)
    counts = [found.matched, found.gold, found.test, found.crossing, found.words, tags]
    return [
        *map(str, (number, found.length, status)),
        f"{found.recall:.2f}",
        f"{found.precision:.2f}",
        *map(str, counts),
        f"{accuracy:.2f}",
    ]


def summary(found: Summary) -> dict[str, str]:
    """A summary as EVALB prints it."""
    return {
        "Number of sentence": str(found.sentences),
        "Number of Error sentence": str(found.errors),
        "Number of Skip  sentence": str(found.skipped),
        "Number of Valid sentence": str(found.valid),
        "Bracketing Recall": f"{found.recall:.2f}",
        "Bracketing Precision": f"{found.precision:.2f}",
        "Complete match": f"{found.exact:.2f}",
        "Average crossing": f"{found.crossing:.2f}",
        "No crossing": f"{found.no_crossing:.2f}",
        "2 or less crossing": f"{found.at_most_two_crossing:.2f}",
        "Tagging accuracy": f"{found.tagging:.2f}",
    }


@pytest.mark.parametrize("own_tags", [True, False], ids=["as EVALB", "by the gold tags"])
def test_evalb_gives_its_sample_the_figures_that_we_give(own_tags: bool) -> None:
    rows, (everything, short) = published()
    found = scores(EVALB / "sample.gld", EVALB / "sample.tst", SAMPLE, own_tags=own_tags)
    assert [row(number, sentence) for number, sentence in enumerate(found, 1)] == rows
    assert summary(Summary.of(found)) == everything
    assert summary(Summary.of([sentence for sentence in found if sentence.length <= 40])) == short


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    found = Summary.of(scores(EVALB / "sample.gld", EVALB / "sample.tst", SAMPLE))
    assert found.f1 == pytest.approx(2 / (1 / found.recall + 1 / found.precision))


def both(gold: str, test: str, folder: Path, rules: Rules = COLLINS, *, own_tags: bool = False) -> Sentence:
    return compare(tree(gold, folder), tree(test, folder), rules, own_tags=own_tags)


def test_punctuation_functions_and_the_root_do_not_count(tmp_path: Path) -> None:
    found = both(WE_AGREE, "(S (NP (PRP We)) (VP (VBP agree)))", tmp_path)
    assert (found.matched, found.gold, found.test, found.words, found.length) == (3, 3, 3, 2, 3)


def test_the_gold_tags_say_what_is_punctuation(tmp_path: Path) -> None:
    untagged = "(TOP (S (NP (XX We)) (VP (XX agree) (XX .))))"
    found = both(WE_AGREE, untagged, tmp_path)
    assert found.status == "valid"
    assert found.exact
    assert found.tags is None
    assert Summary.of([found]).tagging is None


def test_by_their_own_tags_trees_that_disagree_on_punctuation_do_not_count_as_in_evalb(tmp_path: Path) -> None:
    for tag, words in (("NN", 3), (".", 2), ("XX", 3)):
        other = f"(S (NP (PRP We)) (VP (VBP agree)) ({tag} .))"
        found = both(WE_AGREE, other, tmp_path, own_tags=True)
        assert found.status == ("valid" if words == 2 else "error")
        assert both(WE_AGREE, other, tmp_path).exact
    comma = "(S (NP (PRP We)) (VP (, agree)) (. .))"  # a word that is no punctuation by the gold tags
    assert both(WE_AGREE, comma, tmp_path, own_tags=True).status == "error"
    assert both(WE_AGREE, comma, tmp_path).tags == 1


def test_tagging_counts_the_words_that_are_no_punctuation(tmp_path: Path) -> None:
    found = both(WE_AGREE, "(S (NP (PRP We)) (VP (NN agree)) (NN .))", tmp_path)
    assert (found.tags, found.words) == (1, 2)
    assert Summary.of([found]).tagging == 50


def test_particles_are_adverbs_for_collins(tmp_path: Path) -> None:
    assert both("(VP (VB go) (PRT (RP on)))", "(VP (VB go) (ADVP (RP on)))", tmp_path).exact
    assert not both("(VP (VB go) (PRT (RP on)))", "(VP (VB go) (ADVP (RP on)))", tmp_path, SAMPLE).exact


def test_equal_brackets_over_the_same_words_count_as_often_as_they_are_there(tmp_path: Path) -> None:
    found = both("(NP (NP (NN a)))", "(NP (NP (NP (NN a))))", tmp_path)
    assert (found.matched, found.gold, found.test) == (2, 2, 3)


@given(trees)
def test_a_tree_compared_with_itself_is_exact(found: Tree) -> None:
    same = compare(found, found)
    assert same.exact
    assert same.crossing == 0


@given(trees, st.lists(tokens))
def test_exchanging_gold_and_test_exchanges_recall_and_precision(found: Tree, said: list[str]) -> None:
    other = restore(" ".join(said), found.words()).tree
    for rules, own_tags in ((COLLINS, True), (Rules(frozenset()), False)):  # the gold tags decide nothing
        there, back = (compare(*pair, rules, own_tags=own_tags) for pair in ((found, other), (other, found)))
        assert (there.recall, there.precision) == (back.precision, back.recall)


def test_files_of_unequal_length_are_refused(tmp_path: Path) -> None:
    (tmp_path / "gold").write_text(f"{WE_AGREE}\n" * 2)
    (tmp_path / "parsed").write_text(f"{WE_AGREE}\n")
    with pytest.raises(DataError, match=r"gold has 2 trees but .*parsed has 1 line:"):
        scores(tmp_path / "gold", tmp_path / "parsed")


# The commands


def a_tree(draw: random.Random) -> str:
    """A sentence of a small language: its trees follow from its words."""

    def noun_phrase(depth: int = 0) -> str:
        noun = f"(NP (DT the) (NN {draw.choice(['dog', 'cat', 'bird'])}))"
        if depth or draw.random() < 0.6:
            return noun
        return f"(NP {noun} (PP (IN near) {noun_phrase(depth + 1)}))"

    verb = draw.choice(["(VP (VBZ sleeps))", "(VP (VBZ sees) {})"]).format(noun_phrase())
    return f"(ROOT (S {noun_phrase().replace('(NP', '(NP-SBJ', 1)} {verb} (. .)))"


RECIPE = """
run: run
data: {source: words, target: tree, train: train, valid: valid, max_ratio: 20}
tokenizer: {vocab_size: 345, split_by_unicode_script: false}
model: {layers: 1, d_model: 48, heads: 4, d_ffn: 96, norm: pre, dropout: 0}
train:
  steps: 250
  batch_tokens: 600
  schedule: {warmup: 50}
  precision: fp32
  valid_every: 250
  valid_bleu: 0
  checkpoint_every: 125
  log_every: 50
average: {last: 1}
decode: {beam: 2, max_extra: 100}
"""


@pytest.fixture(scope="module")
def parser(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A model that has learned to parse, and the treebank that it learned from."""
    folder = tmp_path_factory.mktemp("parsing")
    draw = random.Random(1)
    for split, count in {"train": 80, "valid": 5, "test": 12}.items():
        (folder / f"{split}.mrg").write_text("".join(a_tree(draw) + "\n" for _ in range(count)))
    (folder / "recipe.yaml").write_text(RECIPE)
    shell = Shell(server, folder)
    for split in ("train", "valid", "test"):
        shell("trees", f"{split}.mrg", "--output", split)
    shell("prepare", "recipe.yaml", "--workers", 1)
    shell("train", "recipe.yaml", "--device", "cpu")
    shell("average", "recipe.yaml")
    return shell


def test_a_treebank_becomes_parallel_text_and_what_is_left_out_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "one.mrg").write_text(f"{WE_AGREE}\n(S (-NONE- *))\n")
    (tmp_path / "two.mrg.gz").write_bytes(gzip.compress(b"( (FRAG\n (UH Yes)) )"))
    done = Shell(server, tmp_path)("trees", "one.mrg", "two.mrg.gz", "--output", "new/both")
    assert done.err == "3 trees read, 1 left out: it has no words\n"
    assert (tmp_path / "new/both.words").read_text() == "We agree .\nYes\n"
    assert (tmp_path / "new/both.tree").read_text() == "(S (NP PRP )NP (VP VBP )VP . )S\n(FRAG UH )FRAG\n"


def test_a_treebank_that_is_none_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    (tmp_path / "one.mrg").write_text(f"{WE_AGREE}\n(S\n")
    said = Shell(server, tmp_path).fails("trees", "one.mrg", "--output", "one")
    assert said == "one.mrg:2: a tree that begins here is not closed"
    assert [path.name for path in tmp_path.iterdir()] == ["one.mrg"]


def test_files_without_a_tree_are_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "none.mrg").write_text("\n")
    (tmp_path / "traces.mrg").write_text("(S (-NONE- *))\n")
    said = Shell(server, tmp_path).fails("trees", "none.mrg", "traces.mrg", "--output", "pairs")
    assert said.startswith("none.mrg, traces.mrg: no tree with words: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.mrg", "traces.mrg"]


@pytest.mark.parametrize("prefix", ["new/", ".", "..", "/", ""])
def test_a_prefix_that_names_only_a_folder_is_refused(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "one.mrg").write_text(WE_AGREE)
    with pytest.raises(OutputError, match=r"names a folder: name the beginning of two files in it, such as .*train"):
        write_pairs([tmp_path / "one.mrg"], prefix)


def test_one_tree_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "one.mrg").write_text(WE_AGREE)
    assert write_pairs([tmp_path / "one.mrg"], str(tmp_path / "one")).summary == "1 tree read, 0 left out"


def test_what_is_learned_from_trees_parses_and_is_scored(parser: Shell) -> None:
    done = parser("parse", "recipe.yaml", "test.words", "--device", "cpu")
    (parser.folder / "test.parsed").write_bytes(done.out)
    figures = json.loads(parser("evalb", "test.mrg", "test.parsed", "--json").out)["all"]
    assert figures["valid"] == figures["sentences"] == 12
    assert figures["f1"] > 80
    assert figures["tagging"] > 80
    table = parser("evalb", "test.mrg", "test.parsed").lines
    assert f"{figures['f1']:.2f}" in next(line for line in table if line.startswith("F1"))


def test_what_the_search_allows_needs_no_repair_but_said_freely_it_may(parser: Shell) -> None:
    lines = [" ".join(["sleeps"] * n) for n in range(1, 12)]  # what it has never learned to parse
    text = "\n".join(lines).encode()
    parsed = parser("parse", "run/model", "--device", "cpu", stdin=text)
    assert parsed.err.splitlines()[-1] == "11 parsed, 0 repaired"
    (parser.folder / "out").write_bytes(parsed.out)
    assert [tree.words() for tree in read_tree_lines(parser.folder / "out") if tree] == [line.split() for line in lines]
    free = parser("parse", "run/model", "--device", "cpu", "--free", stdin=text)
    assert " 0 repaired" not in free.err


def test_a_vocabulary_whose_brackets_are_several_tokens_cannot_be_constrained() -> None:
    assert Grammar(PIECES).usable
    assert not Grammar(["<pad>", "<s>", "</s>", "<unk>", "▁(", "▁)", "NP", "▁NN"]).usable


def test_one_line_in_is_one_tree_out_of_its_words_and_a_blank_line_stays_blank(parser: Shell) -> None:
    lines = ["the dog sleeps .", "", "Qwerty ( uiop )  asdf", "the the"]
    done = parser("parse", "run/model", "--device", "cpu", "--beam", 1, stdin="\n".join(lines).encode())
    assert len(done.lines) == 4
    (parser.folder / "out").write_bytes(done.out)
    found = list(read_tree_lines(parser.folder / "out"))
    assert [tree.words() if tree else [] for tree in found] == [line.split() for line in lines]
    assert done.err.splitlines()[-1].startswith("3 parsed, ")


def test_raw_is_what_the_model_says(parser: Shell) -> None:
    raw = parser("parse", "recipe.yaml", "test.words", "--raw", "--device", "cpu").lines
    made = parser("parse", "recipe.yaml", "test.words", "--device", "cpu").lines
    words = (parser.folder / "test.words").read_text().splitlines()
    assert [str(restore(line, split_words(text)).tree) for line, text in zip(raw, words, strict=True)] == made


def test_a_model_that_does_not_parse_is_told_of(trained: Shell) -> None:
    for options in ([], ["--raw"]):
        done = trained("parse", "recipe.yaml", "--device", "cpu", *options, stdin=b"Click the button .\n\n")
        assert len(done.lines) == 2
        assert "this model does not seem to parse" in done.err.splitlines()[-1]


def test_sentences_that_do_not_count_are_told_of(server: Server, tmp_path: Path) -> None:
    (tmp_path / "gold").write_text(f"{WE_AGREE}\n" * 3)
    (tmp_path / "parsed").write_text(f"{WE_AGREE}\n(S (PRP We) (VBP differ))\n\n")
    shell = Shell(server, tmp_path)
    done = shell("evalb", "gold", "parsed")
    assert done.err == "not in the figures, as in EVALB: 1 with other words, 1 without a tree, of 3 sentences\n"
    heads = ["sentences 3 3", "valid 1 1", "with other words 1 1", "without a tree 1 1"]
    assert [" ".join(line.split()) for line in done.lines[1:5]] == heads
    assert shell("evalb", "gold", "gold").err == ""


def test_where_no_sentence_can_be_judged_there_are_no_figures(server: Server, tmp_path: Path) -> None:
    (tmp_path / "gold").write_text(f"{WE_AGREE}\n")
    (tmp_path / "parsed").write_text("(S (XX We) (XX agree) (XX .))\n")
    (tmp_path / "blank").write_text("\n")
    shell = Shell(server, tmp_path)
    assert shell.fails("evalb", "gold", "blank").startswith("blank: no sentence to judge by gold: 1 without a tree: ")
    assert "no tags" in shell("evalb", "gold", "parsed").lines[-1]
    assert "without --own-tags" in shell.fails("evalb", "gold", "parsed", "--own-tags")


def test_where_all_sentences_are_long_the_shorter_ones_have_no_figures(tmp_path: Path) -> None:
    (tmp_path / "long").write_text(f"(S {'(NN a) ' * 41})\n")
    assert judge(tmp_path / "long", tmp_path / "long").lines()[5].split() == ["recall", "100.00", "—"]


def test_standard_input_is_not_read_twice(server: Server, tmp_path: Path) -> None:
    said = Shell(server, tmp_path).fails("evalb", "-", "-")
    assert said == "-: standard input can be read only once: name a file for the other"
