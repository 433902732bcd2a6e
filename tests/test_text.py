"""Laws of text: what a line is, what a corpus is, and that the tokenizer loses nothing."""

import gzip
import io
import math
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.errors import DataError, ModelError
from nmt.ids import BOS, EOS, PAD, SPECIALS, UNK
from nmt.recipe import Data, Tsv
from nmt.text import (
    Tokenizer,
    Tokenizers,
    locate,
    one_line,
    read_lines,
    read_pairs,
    reason_to_drop,
    train_tokenizer,
)
from nmt.text.lines import LONGEST_LINE
from nmt.text.tokenizer import SEEDS

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "house",
    "tree",
    "runs",
    "sleeps",
    "finds",
    "small",
    "red",
    "green",
    "under",
]
LINES = [f"{a} {b} {c}, {d}!" for a in WORDS for b in WORDS[::2] for c in WORDS[1::3] for d in WORDS[2::4]]
MODEL = train_tokenizer(LINES, 320)
TOKENIZER = Tokenizer(MODEL)


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Lines


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\u0085", "\r", "\t", "\0", "\v", "\f", "\x1c"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, inside: str) -> None:
    assert list(read_lines(write(tmp_path / "x", f"a{inside}b\nc\n"))) == [f"a{inside}b", "c"]


def test_line_ends_of_windows_and_a_missing_last_one_are_no_part_of_the_line(tmp_path: Path) -> None:
    assert list(read_lines(write(tmp_path / "x", "a\r\n\r\nb"))) == ["a", "", "b"]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    assert list(read_lines(write(tmp_path / "x", "\ufeffa\n\ufeffb\n"))) == ["a", "\ufeffb"]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(write(tmp_path / "x", ""))) == []


