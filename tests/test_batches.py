"""Updates deal out every pair once an epoch, within their budget, as a function of (seed, epoch) alone."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt import recipe as recipes
from nmt.data.batches import Cursor, Sampler, pack, pack_sources, parts, split
from nmt.data.mixing import Order
from nmt.data.segmentation import Segmented, Segmenter
from nmt.ids import BOS, EOS
from nmt.text import Tokenizer, Tokenizers, train_tokenizer


class Pairs:
    """Stands for the shards: pairs of made-up ids with given lengths."""

    def __init__(self, source: list[int], target: list[int]) -> None:
        self.lengths = np.array(source, np.int32), np.array(target, np.int32)

    def __len__(self) -> int:
        return len(self.lengths[0])

    def lengths_of(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.lengths[0][pairs], self.lengths[1][pairs]

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        source, target = (int(side[index]) for side in self.lengths)
        return np.arange(10, 10 + source, dtype=np.uint16), np.arange(50, 50 + target, dtype=np.uint16)


def some_pairs(count: int = 500) -> Pairs:
    draw = np.random.default_rng(3)
    return Pairs(draw.integers(1, 40, count).tolist(), draw.integers(1, 40, count).tolist())


def dealer(pairs: Pairs, tokens: int, seed: int) -> Sampler:
    return Sampler(pairs, tokens, Order(len(pairs), seed))  # type: ignore[arg-type]


def updates(pairs: Pairs, tokens: int, seed: int, epochs: int) -> list[np.ndarray]:
    """The pairs of each update until `epochs` epochs have been dealt out."""
    sampler, cursor, dealt = dealer(pairs, tokens, seed), Cursor(), []
    while cursor.epoch < epochs:
        found, cursor = sampler.update(cursor)
        dealt.append(found)
    return dealt


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60),
    tokens=st.integers(5, 200),
    seed=st.integers(0, 5),
)
def test_an_epoch_has_every_pair_once_whatever_the_budget(
    lengths: list[tuple[int, int]], tokens: int, seed: int
) -> None:
    pairs = Pairs(*map(list, zip(*lengths, strict=True)))
    dealt = np.concatenate(updates(pairs, tokens, seed, 2))
    count = len(lengths)
    for epoch in (dealt[:count], dealt[count : 2 * count]):
        assert sorted(epoch) == list(range(count))


@pytest.mark.parametrize("tokens", [100, 1000])
def test_an_update_is_as_full_as_its_budget_allows_on_either_side(tokens: int) -> None:
    pairs = some_pairs()
    source, target = pairs.lengths[0] + 1, pairs.lengths[1] + 1
    dealt = updates(pairs, tokens, 1, 3)
    for now, following in pairwise(dealt):
        assert max(source[now].sum(), target[now].sum()) <= tokens
        with_next = np.append(now, following[0])
        assert max(source[with_next].sum(), target[with_next].sum()) > tokens


def test_the_last_update_of_an_epoch_is_filled_from_the_next() -> None:
    sizes = [len(found) for found in updates(some_pairs(50), 300, 1, 8)]
    assert min(sizes) > 5


def test_a_pair_larger_than_the_budget_is_an_update_of_its_own() -> None:
    pairs = Pairs([3, 90, 3], [3, 3, 3])
    assert Counter(len(found) for found in updates(pairs, 20, 1, 4)[:8])[1] >= 2
    assert sorted(np.concatenate(updates(pairs, 20, 1, 1))[:3]) == [0, 1, 2]


def test_order_differs_by_epoch_and_seed_and_is_the_same_again() -> None:
    def order(seed: int) -> list[int]:
        return np.concatenate(updates(some_pairs(), 400, seed, 2)).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1)[:500] != order(1)[500:1000]


def test_any_cursor_gives_the_updates_that_follow_it() -> None:
    pairs = some_pairs()
    sampler, cursor = dealer(pairs, 300, 7), Cursor()
    places, dealt = [], []
    for _ in range(60):
        places.append(cursor)
        found, cursor = sampler.update(cursor)
        dealt.append(found.tolist())
    for place, expected in list(zip(places, dealt, strict=True))[::-7]:
        assert dealer(pairs, 300, 7).update(place)[0].tolist() == expected


@pytest.mark.parametrize("chunk_tokens", [1, 50, 300, 10**6])
def test_chunks_hold_the_pairs_of_their_update_within_their_size(chunk_tokens: int) -> None:
    pairs = some_pairs()
    chosen = np.arange(0, 500, 3)
    chunks = split(chosen, pairs.lengths, chunk_tokens)  # type: ignore[arg-type]
    assert sorted(np.concatenate(chunks)) == chosen.tolist()
    for chunk in chunks:
        tokens = max((side[chunk] + 1).sum() for side in pairs.lengths)
        assert tokens <= chunk_tokens or len(chunk) == 1


def test_chunks_are_of_about_equally_many_tokens() -> None:
    pairs = some_pairs()
    chosen = np.arange(0, 500, 3)
    chunks = split(chosen, pairs.lengths, 300)  # type: ignore[arg-type]
    tokens = [max((side[chunk] + 1).sum() for side in pairs.lengths) for chunk in chunks]
    assert max(tokens) < 1.2 * np.mean(tokens)


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_chunks_can_be_shared_out_evenly(processes: int) -> None:
    pairs = some_pairs()
    chosen = np.arange(0, 500, 3)
    chunks = split(chosen, pairs.lengths, 300, processes)  # type: ignore[arg-type]
    assert len(chunks) % processes == 0
    assert sorted(np.concatenate(chunks)) == chosen.tolist()
    assert all(max((side[chunk] + 1).sum() for side in pairs.lengths) <= 300 for chunk in chunks)


@pytest.mark.parametrize("count", [2, 3, 7, 100])
def test_the_parts_of_a_chunk_are_its_sentences_in_order(count: int) -> None:
    chunk = pack(Pairs([2, 1, 3, 5, 2], [1, 3, 2, 2, 9]), range(5))  # type: ignore[arg-type]
    found = parts(chunk, count)
    assert 1 < len(found) <= min(count, 5)
    for ours, whole in zip(zip(*found, strict=True), chunk, strict=True):
        assert np.concatenate(ours).tolist() == whole.tolist()
    for part in found:
        assert len(part.source) == part.source_lengths.sum()
        assert len(part.labels) == len(part.decoder_input) == part.target_lengths.sum()


@pytest.mark.parametrize("multiple", [8, 64])
def test_a_filler_fills_both_streams_up_and_has_no_labels(multiple: int) -> None:
    chunk = pack(some_pairs(), range(3))
    full = chunk.filled(multiple)
    for ids, lengths, before in (
        (full.source, full.source_lengths, chunk.source),
        (full.decoder_input, full.target_lengths, chunk.decoder_input),
    ):
        assert len(ids) == lengths.sum() == -(-(len(before) + 1) // multiple) * multiple
        assert (ids[: len(before)] == before).all()
        assert lengths[-1] >= 1  # a sentence of its own, that others do not see
    assert full.labels is chunk.labels
    assert full.target_tokens == chunk.target_tokens


def test_packed_streams_hold_each_sentence_with_its_ends() -> None:
    chunk = pack(Pairs([2, 1], [1, 3]), [0, 1])  # type: ignore[arg-type]
    assert chunk.source.tolist() == [10, 11, EOS, 10, EOS]
    assert chunk.decoder_input.tolist() == [BOS, 50, BOS, 50, 51, 52]
    assert chunk.labels.tolist() == [50, EOS, 50, 51, 52, EOS]
    assert (chunk.source_lengths.tolist(), chunk.target_lengths.tolist()) == ([3, 2], [2, 4])
    stream, lengths = pack_sources([[10, 11], [10]])
    assert (stream.tolist(), lengths.tolist()) == (chunk.source.tolist(), [3, 2])


# BPE-dropout

TEXT = [f"{a} {b}, {c}." for a in ("the", "this", "that") for b in ("man", "woman", "child") for c in ("sings", "runs")]
TOKENIZER = Tokenizer(train_tokenizer(TEXT, 300))
RECIPE = """
run: run
data: {source: en, target: de, train: train, valid: valid}
tokenizer: {vocab_size: 300}
"""


class Stored:
    """Stands for the shards: each text translated into itself backwards."""

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        source, target = TOKENIZER.encode([TEXT[index], TEXT[index][::-1]])
        return np.array(source, np.uint16), np.array(target, np.uint16)


def segmented(step: int, pairs: list[int], *changes: str) -> Segmented:
    recipe = recipes.loads(RECIPE, overrides=changes)
    segmenter = Segmenter(Stored(), Tokenizers(TOKENIZER, TOKENIZER), recipe)  # type: ignore[arg-type]
    return segmenter.update(step, np.array(pairs))


def as_lists(found: Segmented) -> list[tuple[list[int], list[int]]]:
    return [(source.tolist(), target.tolist()) for source, target in found.pairs]


def test_without_dropout_pairs_are_as_they_are_stored() -> None:
    assert as_lists(segmented(1, [3, 0, 3])) == [tuple(side.tolist() for side in Stored().pair(i)) for i in (3, 0, 3)]


def test_with_dropout_both_sides_say_the_same_in_more_tokens() -> None:
    everything = list(range(len(TEXT)))
    plain, anew = segmented(1, everything), segmented(1, everything, "train.bpe_dropout=0.5")
    for i, (source, target) in enumerate(anew.pairs):
        assert TOKENIZER.decode([source, target]) == [TEXT[i], TEXT[i][::-1]]
    for stored, sampled in zip(plain.lengths, anew.lengths, strict=True):
        assert sampled.sum() > stored.sum()
    assert [lengths.tolist() for lengths in anew.lengths] == [[len(s[i]) for s in anew.pairs] for i in (0, 1)]


def test_dropout_is_a_function_of_seed_and_step_and_differs_by_them_and_within_an_update() -> None:
    change, pairs = "train.bpe_dropout=0.5", [0, 1, 2, 0, 0, 0]
    first = as_lists(segmented(1, pairs, change))
    assert as_lists(segmented(2, pairs, change)) != first
    assert as_lists(segmented(1, pairs, change, "seed=2")) != first
    assert as_lists(segmented(1, pairs, change)) == first
    assert len({str(pair) for pair in first[3:]}) > 1


def test_a_pair_that_dropout_would_make_too_long_stays_as_it_is_stored() -> None:
    longest = max(len(side) for i in range(len(TEXT)) for side in Stored().pair(i))
    pairs = list(range(len(TEXT))) * 5
    found = segmented(1, pairs, "train.bpe_dropout=0.3", f"data.max_length={longest}")
    assert max(lengths.max() for lengths in found.lengths) <= longest
    stored = [[side.tolist() for side in Stored().pair(i)] for i in pairs]
    kept = sum(list(pair) == old for pair, old in zip(as_lists(found), stored, strict=True))
    assert 0 < kept < len(pairs)
