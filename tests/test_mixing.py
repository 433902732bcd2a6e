"""Corpora are mixed as their weights say, in an order that is a function of (seed, epoch) and takes little memory."""

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt import recipe as recipes
from nmt.data import Manifest, Shards, check_prepared, prepare
from nmt.data.mixing import Order, Part, parts_of, told
from nmt.data.permutation import Permutation
from nmt.data.shards import CorpusRecord, ShardRecord, SplitRecord
from nmt.errors import CheckpointError, DataError, RecipeError
from nmt.files import read_json, write_json
from nmt.recipe import Recipe
from nmt.text import Tokenizers
from nmt.training import train

RECIPE = """
run: run
data:
  source: en
  target: de
  train: [large, {path: small}]
  valid: small
tokenizer: {vocab_size: 300}
model: {layers: 1, d_model: 8, heads: 1, d_ffn: 8}
train: {steps: 4, batch_tokens: 100, valid_bleu: 0, checkpoint_every: 2, keep: 9}
"""
SEEDS = st.integers(0, 2**32 - 1)
PARTS = st.lists(st.builds(Part, st.integers(1, 40), st.integers(1, 90)), min_size=1, max_size=5)


def recipe(*changes: str) -> Recipe:
    return recipes.loads(RECIPE, overrides=changes)


def split(*kept: int) -> SplitRecord:
    """What is prepared of corpora of so many pairs, of each of which two were dropped besides."""
    corpora = tuple(CorpusRecord(name=f"c{n}", pairs=pairs + 2, dropped={"empty": 2}) for n, pairs in enumerate(kept))
    shard = ShardRecord(name="train-00000", pairs=sum(kept), source_tokens=0, target_tokens=0)
    return SplitRecord(corpora=corpora, shards=(shard,))


def weighed(*weights: float) -> Recipe:
    return recipe(f"data.train=[{', '.join(f'{{path: c{n}, weight: {w}}}' for n, w in enumerate(weights))}]")


# Permutations


@pytest.mark.parametrize("table", [0, 10**6])
@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 3000), seed=SEEDS)
def test_a_permutation_has_every_number_once_shuffled_or_enciphered(table: int, count: int, seed: int) -> None:
    order = Permutation(count, [seed, 1], table)
    everything = order(np.arange(count))
    assert sorted(everything.tolist()) == list(range(count))
    some = np.arange(count)[::-7]
    assert order(some).tolist() == everything[some].tolist()
    assert count < 20 or everything.tolist() != Permutation(count, [seed, 2], table)(np.arange(count)).tolist()


