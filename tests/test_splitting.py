"""Lines that are too long are cut at the best places there are, nothing of them is lost, and they come back whole."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import NoReturn

import pytest
import torch
from commands import Shell
from hypothesis import given
from hypothesis import strategies as st

from nmt.errors import DataError
from nmt.model.transformer import Transformer
from nmt.recipe import loads
from nmt.text import Tokenizer, Tokenizers, one_line, sentences, train_tokenizer
from nmt.text.sentences import CLAUSE, INSIDE, SENTENCE, SPACE, Piece, pieces, sentence_ends
from nmt.translation import Translation, Translator
from nmt.translation.splitting import Split, Splitter

TOKENIZER = Tokenizer(
    train_tokenizer(["The dog runs. It has 4 legs, and a tail!", "我们走吧。你呢？"], 300, symbols=["<2de>", "<x>"])
)
SIGNS = st.sampled_from([*"abcde  .!?,;()«»\"'-1我。？、é\u0301\u200d😀<>", "Dr. ", "e.g. ", " . . .", "<2de> "])
LINES = st.lists(SIGNS, max_size=80).map("".join).map(one_line)


def cut(line: str, most: int, tokens: Callable[[str], int] = len, language: str = "en") -> list[str]:
    return [line[piece.begin : piece.end] for piece in pieces(line, tokens, most, language)]


def how(line: str, most: int, language: str = "en") -> list[str]:
    return [piece.cut for piece in pieces(line, len, most, language)]


@given(LINES, st.integers(1, 30), st.sampled_from(["en", "zh", "hi", "xx"]))
def test_the_pieces_of_a_line_are_the_line_but_for_the_spaces_between(line: str, most: int, language: str) -> None:
    found = list(pieces(line, len, most, language))
    places = [0, *(place for piece in found for place in piece[:2]), len(line)]
    assert places == sorted(places)
    assert all(line[a:b] in ("", " ") for a, b in zip(places[::2], places[1::2], strict=True))
    assert all(line[piece.begin : piece.end].strip() == line[piece.begin : piece.end] != "" for piece in found)


@given(LINES, st.integers(6, 30))
def test_every_piece_has_as_many_tokens_as_are_allowed_at_most(line: str, most: int) -> None:
    splitter = Splitter(TOKENIZER, "en", most)
    texts = splitter(line).texts
    lead = len(TOKENIZER.encode([splitter(line).lead])[0])
    assert all(splitter.count(text) <= max(most, lead + 8) for text in texts)  # eight: a sign and its spaces, in bytes
    assert (splitter(line) == Split(line)) == (splitter.count(line) <= most)


def test_pieces_end_with_sentences_and_have_as_many_of_them_as_fit() -> None:
    line = "One is here. Two is here! Is three here? Four is."
    assert cut(line, 49) == [line]
    assert cut(line, 40) == ["One is here. Two is here! Is three here?", "Four is."]
    assert cut(line, 39) == ["One is here. Two is here!", "Is three here? Four is."]
    assert cut(line, 16) == ["One is here.", "Two is here!", "Is three here?", "Four is."]


@pytest.mark.parametrize(
    ("language", "line", "expected"),
    [
        ("en", "Dr. Smith lives in the U.S. today. He is well.", ["Dr. Smith lives in the U.S. today.", "He is well."]),
        ("de", "Das kostet z. B. viel Geld. Er ging.", ["Das kostet z. B. viel Geld.", "Er ging."]),
        ("zh", "我们走吧。你呢？好！", ["我们走吧。", "你呢？", "好！"]),
        ("hi", "यह है। वह है।", ["यह है।", "वह है।"]),
        ("ar_EG", "كيف حالك؟ نعم.", ["كيف حالك؟", "نعم."]),
        ("xx", "Unknown. Language.", ["Unknown.", "Language."]),
    ],
)
def test_where_sentences_end_the_language_says(language: str, line: str, expected: list[str]) -> None:
    ends = [0, *sentence_ends(line, language), len(line)]
    assert [line[a:b].strip() for a, b in pairwise(ends)] == expected


def test_a_sentence_that_is_too_long_is_cut_after_a_clause_then_between_words_then_anywhere() -> None:
    line = "When it rains hard, we stay at home and read"
    assert cut(line, 25) == ["When it rains hard,", "we stay at home and read"]
    assert how(line, 25) == [CLAUSE, SENTENCE]
    assert cut("one two three four", 10) == ["one two", "three four"]
    assert how("one two three four", 10) == [SPACE, SENTENCE]
    assert cut("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert how("abcdefghij", 4) == [INSIDE, INSIDE, SENTENCE]
    assert cut("我们今天很高兴，因为天气好", 10, language="zh") == ["我们今天很高兴，", "因为天气好"]


def test_a_comma_in_the_first_half_of_what_fits_is_no_reason_to_cut() -> None:
    assert cut("Yes, we stay at home and read", 24) == ["Yes, we stay at home and", "read"]


def test_a_letter_is_not_torn_from_its_marks() -> None:
    line = "n\u0303\u0323" * 20
    assert all(piece.startswith("n") for piece in cut(line, 7))
    assert cut("👨\u200d👩👨\u200d👩", 4) == ["👨\u200d👩", "👨\u200d👩"]


def test_sentences_are_found_all_along_a_line_however_long() -> None:
    line = " ".join(["This is one sentence of many."] * 1000)
    assert sentence_ends(line, "en") == list(range(29, len(line), 30))


@pytest.mark.parametrize(
    "line", ["a" * 1_000_000, "我" * 300_000, "我。" * 150_000, "word " * 200_000, "." * 1_000_000]
)
def test_a_line_of_a_megabyte_is_cut_in_seconds(line: str) -> None:
    calls = 0

    def tokens(text: str) -> int:
        nonlocal calls
        calls += 1
        return len(text) // 2 + 1

    begun = time.perf_counter()
    found = cut(one_line(line), 256, tokens, "zh")
    assert sum(map(len, found)) == len(line.replace(" ", "")) + ("w" in line) * sum(one.count(" ") for one in found)
    assert calls < 12 * len(found)
    assert time.perf_counter() - begun < 30


class PanicException(BaseException):
    """As that of a library in Rust is called."""


def test_where_the_splitter_fails_or_loses_text_a_line_is_cut_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(fault: BaseException) -> NoReturn:
        raise fault

    line = "One is here; two is here. Three."
    for broken in (lambda *_: raises(PanicException()), lambda *_: ["One"]):
        monkeypatch.setattr(sentences, "segment", broken)
        assert cut(line, 20) == ["One is here;", "two is here. Three."]
    monkeypatch.setattr(sentences, "segment", lambda *_: raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        cut(line, 20)


# Together again


def echoed(text: str, tags: int = 0) -> list[Translation]:
    """A translation of each word by itself, in capitals."""
    words = text.split(" ")
    links = tuple((i, max(0, i - tags)) for i in range(len(words)))
    return [Translation(" ".join(words[tags:]).upper(), -1.0, links)]


@given(LINES, st.integers(8, 30))
def test_what_says_every_word_again_says_the_line_again_with_each_word_in_its_place(line: str, most: int) -> None:
    split = Splitter(TOKENIZER, "en", most)(line)
    [found] = split.joined([echoed(text, len(split.lead.split())) for text in split.texts])
    assert found.text.replace(" ", "") == line.removeprefix(split.lead).upper().replace(" ", "")
    if split.pieces and "<2de>" not in line and not set(line) & set("我。？、"):
        spaces = [piece for piece in split.pieces[1:] if line[piece.begin - 1] != " "]
        if not spaces:
            assert found == echoed(line)[0]._replace(score=found.score)


def test_a_word_cut_in_two_is_one_word_again_and_so_are_its_links() -> None:
    split = Split("ab cdef", "", (Piece(0, 5, INSIDE), Piece(5, 7)))
    [found] = split.joined([echoed("ab cd"), echoed("ef")])
    assert (found.text, found.alignment) == ("AB CDEF", ((0, 0), (1, 1)))


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["It is.", "Is it?"], "It is. Is it?"),
        (["是的。", "是吗？"], "是的。是吗？"),
        (["はい。", "GPUです。"], "はい。GPUです。"),
        (["그렇다.", "그래?"], "그렇다. 그래?"),
        (["ใช่", "ไม่ใช่"], "ใช่ ไม่ใช่"),
        (["", "Is it?"], "Is it?"),
        (["It is.", ""], "It is."),
    ],
)
def test_sentences_are_joined_as_their_script_is_written(parts: list[str], whole: str) -> None:
    split = Split("Yes. No.", "", (Piece(0, 4), Piece(5, 8)))
    assert split.joined([[Translation(part, 0.0)] for part in parts])[0].text == whole


def test_the_nth_best_of_a_line_is_made_of_the_nth_best_of_its_pieces() -> None:
    split = Split("Yes. No.", "", (Piece(0, 4), Piece(5, 8)))
    found = split.joined([[Translation("A", -1.0), Translation("B", -2.5)], [Translation("C", -0.5)]])
    assert [(one.text, one.score) for one in found] == [("A C", -1.5), ("B C", -3.0)]


def test_symbols_that_begin_a_line_stand_before_every_piece() -> None:
    split = Splitter(TOKENIZER, "en", 22)("<2de> <x> The dog runs. The dog has 4 legs. It has a tail.")
    assert split.texts == ["<2de> <x> The dog runs.", "<2de> <x> The dog has 4 legs.", "<2de> <x> It has a tail."]
    found = split.joined([echoed(text, 2) for text in split.texts])[0]
    assert found.text == "THE DOG RUNS. THE DOG HAS 4 LEGS. IT HAS A TAIL."
    assert {(s, t) for s, t in found.alignment if s > 1} == {(i + 2, i) for i in range(12)}


def test_a_line_beyond_the_learned_positions_is_split_to_fit_and_told_where_it_may_not_be() -> None:
    positions = "positions: learned, max_positions: 20"
    recipe = loads(
        "{run: run, data: {source: en, target: de, train: a, valid: b, max_length: 19}, tokenizer: {vocab_size: 300}, "
        f"model: {{layers: 1, d_model: 16, heads: 2, d_ffn: 16, {positions}}}, decode: {{beam: 1, max_extra: 2}}}}"
    )
    model = Transformer(recipe.model, TOKENIZER.vocab_size, TOKENIZER.vocab_size).eval()
    told = list[str]()
    both = Tokenizers(TOKENIZER, TOKENIZER)
    translator = Translator.of(model, both, recipe, torch.device("cpu"), torch.float32, told.append)
    line = "The dog runs. It has 4 legs, and a tail! " * 4
    assert len(translator.translate([line])) == 1
    assert told[0].startswith("line 1 has ")
    with pytest.raises(DataError, match="split it into sentences"):
        translator.translate([line], split=False)
    with pytest.raises(DataError, match="split it into sentences"):  # for it is not known which piece it begins
        translator.translate([line], prefixes=["Der"])


# Commands


def test_a_long_line_is_what_its_pieces_are_and_a_warning_names_it(trained: Shell) -> None:
    sentence = "Click the button to save the document in this folder."
    line = " ".join([sentence] * 40)
    splitter = Splitter(Tokenizer.load(trained.folder / "run/model/tokenizer.model"), "en", 256)
    texts = splitter(line).texts
    assert len(texts) > 1
    options = ("--beam", 2, "--on-suspect", "off", "--alignments")
    done = trained("translate", "run/model", *options, stdin=f"short.\n{line}\n".encode())
    assert done.err == (
        f"line 2 has {splitter.count(line)} tokens, more than the 256 the model was trained on: it is translated in "
        f"{len(texts)} pieces, cut where sentences end\n"
    )
    apart = trained("translate", "run/model", *options, stdin="\n".join(texts).encode())
    assert done.lines[1].split(" ||| ")[0] == " ".join(row.split(" ||| ")[0] for row in apart.lines)
    links = [int(link.split("-")[0]) for link in done.lines[1].split(" ||| ")[1].split()]
    assert max(links) < len(line.split())
    assert max(links) > len(line.split()) - 12
    assert apart.err == ""


def test_a_line_without_a_space_is_translated_to_its_end(trained: Shell) -> None:
    done = trained("translate", "run/model", "--beam", 1, "--n-best", 1, stdin=b"x" * 5000 + b"\n")
    assert len(done.lines) == 1
    assert "cut off inside a sentence" in done.err
