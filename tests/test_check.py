"""Laws of `nmt check`: each fault is found where it lies, figures are right, and what is said is said everywhere."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Server, Shell

from nmt import recipe as recipes
from nmt.data import prepare
from nmt.data.batches import pack, split
from nmt.data.segmentation import Segmented
from nmt.diagnosis import Diagnosis, advise, diagnose
from nmt.diagnosis.counting import Drawn, LengthCounter, words_of
from nmt.diagnosis.figures import CorpusFigures, Finding, Shift
from nmt.diagnosis.suspicions import Alignment, Balance
from nmt.errors import DataError
from nmt.model.transformer import Transformer
from nmt.recipe import Recipe
from nmt.report.diagnosis import Report, bars, share
from nmt.report.diagnosis_page import page
from nmt.text import Tokenizers, locate
from nmt.training import estimate as estimates
from nmt.training.checkpoint import Origin, State, snapshot
from nmt.training.estimate import estimate

SAMPLE = Path(__file__).parent.parent / "data" / "libreoffice"
WORDS = {
    "the": "der", "dog": "Hund", "house": "Haus", "tree": "Baum", "runs": "rennt", "sleeps": "schläft",
    "small": "kleine", "green": "grüne", "river": "Fluss", "stone": "Stein", "window": "Fenster", "table": "Tisch",
    "opens": "öffnet", "children": "Kinder", "music": "Musik",
}  # fmt: skip
ENGLISH, GERMAN = list(WORDS), list(WORDS.values())
Pairs = list[tuple[str, str]]


def clean(count: int, seed: int = 1) -> Pairs:
    """Made-up pairs of all lengths, a word for a word, none of them twice."""
    draw, made = random.Random(seed), dict[str, str]()
    while len(made) < count:
        words = [draw.randrange(len(ENGLISH)) for _ in range(draw.randint(3, 16))]
        made[" ".join(ENGLISH[word] for word in words) + "."] = " ".join(GERMAN[word] for word in words) + "."
    return list(made.items())


def write(prefix: Path, pairs: Pairs) -> None:
    for language, lines in zip(("en", "de"), zip(*pairs, strict=True), strict=True):
        Path(f"{prefix}.{language}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def recipe(folder: Path, *changes: str, **corpora: Pairs) -> Recipe:
    for name, pairs in corpora.items():
        write(folder / name, pairs)
    text = f"""
run: {folder}/run
data:
  {{source: en, target: de, train: {folder}/train, valid: {folder}/valid, test: {{held: {folder}/test}},
   max_length: 400}}