def test_gzip_is_told_by_content_whatever_the_name(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.gz", "ä\n")
    zipped = write(tmp_path / "b", gzip.compress("ä\n".encode()) + gzip.compress("ö\n".encode()))
    assert list(read_lines(plain)) == ["ä"]
    assert list(read_lines(zipped)) == ["ä", "ö"]


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = SimpleNamespace(buffer=io.BufferedReader(io.BytesIO("a\nb\xa0c\n".encode())))
    monkeypatch.setattr("sys.stdin", stdin)
    assert list(read_lines("-")) == ["a", "b\xa0c"]


def test_bytes_that_are_not_utf_8_are_told_with_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "x.de", "gut\nfünf\n".encode() + "fünf\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"x\.de:3: not UTF-8 \(byte 0xfc at position 2\).*iconv"):
        list(read_lines(path))


def test_a_gzip_file_cut_short_is_told(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"{n * n} lines\n" for n in range(9999)).encode())
    with pytest.raises(DataError, match=r"x\.gz: gzip file cut short"):
        list(read_lines(write(tmp_path / "x.gz", whole[: len(whole) // 2])))


def test_a_damaged_gzip_file_is_told(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress("".join(f"{n * n} lines\n" for n in range(9999)).encode()))
    whole[-6] ^= 1  # of the checksum
    with pytest.raises(DataError, match=r"x\.gz: gzip file damaged"):
        list(read_lines(write(tmp_path / "x.gz", bytes(whole))))


def test_a_file_that_is_missing_or_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be read: No such file"):
        list(read_lines(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        list(read_lines(tmp_path))


def test_a_line_too_long_to_be_text_is_told_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "x", b"short\n" + b"a" * (LONGEST_LINE + 2))
    with pytest.raises(DataError, match=r"x:2: a line of over 16,777,216 bytes"):
        list(read_lines(path))


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=9)))
def test_what_was_written_line_by_line_is_read_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "lines", "".join(f"{line}\r\n" for line in lines))
    expected = [lines[0].removeprefix("\ufeff"), *lines[1:]] if lines else []
    assert list(read_lines(path)) == expected


# Corpora


def test_a_prefix_stands_for_two_files_of_which_either_may_be_gzipped(tmp_path: Path) -> None:
    write(tmp_path / "x.en", "one\ntwo\n")
    write(tmp_path / "x.de.gz", gzip.compress(b"eins\nzwei\n"))
    assert list(read_pairs(f"{tmp_path}/x", "en", "de")) == [("one", "eins"), ("two", "zwei")]


def test_a_prefix_may_hold_dots(tmp_path: Path) -> None:
    write(tmp_path / "train.lc.en", "a\n")
    write(tmp_path / "train.lc.de", "b\n")
    assert list(read_pairs(f"{tmp_path}/train.lc", "en", "de")) == [("a", "b")]


def test_the_two_columns_of_a_tsv_file_are_the_two_sides(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", "one\teins\r\ntwo\tzwei\r\n")
    assert list(read_pairs(Tsv(tsv=str(path)), "en", "de")) == [("one", "eins"), ("two", "zwei")]


@pytest.mark.parametrize(("line", "columns"), [("one", 1), ("one\teins\tuno", 3)])
def test_a_tsv_line_without_two_columns_is_told_with_its_number(tmp_path: Path, line: str, columns: int) -> None:
    path = write(tmp_path / "x.tsv", f"a\tb\n{line}\n")
    with pytest.raises(DataError, match=rf"x\.tsv:2: must be two columns .* found {columns}"):
        list(read_pairs(Tsv(tsv=str(path)), "en", "de"))


@pytest.mark.parametrize("counts", [(3, 1003), (1003, 3)])
def test_sides_of_unequal_length_are_told_with_both_counts(tmp_path: Path, counts: tuple[int, int]) -> None:
    for language, count in zip(("en", "de"), counts, strict=True):
        write(tmp_path / f"x.{language}", "line\n" * count)
    with pytest.raises(DataError, match=rf"x\.en has {counts[0]:,} lines but .*x\.de has {counts[1]:,}"):
        list(read_pairs(f"{tmp_path}/x", "en", "de"))


def test_a_missing_side_is_told_with_the_names_that_were_tried(tmp_path: Path) -> None:
    write(tmp_path / "x.en", "one\n")
    with pytest.raises(DataError, match=r"x\.de: no such file, nor .*x\.de\.gz"):
        locate(f"{tmp_path}/x", "en", "de")


# One line


@settings(deadline=None)
@given(st.text(st.characters(codec=None)))
def test_one_line_is_one_line_and_stays_what_it_is(text: str) -> None:
    line = one_line(text)
    assert one_line(line) == line
    assert line.splitlines() in ([line], [])
    line.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("  two\t words\r", "two words"),
        ("a\0b\u2028c\u00a0d\u0085e\u3000f\x7fg", "a b c d e f g"),
        ("e\u0301te\u0301", "été"),
        ("lower\u2581eighth\ud800block", "lower eighth block"),
        ("می\u200cخواهم 👩\u200d🚀", "می\u200cخواهم 👩\u200d🚀"),  # joiners are spelling, not space
        (" \n ", ""),
    ],
)
def test_white_space_and_controls_become_plain_spaces(text: str, line: str) -> None:
    assert one_line(text) == line


# Cleaning


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        (0, 0, "empty"),
        (5, 0, "empty"),
        (10, 10, None),
        (10, 11, "too long"),
        (1, 3, None),
        (4, 1, "length ratio"),
        (1, 4, "length ratio"),
    ],
)
def test_a_pair_is_dropped_for_a_reason(source: int, target: int, reason: str | None) -> None:
    data = Data(source="en", target="de", train=("x",), valid="x", max_length=10, max_ratio=3.0)
    assert reason_to_drop(source, target, data) == reason
    assert reason_to_drop(source, target, None) == ("empty" if reason == "empty" else None)


# The tokenizer


@settings(deadline=None)
@given(st.text(st.characters(codec=None)))
def test_decoding_what_was_encoded_gives_the_line_whatever_the_script(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode([text])) == [one_line(text)]


@pytest.mark.parametrize(
    "text", ["ქართული", "👩‍🚀 🇩🇪", "漢字かな", "<s> </s> <pad> <0x41>", " ⁇ ", "▅ \ue000\U0010fffd"]
)
def test_nothing_is_unknown(text: str) -> None:
    [ids] = TOKENIZER.encode([text])
    assert not {PAD, BOS, EOS, UNK} & set(ids)
    assert TOKENIZER.decode([ids]) == [one_line(text)]


@settings(deadline=None)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1)))
def test_whatever_the_model_says_is_one_line(ids: list[int]) -> None:
    [line] = TOKENIZER.decode([ids])
    assert line == one_line(line)


