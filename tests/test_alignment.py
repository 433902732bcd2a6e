"""Word alignments are those that the model must have learned, and finding them changes no translation."""

import random
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from commands import Shell
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from nmt.data.batches import pack
from nmt.data.segmentation import Segmented
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.recipe import Model
from nmt.text import Tokenizer, Tokenizers, one_line, train_tokenizer
from nmt.translation import align, pharaoh
from nmt.translation.alignment import words

CPU = torch.device("cpu")
LETTERS = "abcdefgh"
LINES = [
    "Save the file",
    "",
    "Click the button.",
    " \t ",
    "Save 日本語 as ||| it",
    "the file to open in this window now",
]


def sentence(draw: random.Random) -> list[str]:
    """Some words of one or two letters each, no letter twice."""
    letters = draw.sample(LETTERS, draw.randint(3, 6))
    found: list[str] = []
    while letters:
        found.append("".join(letters.pop() for _ in range(min(len(letters), draw.randint(1, 2)))))
    return found


def both(line: list[str]) -> tuple[str, str]:
    """A line and its translation, which has the same words in reverse order."""
    return " ".join(line), " ".join(line[::-1])


@cache
def reverser() -> tuple[Transformer, Tokenizers]:
    """A model that has learned to reverse, and its vocabulary of single letters."""
    draw = random.Random(1)
    tokenizer = Tokenizer(train_tokenizer([" ".join(sentence(draw)) for _ in range(400)], 261 + 2 * len(LETTERS)))
    torch.manual_seed(1)
    config = Model(layers=1, d_model=64, heads=2, d_ffn=128, dropout=0.0, norm="pre")
    model = Transformer(config, tokenizer.vocab_size, tokenizer.vocab_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(300):
        ids = [tuple(map(np.array, tokenizer.encode(both(sentence(draw))))) for _ in range(32)]
        chunk = pack(Segmented(ids), range(len(ids)))  # type: ignore[arg-type]
        source, fed, labels = (torch.from_numpy(stream) for stream in (chunk.source, chunk.decoder_input, chunk.labels))
        states = model(source, Cut.of(chunk.source_lengths), fed, Cut.of(chunk.target_lengths))
        cross_entropy(model.logits(states), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), Tokenizers(tokenizer, tokenizer)


def test_a_model_that_has_learned_to_reverse_aligns_the_first_word_with_the_last() -> None:
    draw = random.Random(2)
    lines = [sentence(draw) for _ in range(100)]
    found = align(*reverser(), [both(line) for line in lines], CPU)
    right = [{(i, len(line) - 1 - i) for i in range(len(line))} for line in lines]
    common = sum(len(ours & set(theirs)) for ours, theirs in zip(right, found, strict=True))
    assert 2 * common / sum(map(len, [*right, *found])) > 0.9


def test_neither_the_batch_nor_the_neighbours_change_an_alignment() -> None:
    draw = random.Random(3)
    pairs = [both(sentence(draw)) for _ in range(9)]
    pairs[2:2] = [("", "a b"), ("a b", " ")]
    alone = [align(*reverser(), [pair], CPU)[0] for pair in pairs]
    assert align(*reverser(), pairs, CPU) == alone
    assert align(*reverser(), pairs, CPU, batch_size=2) == alone
    assert alone[2] == alone[3] == ()
    assert align(*reverser(), [], CPU) == []


@pytest.mark.parametrize(("layers", "chosen"), [(1, 0), (2, 0), (3, 1), (4, 2)])
def test_the_layer_before_the_last_aligns(layers: int, chosen: int) -> None:
    tokenizers = reverser()[1]
    torch.manual_seed(layers)
    config = Model(layers=layers, d_model=32, heads=2, d_ffn=32)
    model = Transformer(config, tokenizers.source.vocab_size, tokenizers.target.vocab_size).eval()
    draw = random.Random(4)
    pairs = [both(sentence(draw)) for _ in range(20)]
    by_layer = [align(model, tokenizers, pairs, CPU, layer=layer) for layer in range(layers)]
    assert align(model, tokenizers, pairs, CPU) == by_layer[chosen]
    assert all(found != by_layer[chosen] for layer, found in enumerate(by_layer) if layer != chosen)


def test_links_are_sorted_and_written_as_pharaoh_does() -> None:
    [links] = align(*reverser(), [("ab c d", "d c ab")], CPU)
    assert list(links) == sorted(set(links))
    assert pharaoh(((0, 0), (1, 12))) == "0-0 1-12"
    assert pharaoh(()) == ""


@given(st.text(alphabet="ab 日▁\t\u00a0\x00é<", max_size=12))
def test_every_word_of_a_line_gets_pieces_and_every_piece_is_of_a_word(line: str) -> None:
    tokenizer = reverser()[1].source
    pieces = tokenizer.pieces(tokenizer.encode([line])[0])
    assert sorted(set(words(pieces).tolist())) == list(range(len(one_line(line).split())))


def told(trained: Shell, *options: Any) -> list[str]:
    text = "".join(f"{line}\n" for line in LINES).encode()
    return trained("translate", "run/model", "--beam", 3, *options, stdin=text).lines


def test_alignments_are_the_last_field_and_change_no_translation(trained: Shell) -> None:
    plain, aligned = told(trained), told(trained, "--alignments")
    assert [line.rpartition(" ||| ")[0] for line in aligned] == plain
    assert aligned[1] == aligned[3] == " ||| "
    for line, source in zip(aligned, LINES, strict=True):
        text, _, links = line.rpartition(" ||| ")
        assert re.fullmatch(r"(\d+-\d+( \d+-\d+)*)?", links)
        pairs = [tuple(map(int, link.split("-"))) for link in links.split()]
        assert {target for _, target in pairs} == set(range(len(text.split())))  # every word has a link
        assert all(place < len(source.split()) for place, _ in pairs)


def test_alignments_are_a_fourth_field_of_the_n_best(trained: Shell) -> None:
    plain, aligned = told(trained, "--n-best", 2), told(trained, "--n-best", 2, "--alignments")
    assert [line.rpartition(" ||| ")[0] for line in aligned] == plain
    assert aligned == told(trained, "--n-best", 2, "--alignments", "--batch-size", 1)
    assert aligned[2] == "1 |||  ||| 0.0000 ||| "