tokenizer: {{vocab_size: 330}}
model: {{layers: 2, d_model: 16, heads: 2, d_ffn: 32}}
train: {{batch_tokens: 300}}
"""
    return recipes.loads(text, overrides=changes)


def findings(one: CorpusFigures) -> dict[str, Finding]:
    return {finding.kind: finding for finding in one.findings}


GOOD = clean(2600)
HELD = {"valid": GOOD[2000:2300], "test": GOOD[2300:]}

# What is put in the place of a line, and what becomes of it.
FAULTS = {
    11: ("", "Ein Hund.", "empty", "dropped"),
    21: ("the dog\x07 runs.", "der Hund rennt.", "control characters", "dropped"),
    31: ("<b>the dog</b> runs.", "der Hund rennt.", "tags", "dropped"),
    41: ("the dog &amp; tree.", "der Hund &amp; Baum.", "entities", "repaired"),
    51: ("the dog house tree green.", "the dog house tree green.", "identical sides", "dropped"),
    61: ("1 - 2 - 3 - 4 - 5.", "1 - 2 - 3 - 4 - 6.", "few letters", "dropped"),
    71: ("the dog runs.", "Собака бежит.", "wrong script", "dropped"),
    81: ("the tree 12.", "der Baum 21.", "numbers", "kept"),
    91: (" ".join(ENGLISH * 40), " ".join(GERMAN * 40), "too long", "dropped"),
    101: ("dog", " ".join(GERMAN * 2), "length ratio", "dropped"),
    111: (*GOOD[4], "duplicate", "dropped"),
    121: (GOOD[5][0].upper(), GOOD[5][1].upper(), "near duplicate", "kept"),
    131: (*HELD["valid"][2], "overlap with data.valid", "kept"),
    141: (" ".join(ENGLISH), " ".join(GERMAN * 4), "unlikely lengths", "kept"),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    train = GOOD[:2000]
    for number, (source, target, *_) in FAULTS.items():
        train[number - 1] = source, target
    return diagnose(recipe(tmp_path_factory.mktemp("broken"), train=train, **HELD))


@pytest.mark.parametrize("number", FAULTS)
def test_every_fault_is_found_on_its_line(broken: Diagnosis, number: int) -> None:
    source, _, kind, fate = FAULTS[number]
    found = findings(broken.train[0])[kind]
    assert (found.fate, found.pairs) == (fate, 1)
    [example] = found.examples
    assert (example.number, example.source[:99]) == (number, source.replace("\x07", "\\x07")[:99])


def test_clean_text_is_not_suspected(broken: Diagnosis) -> None:
    kinds = {kind for _, _, kind, _ in FAULTS.values()}
    assert findings(broken.train[0]).keys() == kinds
    assert broken.train[0].kept == 2000 - sum(fate == "dropped" for *_, fate in FAULTS.values())
    assert [one.findings for one in broken.held_out] == [(), ()]
    assert broken.train[0].shifts == ()


def test_faults_of_steps_that_are_off_are_found_too_and_kept(tmp_path: Path) -> None:
    train = GOOD[:2000]
    for number, (source, target, *_) in FAULTS.items():
        train[number - 1] = source, target
    off = "{control_characters: false, entities: false, tags: false, identical: false, min_letters: 0.0, script: false"
    asked = recipe(tmp_path, f"data.clean={off}, numbers: true, duplicates: false}}", train=train, **HELD)
    found = findings(diagnose(asked).train[0])
    turned = {"empty": "dropped", "too long": "dropped", "length ratio": "dropped", "numbers": "dropped"}
    for number, (_, _, kind, _) in FAULTS.items():
        if kind != "few letters":  # its numbers differ too, and that step comes first now
            assert found[kind].fate == turned.get(kind, "kept")
            assert number in [example.number for example in found[kind].examples]


def test_a_held_out_corpus_is_searched_for_what_would_be_dropped_from_training_text(tmp_path: Path) -> None:
    valid = HELD["valid"][:]
    for number in (11, 21, 31, 41, 51, 91, 101):
        valid[number - 1] = FAULTS[number][:2]
    asked = recipe(tmp_path, train=GOOD[:2000], valid=valid, test=HELD["test"])
    found = diagnose(asked)
    one = findings(found.held_out[0])
    for number in (11, 21, 31, 41, 51, 91, 101):
        kind = FAULTS[number][2]
        assert [example.number for example in one[kind].examples] == [number]
        assert one[kind].fate == ("dropped" if kind == "empty" else "kept")
    said = {(advice.level, advice.key): advice.what for advice in advise(found, asked)}
    assert ("warning", "data.valid") in said
    assert ("warning", "data.test.held") not in said


@pytest.mark.parametrize(("missing", "by"), [(0, 1), (1, -1)])
def test_shifted_lines_are_found_where_they_begin_and_end(tmp_path: Path, missing: int, by: int) -> None:
    sides = [list(side) for side in zip(*GOOD[:2000], strict=True)]
    line = sides[missing].pop(500)
    sides[missing].insert(1499, line)
    train = list(zip(*sides, strict=True))
    asked = recipe(tmp_path, train=train, **HELD)
    found = diagnose(asked)
    assert found.train[0].shifts == (Shift(501, 1500, by),)
    said = [advice.what for advice in advise(found, asked) if "misaligned" in advice.what]
    assert len(said) == 1
    assert "lines 501 to 1,500" in said[0]


def test_sides_that_have_nothing_to_do_with_each_other_are_told(tmp_path: Path) -> None:
    targets = [target for _, target in GOOD[:2000]]
    random.Random(1).shuffle(targets)
    asked = recipe(
        tmp_path, train=[(source, target) for (source, _), target in zip(GOOD, targets, strict=False)], **HELD
    )
    said = [advice for advice in advise(diagnose(asked), asked) if "hardly go together" in advice.what]
    assert [(advice.level, advice.key) for advice in said] == [("warning", "data.train")]


def real(count: int) -> Pairs:
    pairs = (pair for pair in locate(str(SAMPLE / "train"), "en", "de").pairs() if 40 < len(pair[0]) < 90)
    return [pair for pair in islice(pairs, 0, count * 20, 20) if pair[0] != pair[1]]


def test_swapped_and_foreign_sides_are_told_apart(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    pairs = real(300)
    swapped = [(target, source) for source, target in pairs]
    french = [("La maison est au bord de la rivière et les enfants jouent.", pair[1]) for pair in pairs[:60]]
    asked = recipe(tmp_path, "tokenizer.vocab_size=600", train=swapped, valid=pairs[:100], test=french + pairs[60:100])
    found = diagnose(asked)
    train, valid, test = (one.languages for one in found.corpora)
    assert train
    assert valid
    assert test
    assert train.swapped > 0.9 * train.checked
    assert valid.swapped + valid.wrong < 0.1 * valid.checked
    assert test.wrong >= 55
    said = [(advice.level, advice.key, advice.what) for advice in advise(found, asked)]
    assert [(level, key) for level, key, what in said if "the sides are swapped" in what] == [("error", "data.train")]
    assert [(level, key) for level, key, what in said if "not in en and de" in what] == [("warning", "data.test.held")]


# Figures


def test_figures_are_those_counted_by_hand(tmp_path: Path) -> None:
    train = [
        ("the dog runs.", "der Hund rennt."),
        ("the  dog", "der Hund"),
        ("", "leer"),
        ("a dog, a tree!", "ein Baum"),
    ]
    valid = [("the zebra runs.", "der Hund (rennt)"), ("a tree 漢", "ein Baum")]
    found = diagnose(recipe(tmp_path, "tokenizer.vocab_size=300", train=train, valid=valid, test=valid[:1]))
    one = found.train[0]
    assert (one.pairs, one.kept, [finding.kind for finding in one.findings]) == (4, 3, ["empty"])
    source, target = one.sides
    assert (source.words, source.characters) == (3 + 2 + 4, 13 + 7 + 14)
    assert (target.words, target.characters) == (3 + 2 + 2, 15 + 8 + 8)
    assert (source.in_words.mean, source.in_words.median, source.in_words.longest) == (3, 3, 4)
    assert found.unseen["data.valid"][0].examples == ("zebra", "漢")
    assert (found.unseen["data.valid"][0].words, found.unseen["data.valid"][1].unseen) == (6, 0)
    held = found.held_out[0].sides[0]
    assert (held.lacking["漢"], held.lacking.keys()) == (1, {"漢", "z", "b"})
    assert held.in_bytes == 3 + 1 + 1
    overlaps = {(overlap.key, overlap.other): (overlap.sources, overlap.found) for overlap in found.overlaps}
    assert overlaps == {
        ("data.valid", "data.train"): (2, 0),
        ("data.test.held", "data.train"): (1, 0),
        ("data.test.held", "data.valid"): (1, 1),
    }


@pytest.mark.parametrize("shared", [True, False])
def test_pieces_are_those_of_prepare_before_it_is_run_and_after(tmp_path: Path, shared: bool) -> None:
    changes = [f"tokenizer.shared={str(shared).lower()}", *(() if shared else ["model.embeddings=separate"])]
    asked = recipe(tmp_path, "tokenizer.vocab_size=310", *changes, train=GOOD[:2000], **HELD)
    before = diagnose(asked)
    assert not Path(asked.run).exists()
    manifest = prepare(asked, workers=1, report=lambda line: None)
    after = diagnose(asked)
    assert (before.tokenizer, after.tokenizer) == ("learned from all pairs", f"the one in {asked.run}/data")
    assert replace(before, tokenizer="") == replace(after, tokenizer="")
    for split_name, one in (("train", before.corpora[0]), ("valid", before.corpora[1])):
        record = manifest.splits[split_name]
        assert [side.pieces for side in one.sides] == [record.source_tokens, record.target_tokens]
        assert one.kept == record.pairs
    tokenizers = Tokenizers.load(Path(asked.run) / "data")
    for tokenizer, side, lines in zip(tokenizers, before.corpora[0].sides, zip(*GOOD[:2000], strict=True), strict=True):
        ids = tokenizer.encode(lines)
        assert side.fertility == sum(map(len, ids)) / sum(len(line.split()) for line in lines)
        assert side.in_pieces.longest == max(map(len, ids))
    seen = [np.bincount(np.concatenate(tokenizer.encode(lines)), minlength=310)
            for tokenizer, lines in zip(tokenizers, zip(*GOOD[:2000], strict=True), strict=True)]  # fmt: skip
    every = [seen[0] + seen[1]] if shared else seen
    for vocabulary, counts in zip(before.vocabularies, every, strict=True):
        assert vocabulary.used == (counts[260:] > 0).sum()
        assert (vocabulary.seen_10, vocabulary.seen_100) == ((counts[260:] >= 10).sum(), (counts[260:] >= 100).sum())


def test_the_number_of_workers_changes_nothing_and_a_sample_reads_the_first_pairs(tmp_path: Path) -> None:
    asked = recipe(tmp_path, train=GOOD[:2000], **HELD)
    one, two = (diagnose(asked, workers=workers) for workers in (1, 2))
    assert one == two
    np.testing.assert_array_equal(one.lengths, two.lengths)
    few = diagnose(asked, sample=100)
    assert [corpus.pairs for corpus in few.corpora] == [100, 100, 100]
    assert "only the first 100 pairs" in " ".join(advice.what for advice in advise(few, asked))


def test_lengths_are_summed_up() -> None:
    counter, drawn = LengthCounter(), np.random.default_rng(1).integers(1, 300, 5000)
    for part in np.array_split(drawn, 7):
        counter.add(part)
    found = counter.figures
    assert found.longest == drawn.max()
    assert found.mean == pytest.approx(drawn.mean())
    assert found.median == np.sort(drawn)[2499]
    assert found.p95 == np.sort(drawn)[4749]
    assert sum(found.counts) == 5000
    assert found.counts[0] == (drawn <= found.width).sum()
    assert found.counts[-1] == (drawn > found.width * (len(found.counts) - 1)).sum()


def test_every_row_has_an_equal_chance_to_be_drawn() -> None:
    hits = np.zeros(60)
    for seed in range(400):
        drawn = Drawn(6, seed)
        for part in np.array_split(np.stack([np.arange(60)] * 2, 1), 5):
            drawn.add(part)
        assert len(drawn.rows) == 6
        hits[drawn.rows[:, 0]] += 1
    assert hits.sum() == 2400
    assert abs(hits - 40).max() < 5 * 6  # of a standard deviation of 6


def test_likely_lengths_follow_the_ratio_of_the_languages() -> None:
    source = np.random.default_rng(1).integers(10, 200, 2000)
    balance = Balance(np.stack([source, source // 3], 1))  # as of a script with a sign a word
    assert balance.unlikely(np.array([(100, 33), (100, 100), (30, 10), (100, 2)])).tolist() == [
        False,
        True,
        False,
        True,
    ]
    assert not Balance(np.array([(10, 10)])).unlikely(np.array([(1, 1000)])).any()


def test_lengths_of_equal_lines_correlate_with_nothing() -> None:
    alignment = Alignment()
    alignment.add(np.full((1000, 2), 7))
    assert (alignment.correlation, alignment.shifts) == (None, [])


def test_words_are_without_punctuation_at_their_ends() -> None:
    assert words_of(["„Ja“, (don't) – U.S. …", "x"]) == ["Ja", "don't", "U.S", "x"]


# What training takes


def test_the_memory_of_all_layers_is_extended_from_few(tmp_path: Path) -> None:
    changes = [
        "model={layers: {encoder: 4, decoder: 3}, d_model: 32, heads: 2, d_ffn: 64}",
        "train={precision: fp32, chunk_tokens: 256, batch_tokens: 300}",
    ]
    asked = recipe(tmp_path, *changes)
    lengths = np.random.default_rng(1).integers(1, 40, (500, 2))
    taken = estimate(asked, lengths, 500, "cpu")
    model = Transformer(asked.model, 330, 330)
    assert taken.parameters == taken.learning == model.parameter_count()
    longest = split(np.arange(500), (lengths[:, 0], lengths[:, 1]), 256)[-1]
    chunk = pack(Segmented([(np.full(a, 300), np.full(b, 300)) for a, b in lengths]), longest)
    kept = estimates._kept(asked, chunk, torch.device("cpu"), torch.float32)
    spent = taken.activations - 4 * estimates.BLOCK_NUMBERS["cpu"]
    assert spent == pytest.approx(kept, rel=0.01)
    assert taken.chunk_tokens == 256


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["train.optimizer.name=muon"],
        ["train.ema=0.9"],
        ["train.optimizer.name=muon", "train.ema=0.9", "train.freeze=[encoder, embeddings]"],
        ["train.init=model", "train.lora.rank=2", "train.ema=0.9"],
        ["train.init=model", "train.lora={rank: 2, targets: ffn}", "train.freeze=decoder"],
    ],
    ids=" ".join,
)
def test_the_memory_of_weights_and_optimizer_is_what_they_hold(changes: list[str], tmp_path: Path) -> None:
    asked = recipe(tmp_path, "model={layers: 2, d_model: 32, heads: 2, d_ffn: 64}", "train.precision=fp32", *changes)
    lengths = np.random.default_rng(1).integers(1, 20, (50, 2))
    taken = estimate(asked, lengths, 50, "cpu")
    learner = estimates._learner(asked, torch.device("cpu"), torch.float32)
    chunk = pack(Segmented([(np.full(a, 300), np.full(b, 300)) for a, b in lengths]), range(50))
    sums = learner.gradients(1, {0: chunk})
    held = {id(p): p for model in (learner.model, learner.measured) for p in model.parameters()}
    gradients = [p.grad for p in learner.model.parameters() if p.grad is not None]
    learner.apply(1, sums)
    everything = [*held.values(), *gradients, *learner.optimizer.tensors().values()]
    assert taken.state == sum(tensor.nbytes for tensor in everything)
    copied = snapshot(learner, asked, Origin("data"), State()).tensors
    assert taken.copy == sum(tensor.nbytes for named in copied.values() for tensor in named.values())
    assert (taken.parameters, taken.learning) == learner.parameter_counts


def test_time_is_extended_to_all_layers_and_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe(tmp_path, "model={layers: {encoder: 5, decoder: 4}, d_model: 16, heads: 2}", "train.steps=10")

    def times(shape: Recipe, chunk: Any, *_: object) -> tuple[float, float]:
        tokens = len(chunk.source) + len(chunk.labels)
        return tokens * (1 + 2 * shape.model.encoder_layers + 3 * shape.model.decoder_layers), 0.5

    monkeypatch.setattr(estimates, "_times", times)
    monkeypatch.setattr(estimates, "_load_of", lambda device: 0.0)
    taken = estimate(asked, np.full((100, 2), 9), 200, "cpu")
    assert taken.update_seconds == pytest.approx(2 * 300 * (1 + 2 * 5 + 3 * 4) + 0.5 * taken.parameters)
    assert taken.hours * 3600 == pytest.approx(10 * taken.update_seconds)
    assert taken.epochs == 10 * 30 / 200
    assert list(estimates.advise(taken)) == []
    said = list(estimates.advise(replace(taken, available=1000, load=3.0, epochs=0.5)))
    assert [advice.key for advice in said] == ["train.chunk_tokens", "train.steps", "train.steps"]


# What is said


@pytest.fixture(scope="module")
def shell(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    folder = tmp_path_factory.mktemp("checked")
    train = GOOD[:2000]
    for number, (source, target, *_) in FAULTS.items():
        train[number - 1] = source, target
    asked = recipe(folder, train=train, **HELD)
    (folder / "recipe.yaml").write_text(recipes.dump(asked))
    return Shell(server, folder)


def test_the_terminal_says_what_json_says_in_80_columns(shell: Shell) -> None:
    said = shell("check", "recipe.yaml", "--no-estimate", "--workers", 1)
    values = json.loads(shell("check", "recipe.yaml", "--no-estimate", "--workers", 1, "--json").out)
    assert max(map(len, said.lines)) <= 80
    assert "\x1b" not in said.out.decode()
    text = " ".join(said.out.decode().split())
    for one in values["corpora"]:
        source, target = one["sides"]
        kept = "all" if one["kept"] == one["pairs"] else f"{one['kept']:,}"
        label = one["key"].removeprefix("data.")
        assert f"{label} {one['pairs']:,} {kept} {source['words']:,} {target['words']:,}" in text
        for side in (source, target):
            words, pieces = side["in_words"], side["in_pieces"]
            figures = (f"{each['mean']:.1f} {each['p95']:,} {each['longest']:,}" for each in (words, pieces))
            assert f"{side['language']} {' '.join(figures)} {' '.join(bars(pieces['counts']).split())}" in text
            assert f"{side['language']} {side['pieces_per_word']:.2f} none" in text
        for finding in one["findings"]:
            share_of = share(finding["pairs"], one["pairs"])
            assert f"{finding['kind']}: {finding['pairs']:,} {finding['fate']} ({share_of})" in text
            assert all(f"line {example['number']} " in text for example in finding["examples"][:2])
    [vocabulary] = values["vocabularies"]
    assert f"{vocabulary['entries']:,} learned entries; {vocabulary['used']:,} are used" in text
    assert values["advice"]
    for advice in values["advice"]:
        assert f"{advice['level']} {advice['key']}: {advice['what']}: {advice['mend']}." in text
    assert said.lines[-1].endswith("the text is usable")
    assert not (shell.folder / "run").exists()


def test_the_estimate_is_said_too(shell: Shell) -> None:
    done = shell("check", "recipe.yaml", "--workers", 1, "--json", "--device", "cpu", "--sample", 300)
    taken = json.loads(done.out)["training"]
    assert taken["memory"] == taken["state"] + taken["activations"] + taken["copy"]
    assert taken["hours"] * 3600 == pytest.approx(taken["update_seconds"] * taken["updates"])
    assert done.err == ""


def test_warnings_end_with_2_only_where_that_is_asked_for(shell: Shell) -> None:
    assert shell("check", "recipe.yaml", "--no-estimate", "--workers", 1).err == ""
    told = shell.fails("check", "recipe.yaml", "--no-estimate", "--workers", 1, "--strict")
    assert re.fullmatch(r"recipe.yaml: \d+ warnings?, \d+ notes?: the text is usable, but --strict was given", told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["data.train=missing"], "missing.en: no such file"),
        (["data.train={tsv: -}"], "standard input can be read only once"),
        (["tokenizer.vocab_size=30000"], "tokenizer.vocab_size: must be at most"),
        (["data.max_length=1"], "the text is not usable"),
    ],
)
def test_what_makes_text_unusable_is_told_in_a_line(shell: Shell, changes: list[str], told: str) -> None:
    options = [option for change in changes for option in ("--set", change)]
    assert told in shell.fails("check", "recipe.yaml", "--no-estimate", "--workers", 1, *options)


def test_a_test_set_that_is_not_there_yet_is_a_warning(tmp_path: Path) -> None:
    asked = recipe(tmp_path, train=GOOD[:500], valid=HELD["valid"])
    said = [advice for advice in advise(diagnose(asked), asked) if advice.key == "data.test.held"]
    assert [(advice.level, "cannot be read" in advice.what) for advice in said] == [("warning", True)]


def test_what_flows_only_once_is_refused(tmp_path: Path) -> None:
    import os

    asked = recipe(tmp_path, train=GOOD[:500], **HELD)
    (tmp_path / "train.en").unlink()
    os.mkfifo(tmp_path / "train.en")
    with pytest.raises(DataError, match="must be a regular file"):
        diagnose(asked)


def test_a_vocabulary_too_large_for_its_text_is_told_with_a_smaller_one(tmp_path: Path) -> None:
    words = [f"{a}{b}{c}" for a in ENGLISH[:9] for b in GERMAN[:9] for c in ENGLISH[:9]]
    train = [(" ".join(words[at : at + 3]), " ".join(words[at : at + 3][::-1]) + ".") for at in range(0, 700)]
    asked = recipe(tmp_path, "tokenizer.vocab_size=1100", train=train, valid=train[:3], test=train[3:5])
    found = diagnose(asked)
    [advice] = [advice for advice in advise(found, asked) if advice.key == "tokenizer.vocab_size"]
    assert advice.level == "warning"
    assert int(advice.mend.split()[-1].replace(",", "")) < 1100


# The page


@pytest.fixture
def opened(browser: Any, broken: Diagnosis, tmp_path: Path) -> Iterator[Any]:
    """The page in a browser that has no network; what it asked for and complained of must be nothing."""
    asked = recipe(tmp_path, "run=runs/<b>bold</b>")
    taken = estimate(asked, broken.lengths, 1990, "cpu")
    path = tmp_path / "check.html"
    path.write_text(page(Report(asked, broken, advise(broken, asked), taken), "0.0"), encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900})
    tab = context.new_page()
    heard: list[str] = []
    tab.on("request", lambda request: heard.append(request.url))
    tab.on("console", lambda message: heard.append(message.text))
    tab.on("pageerror", lambda error: heard.append(str(error)))
    tab.goto(path.as_uri())
    yield tab
    context.close()
    assert heard == [path.as_uri()]


def test_the_page_opens_offline_and_shows_the_numbers(opened: Any, broken: Diagnosis, tmp_path: Path) -> None:
    text = opened.locator("body").inner_text()
    for one in broken.corpora:
        for side in one.sides:
            assert f"{side.words:,}" in text
            assert f"{side.fertility:.2f}" in text
    assert opened.locator("h1").inner_text() == "runs/<b>bold</b>"
    for finding in broken.train[0].findings:
        row = opened.locator("details").filter(has=opened.locator(f"summary b:text-is('{finding.kind}')")).first
        row.locator("summary").click()
        assert row.locator("dt").all_inner_texts() == [f"line {example.number}" for example in finding.examples]
    assert opened.get_by_text("<b>the dog</b> runs.").count() == 1
    advice = advise(broken, recipe(tmp_path))
    assert opened.locator(".advice li").count() == len(advice)
    # A bar of a histogram is as high as its count says.
    first = broken.train[0].sides[0].in_words.counts
    heights = [float(bar.get_attribute("height")) for bar in opened.locator("svg").first.locator("rect").all()]
    np.testing.assert_allclose(heights, np.array(first) / max(first) * max(heights), atol=0.06)


def test_the_page_fits_wide_and_narrow_screens_light_and_dark(opened: Any) -> None:
    colours = set()
    for width, scheme in ((390, "dark"), (390, "light"), (1400, "dark")):
        opened.set_viewport_size({"width": width, "height": 800})
        opened.emulate_media(color_scheme=scheme)
        assert opened.evaluate("document.documentElement.scrollWidth") == width
        colours.add(opened.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_the_command_writes_the_page(shell: Shell) -> None:
    shell("check", "recipe.yaml", "--no-estimate", "--workers", 1, "--html", "check.html")
    text = (shell.folder / "check.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "http" not in text.partition("<body>")[2]