def split_with_dropout(word: str, dropout: float, draw: Callable[[], float], rank: dict[str, int]) -> tuple[str, ...]:
    """BPE-dropout in plain Python: the best merge is made, or left out for good, until none is left."""
    ends, out = list(range(len(word) + 1)), set()
    while True:
        spans = {span for span in zip(ends, ends[1:], ends[2:], strict=False) if word[span[0] : span[2]] in rank} - out
        if not spans:
            return tuple(word[a:b] for a, b in pairwise(ends))
        best = min(spans, key=lambda span: (rank[word[span[0] : span[2]]], span))
        if draw() < dropout:
            out.add(best)
        else:
            ends.remove(best[1])


@pytest.mark.parametrize("dropout", [0.1, 0.5])
@pytest.mark.parametrize("word", ["a", "tree", "sleeps,"])
def test_bpe_dropout_leaves_out_each_merge_with_its_probability(word: str, dropout: float) -> None:
    count = 8000
    sampled = TOKENIZER.resample(TOKENIZER.encode([word]) * count, dropout, 1)
    ours = Counter(tuple(TOKENIZER.pieces(ids)) for ids in sampled)
    draw = random.Random(1).random
    rank = {piece: place for place, piece in enumerate(TOKENIZER.pieces(range(SPECIALS, TOKENIZER.vocab_size)))}
    expected = Counter(split_with_dropout(f"▁{word}", dropout, draw, rank) for _ in range(count))
    assert len(expected) > 1
    for pieces in ours | expected:
        assert abs(ours[pieces] - expected[pieces]) < 5 * math.sqrt(max(expected[pieces], 25)), pieces


def test_bpe_dropout_is_a_function_of_text_and_seed_whatever_came_before() -> None:
    stored = TOKENIZER.encode(LINES[:200])
    first = TOKENIZER.resample(stored, 0.1, 7)
    for other in (8, 0, SEEDS - 1):
        assert TOKENIZER.resample(stored[:50], 0.1, other) != first[:50]
    assert TOKENIZER.resample(stored, 0.1, 7) == first
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(TOKENIZER.resample, stored, 0.1, 7).result() == first
    assert TOKENIZER.resample(stored, 0.0, 7) == stored == TOKENIZER.encode(LINES[:200])


@settings(deadline=None)
@given(st.text(st.characters(codec=None)), st.floats(0, 1), st.integers(0, SEEDS - 1))
def test_bpe_dropout_changes_no_text_and_leaves_none_empty(text: str, dropout: float, seed: int) -> None:
    [ids] = TOKENIZER.resample(TOKENIZER.encode([text]), dropout, seed)
    assert TOKENIZER.decode([ids]) == [one_line(text)]
    assert bool(ids) == bool(one_line(text))
    assert not {PAD, BOS, EOS, UNK} & set(ids)


def test_without_any_merge_a_text_is_its_characters() -> None:
    [ids] = TOKENIZER.resample(TOKENIZER.encode(["the small ♥"]), 1.0, 1)
    assert TOKENIZER.pieces(ids) == [*"▁the▁small▁", "<0xE2>", "<0x99>", "<0xA5>"]


def test_special_tokens_have_no_text() -> None:
    [ids] = TOKENIZER.encode(["the cat"])
    assert TOKENIZER.decode([[BOS, *ids, UNK, EOS, PAD, PAD]]) == ["the cat"]


def test_a_blank_line_has_no_tokens_and_no_tokens_are_a_blank_line() -> None:
    assert TOKENIZER.encode(["", " \t "]) == [[], []]
    assert TOKENIZER.decode([[]]) == [""]


def test_pieces_are_readable() -> None:
    assert TOKENIZER.pieces([BOS, *TOKENIZER.encode(["the ♥"])[0], EOS]) == [
        "<s>", "▁the", "▁", "<0xE2>", "<0x99>", "<0xA5>", "</s>",
    ]  # fmt: skip


def test_the_vocabulary_has_just_the_size_that_was_asked_for() -> None:
    assert TOKENIZER.vocab_size == 320


def _same(tokenizer: Tokenizer, lines: list[str]) -> None:
    tokens, lengths = tokenizer.packed(lines)
    encoded = tokenizer.encode(lines)
    assert lengths.tolist() == [len(ids) for ids in encoded]
    assert tokens.tolist() == [token for ids in encoded for token in ids]
    assert tokens.dtype == np.uint16