def test_an_enciphered_order_is_as_good_as_shuffled() -> None:
    count = 100_000
    order = Permutation(count, [7], 0)(np.arange(count))
    for lag in (1, 2, 16):  # neighbours have nothing to do with one another
        assert abs(np.corrcoef(order[lag:], order[:-lag])[0, 1]) < 0.02
        steps = np.bincount((order[lag:] - order[:-lag]) % count * 20 // count)
        assert abs(steps / (count / 20) - 1).max() < 0.1
    for begin in range(0, count, 10_000):  # and any stretch is from everywhere
        there = np.bincount(order[begin : begin + 10_000] * 10 // count, minlength=10)
        assert abs(there / 1000 - 1).max() < 0.2


def test_the_memory_of_an_order_does_not_grow_with_the_pairs() -> None:
    tracemalloc.start()
    order = Order(100_000_000, 1)
    mixed = Order(0, 1, [Part(90_000_000, 50_000_000), Part(10_000_000, 50_000_000)])
    for one in (order, mixed):
        assert len(set(one.pairs(3, 70_000_000, 70_001_000).tolist())) == 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000_000


# Epochs


def test_without_weights_an_epoch_is_every_pair_once_in_the_order_it_always_had() -> None:
    for seed, epoch in ((1, 0), (1, 3), (9, 1)):
        known = np.random.default_rng([seed, epoch]).permutation(5000)
        assert Order(5000, seed).pairs(epoch, 0, 5000).tolist() == known.tolist()


@settings(max_examples=40, deadline=None)
@given(parts=PARTS, seed=SEEDS)
def test_an_epoch_has_the_share_of_each_corpus_and_none_of_its_pairs_twice_before_all_have_come(
    parts: list[Part], seed: int
) -> None:
    order = Order(sum(part.pairs for part in parts), seed, parts)
    epochs = [order.pairs(epoch, 0, len(order)) for epoch in range(4)]
    begin = 0
    for part in parts:
        own = [found[(found >= begin) & (found < begin + part.pairs)] for found in epochs]
        assert {len(found) for found in own} == {part.drawn}
        row = np.concatenate(own)
        for at in range(0, len(row), part.pairs):
            assert len(set(row[at : at + part.pairs].tolist())) == len(row[at : at + part.pairs])
        begin += part.pairs
    assert sum(map(len, epochs)) == 4 * sum(part.drawn for part in parts)


@settings(max_examples=30, deadline=None)
@given(parts=PARTS, seed=SEEDS, block=st.integers(6, 40), data=st.data())
def test_any_stretch_of_any_epoch_can_be_asked_for_without_the_rest(
    parts: list[Part], seed: int, block: int, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nmt.data.mixing.BLOCK", block)
        whole = Order(0, seed, parts)
        begin, epoch = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 5))
        end = data.draw(st.integers(begin + 1, len(whole) + 5))
        everything = whole.pairs(epoch, 0, len(whole))
        assert len(everything) == len(whole)
        assert Order(0, seed, parts).pairs(epoch, begin, end).tolist() == everything[begin:end].tolist()


def test_corpora_are_mixed_from_beginning_to_end_and_otherwise_in_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt.data.mixing.BLOCK", 100)
    order = Order(1100, 1, [Part(1000, 600), Part(100, 300)])
    first, second = (order.pairs(epoch, 0, 900) for epoch in (0, 1))
    for begin in range(0, 900, 100):
        assert Counter((first[begin : begin + 100] >= 1000).tolist())[True] in range(31, 36)
    assert first.tolist() != second.tolist()
    assert first.tolist() != Order(1100, 2, [Part(1000, 600), Part(100, 300)]).pairs(0, 0, 900).tolist()


# Shares


def test_weights_are_shares_of_the_pairs() -> None:
    parts = parts_of(weighed(3, 1).data, split(100, 700))
    assert parts == (Part(100, 600), Part(700, 200))
    assert parts_of(weighed(0.75, 0.25).data, split(100, 700)) == parts
    assert told(weighed(3, 1).data, split(100, 700)) == (
        "an epoch is 800 pairs: 600 from c0 (6 times its 100), 200 from c1 (0.29 times its 700)"
    )


def test_temperature_makes_shares_that_of_the_sizes_to_the_power_of_its_inverse() -> None:
    data = recipe("data.temperature=5").data
    large, small = parts_of(data, split(100_000, 3_125))
    assert (large.pairs, small.pairs) == (100_000, 3_125)
    assert large.drawn / small.drawn == pytest.approx(2, 0.001)  # 32 ** (1 / 5)
    assert large.drawn + small.drawn == pytest.approx(103_125, abs=2)


def test_no_corpus_is_forgotten_for_its_small_weight_and_one_of_which_nothing_is_left_takes_no_share() -> None:
    assert parts_of(weighed(1000, 0.001).data, split(50, 50))[1] == Part(50, 1)
    assert parts_of(weighed(1, 1, 2).data, split(60, 0, 40)) == (Part(60, 33), Part(0, 0), Part(40, 67))
    order = Order(100, 1, parts_of(weighed(1, 1, 2).data, split(60, 0, 40)))
    assert Counter((order.pairs(0, 0, 100) >= 60).tolist()) == {True: 67, False: 33}


def test_without_weights_and_temperature_nothing_is_mixed() -> None:
    assert parts_of(recipe().data, split(60, 40)) == ()
    assert told(recipe().data, split(60, 40)) is None


def test_a_manifest_that_does_not_tell_where_corpora_lie_is_told() -> None:
    with pytest.raises(DataError, match=r"data\.train: what is prepared does not tell .*: run `nmt prepare` again"):
        parts_of(weighed(1, 1).data, split(60, 30, 10))


@pytest.mark.parametrize(
    ("change", "message"),
    {
        "data.train=[{path: a, weight: 2}, b]": "data.train: must have a weight for each corpus or for none, found",
        "data.train=[{path: a, weight: 0}]": "data.train[0].weight: must be above 0, found 0",
        "data.temperature=0.5": "data.temperature: must be at least 1, found 0.5",
        "data.valid={path: a, weight: 2}": "data.valid.weight: must be left out: it is for what is trained on, found 2",
    }.items(),
)
def test_a_mix_that_cannot_be_is_told(change: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(change)
    assert message in str(error.value)


def test_temperature_and_weights_do_not_go_together() -> None:
    with pytest.raises(RecipeError, match=r"data\.temperature: must be left out, for the corpora .* have weights"):
        recipe("data.temperature=2", "data.train=[{path: a, weight: 2}]")


# What is prepared


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Two corpora of which all sorts of pairs are dropped: twice, blank, too long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nmt.data.encoding.BLOCK_PAIRS", 7)
    large = [(f"large {n}", f"gross {n}") for n in range(50)]
    small = [(f"small {n}", f"klein {n}") for n in range(9)]
    for name, pairs in {"large": [*large, large[3], ("x " * 400, "x " * 400)], "small": [*large[5:8], *small]}.items():
        for side, language in enumerate(("en", "de")):
            Path(f"{name}.{language}").write_text("".join(pair[side] + "\n" for pair in [*pairs, ("", "")]))
    found = recipe()
    prepare(found, workers=1, report=lambda line: None)
    return found


def test_what_is_drawn_of_a_corpus_is_of_that_corpus(prepared: Recipe) -> None:
    record, shards = Manifest.load("run/data").splits["train"], Shards.open("run/data", "train")
    mixed = recipe("data.train=[{path: large, weight: 1}, {path: small, weight: 2}]")
    parts = parts_of(mixed.data, record)
    assert [part.pairs for part in parts] == [50, 9]
    found = Order(len(shards), 1, parts).pairs(0, 0, 59)
    decode = Tokenizers.load("run/data").source.decode
    texts = decode([shards.pair(int(pair))[0].tolist() for pair in found])
    assert Counter(text.split()[0] for text in texts) == {"large": 20, "small": 39}
    assert len({text for text in texts if text.startswith("small")}) == 9


MIXES = ["data.train=[{path: large, weight: 1}, {path: small, weight: 2}]", "data.temperature=3"]


@pytest.mark.parametrize("mix", MIXES)
def test_another_mix_is_not_prepared_again_but_it_is_another_training(prepared: Recipe, mix: str) -> None:
    lines: list[str] = []
    prepare(recipe(mix), workers=1, report=lines.append)
    assert lines == ["run/data: prepared already, and nothing has changed since"]
    check_prepared(Path("run/data"), recipe(mix))
    train(recipe(mix, "train.steps=2"), "cpu")
    key = mix.split("=")[0]
    with pytest.raises(CheckpointError, match=f"made by another recipe: {key} was"):
        train(recipe(), "cpu")


def test_a_mixed_training_stopped_and_resumed_is_the_undisturbed_one(prepared: Recipe) -> None:
    whole, again = (recipe(MIXES[0], f"run={run}") for run in ("whole", "again"))
    for one in (whole, again):
        prepare(one, workers=1, report=lambda line: None)
    train(whole, "cpu")
    train(recipe(MIXES[0], "run=again", "train.steps=2"), "cpu")
    train(again, "cpu")
    states = [Path(run, "checkpoints/step-00000004") for run in ("whole", "again")]
    assert len({(state / "model.safetensors").read_bytes() for state in states}) == 1
    assert len({str(read_json(state / "state.json")["cursor"]) for state in states}) == 1


@pytest.mark.parametrize("shared", ["true", "false"])
def test_what_was_prepared_before_these_keys_existed_is_not_prepared_again(prepared: Recipe, shared: str) -> None:
    apart = (f"tokenizer.shared={shared}", "model.embeddings=separate")
    prepare(recipe(*apart), workers=1, report=lambda line: None)
    manifest = read_json("run/data/manifest.json")
    manifest["choices"]["data"]["train"] = ["large", "small"]
    for key in ("reuse", "symbols"):
        del manifest["choices"]["tokenizer"][key]
    write_json("run/data/manifest.json", manifest)
    check_prepared(Path("run/data"), recipe(*apart))