@settings(deadline=None)
@given(st.lists(st.text().map(one_line) | st.lists(st.sampled_from([*WORDS, "日本語", "x̣̂"])).map(" ".join)))
def test_packed_ids_are_those_of_the_lines_end_to_end(lines: list[str]) -> None:
    _same(TOKENIZER, lines)


def test_words_may_be_forgotten_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt.text.tokenizer._WORDS", 3)
    tokenizer = Tokenizer(MODEL)
    for start in range(0, 60, 6):
        _same(tokenizer, LINES[start : start + 6])


def test_where_a_token_may_hold_two_words_lines_are_cut_as_a_whole() -> None:
    model = io.BytesIO()
    special = {"pad_id": PAD, "bos_id": BOS, "eos_id": EOS, "unk_id": UNK, "byte_fallback": True, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, model_type="bpe", vocab_size=400, split_by_whitespace=False,
        normalization_rule_name="identity", **special,
    )  # fmt: skip
    tokenizer = Tokenizer(model.getvalue())
    assert any("▁" in piece[1:] for piece in tokenizer.pieces(range(400)))
    _same(tokenizer, LINES[:50])


def test_large_vocabularies_have_room_for_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "vocab_size", 70_000)
    monkeypatch.setattr(Tokenizer, "_by_words", True)
    assert Tokenizer(MODEL).packed(["a"])[0].dtype == np.uint32


def test_training_twice_gives_the_same_bytes() -> None:
    assert train_tokenizer(iter(LINES), 320) == MODEL


def test_a_sample_depends_on_the_seed_and_is_drawn_from_all_of_the_text() -> None:
    models = [train_tokenizer(LINES, 300, sample=40, seed=seed) for seed in (1, 1, 2)]
    assert models[0] == models[1] != models[2]
    with pytest.raises(DataError, match="every line is blank"):
        train_tokenizer(["", *["word"] * 10_000], 300, sample=0)


def test_a_vocabulary_too_large_for_the_text_is_told_with_the_largest_possible() -> None:
    with pytest.raises(DataError, match=r"must be at most \d+ for so little text, found 90000") as caught:
        train_tokenizer(LINES, 90_000)
    largest = int(str(caught.value).split("at most ")[1].split()[0])
    assert Tokenizer(train_tokenizer(LINES, largest)).vocab_size == largest


def test_a_vocabulary_too_small_for_the_characters_is_told_with_the_smallest_possible() -> None:
    many = "".join(map(chr, range(0x4E00, 0x4E80)))
    with pytest.raises(DataError, match=r"must be at least 389 .* found 388; .*character_coverage"):
        train_tokenizer([many], 388)
    assert Tokenizer(train_tokenizer([many], 389)).vocab_size == 389


def test_text_without_a_word_teaches_nothing() -> None:
    with pytest.raises(DataError, match="every line is blank"):
        train_tokenizer(["", " ", "\0"], 300)


def test_lines_of_any_length_and_dirt_can_be_learned_from() -> None:
    assert train_tokenizer(["a b\0c\u2028d " * 99_999, "\ud800\u2585\u2581 x"], 268)


@pytest.mark.parametrize("content", [b"", b"hello", MODEL[: len(MODEL) // 2], MODEL[:-1]])
def test_a_tokenizer_that_is_not_whole_is_told(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "tokenizer.model", content)
    with pytest.raises(ModelError, match=r"tokenizer\.model: not a tokenizer of nmt, or cut short"):
        Tokenizer.load(path)
    assert capfd.readouterr().err == ""


def test_a_missing_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.model: cannot be read: No such file"):
        Tokenizers.load(tmp_path)


def test_tokenizers_are_loaded_as_they_were_saved(tmp_path: Path) -> None:
    other = Tokenizer(train_tokenizer(LINES, 300))
    for name, tokenizers in (
        ("one", Tokenizers(TOKENIZER, TOKENIZER)),
        ("two", Tokenizers(TOKENIZER, other)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        tokenizers.save(folder)
        loaded = Tokenizers.load(folder)
        assert loaded.shared == tokenizers.shared == (name == "one")
        assert (loaded.source.model, loaded.target.model) == (MODEL, tokenizers.target.model)
