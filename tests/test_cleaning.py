"""Laws of cleaning: dirt goes, what is good stays, and all that is dropped or repaired is told."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.data import Manifest, Shards, prepare
from nmt.data.sieve import PartSieve, Sieve
from nmt.errors import DataError, NmtError
from nmt.recipe import Clean, Data, loads
from nmt.text import Tokenizers, locate
from nmt.text.cleaning import REASONS, Cleaner
from nmt.text.duplicates import Hashes, HashSet, hashes
from nmt.text.scripts import scripts_of

SAMPLE = Path(__file__).parent.parent / "data" / "libreoffice"


def data(source: str = "en", target: str = "de", **clean: bool | float) -> Data:
    return Data(source=source, target=target, train=("x",), valid="x", clean=Clean(**clean))  # type: ignore[arg-type]


def reason(source: str, target: str, of: Data) -> str:
    return REASONS[Cleaner(of)([(source, target)]).reasons[0]]


def sample(split: str) -> list[tuple[str, str]]:
    return list(locate(str(SAMPLE / split), "en", "de").pairs())


# One pair at a time

DIRT = [
    ("A dog\x07 runs.", "Ein Hund läuft.", "control characters"),
    ("A dog runs.", "Ein Hund l\ufffduft.", "control characters"),
    ("It\x92s here.", "Es ist da.", "control characters"),
    ("A\u2028dog\truns\u00a0away.\r", "Ein Hund läuft weg.", ""),
    ("\x01", "Ein Hund.", "empty"),
    (" ", "Ein Hund.", "empty"),
    ("<p>A dog runs.</p>", "Ein Hund läuft.", "tags"),
    ("A dog runs.", 'Ein <A HREF="x">Hund</A> läuft.', "tags"),
    ("A dog<br/>runs.", "Ein Hund läuft.", "tags"),
    ("A dog runs.<!-- fast -->", "Ein Hund läuft.", "tags"),
    ("A &lt;b&gt;dog&lt;/b&gt; runs.", "Ein Hund läuft.", "tags"),
    ("If a < b and b > c, then a < c.", "Ist a < b und b > c, dann a < c.", ""),
    ("Replace <name> by your name.", "Ersetzen Sie <name> durch Ihren Namen.", ""),
    ("This was never translated.", "This was never translated.", "identical sides"),
    ("This was never Translated.", "this was never translated.", "identical sides"),
    ("Johann Sebastian Bach", "Johann Sebastian Bach", ""),
    ("1 - 2 - 3 - (4) - b", "1 - 2 - 3 - (4) - c", "few letters"),
    ("%%%% $$$$ ???? a", "Ein Hund läuft.", "few letters"),
    ("It is 3:30.", "Es ist halb vier.", ""),
    ("Собака бежит.", "Ein Hund läuft.", "wrong script"),
    ("A dog runs.", "一只狗跑。", "wrong script"),
    ("The Greek letter alpha is α.", "Der griechische Buchstabe Alpha ist α.", ""),
]


@pytest.mark.parametrize(("source", "target", "why"), DIRT)
def test_a_pair_is_dropped_by_the_first_step_that_finds_fault(source: str, target: str, why: str) -> None:
    assert reason(source, target, data()) == why
    assert REASONS[Cleaner(None)([(source, target)]).reasons[0]] == (why if why == "empty" else "")


STEPS = {
    "control characters": {"control_characters": False},
    "tags": {"tags": False},
    "identical sides": {"identical": False},
    "few letters": {"min_letters": 0.0},
    "wrong script": {"script": False},
}


@pytest.mark.parametrize(("source", "target", "why"), [row for row in DIRT if row[2] in STEPS])
def test_every_step_can_be_switched_off(source: str, target: str, why: str) -> None:
    assert reason(source, target, data(**STEPS[why])) == ""


@pytest.mark.parametrize(
    ("language", "good", "bad"),
    [
        ("ru", "Собака бежит.", "A cat sleeps."),
        ("el", "Ο σκύλος τρέχει.", "Собака бежит."),
        ("ar", "الكلب يجري.", "הכלב רץ."),
        ("he", "הכלב רץ.", "الكلب يجري."),
        ("hi", "कुत्ता दौड़ता है।", "কুকুর দৌড়ায়।"),
        ("zh", "一只狗在跑。", "개가 달린다."),
        ("zh_TW", "一隻狗在跑。", "いぬがはしる。"),
        ("ja", "犬がコートで走る。", "개가 달린다."),
        ("ko", "개가 달린다.", "いぬがはしる。"),
        ("th", "สุนัขวิ่ง", "ຫມາແລ່ນ"),
        ("ka", "ძაღლი დარბის.", "A cat sleeps."),
        ("sr-Latn", "Pas trči.", "Пас трчи."),
        ("sr", "Пас трчи.", "الكلب يجري."),
    ],
)
def test_a_language_is_written_in_its_scripts(language: str, good: str, bad: str) -> None:
    assert reason("A dog runs.", good, data(target=language)) == ""
    assert reason("A dog runs.", bad, data(target=language)) == "wrong script"
    assert reason("Windows XP", "Windows XP", data(target=language)) == ""


def test_the_script_of_an_unknown_language_is_not_checked() -> None:
    assert scripts_of("tree") == frozenset()
    assert reason("Собака", "一只狗", data("words", "tree")) == ""


@pytest.mark.parametrize(
    ("source", "target", "same"),
    [
        ("1,000.5 litres", "1 000,5 Liter", True),
        ("1000.5 litres", "1.000,5 Liter", True),
        ("on 05.03.2020", "am 5. 3. 2020", True),
        ("on 3/5/2020", "am 5.3.2020", True),
        ("on ٥ March", "am 5. März", True),
        ("pages 7 and 8", "Seiten 8 und 7", True),
        ("no numbers", "keine Zahlen", True),
        ("page 12", "Seite 21", False),
        ("page 12", "Seite", False),
        ("two pages", "2 Seiten", False),
        ("x² and 10", "x² und 10", True),
    ],
)
def test_numbers_are_compared_by_their_digits(source: str, target: str, same: bool) -> None:
    asked = data(numbers=True, min_letters=0.0)
    assert reason(source, target, asked) == reason(target, source, asked) == ("" if same else "numbers")
    assert reason(source, target, data(min_letters=0.0)) == ""


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        ("Q&amp;A", "Q&A"),
        ("It&#39;s &quot;it&quot;", 'It\'s "it"'),
        ("caf&eacute; &amp;quot;x&amp;quot;", 'café "x"'),
        ("a&nbsp;b&#10;c", "a b c"),
        ("AT&T; see ?a=1&copy=2 & more", "AT&T; see ?a=1&copy=2 & more"),
    ],
)
def test_entities_become_characters_and_that_is_told(text: str, repaired: str) -> None:
    cleaned = Cleaner(data())([(text, "gut")])
    assert cleaned.sources == [repaired]
    assert cleaned.repaired.tolist() == [text != repaired]
    for untouched in (Cleaner(data(entities=False)), Cleaner(None)):
        assert untouched([(text, "gut")]).sources == [text]
        assert not untouched([(text, "gut")]).repaired.any()


def test_pairs_have_no_influence_on_each_other() -> None:
    pairs = [(source, target) for source, target, _ in DIRT]
    together = Cleaner(data())(pairs).reasons.tolist()
    assert together == [Cleaner(data())([pair]).reasons[0] for pair in pairs]


# Languages


def test_swapped_sides_are_told_apart_and_what_is_unsure_stays() -> None:
    pytest.importorskip("py3langid")
    asked = data(language=True)
    english, german = "The document is saved in the folder.", "Das Dokument wird im Ordner gespeichert."
    assert reason(english, german, asked) == ""
    assert reason(german, english, asked) == "wrong language"
    assert reason(english, "Le document est enregistré dans le dossier.", asked) == "wrong language"
    assert reason("OK", "OK", asked) == reason("Tom", "Tom", asked) == ""


def test_a_language_that_is_unknown_and_a_package_that_is_missing_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("py3langid")
    with pytest.raises(NmtError, match=r"data\.clean\.language: must be false, for py3langid does not know words"):
        Cleaner(data("words", "tree", language=True))
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(NmtError, match=r"py3langid is missing: pip install nmt\[langid\]"):
        Cleaner(data(language=True))
    Cleaner(data(language=True), language=False)


# Pairs seen before


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 50) | st.integers(0, 2**64 - 1)).map(lambda keys: [k or 1 for k in keys])))
def test_a_hash_set_is_a_set(batches: list[list[int]]) -> None:
    ours, theirs = HashSet(5), set[int]()
    for batch in batches:
        expected = []
        for key in batch:
            expected.append(key not in theirs)
            theirs.add(key)
        assert ours.add(np.array(batch, np.uint64)).tolist() == expected


def test_a_hash_set_takes_twelve_bytes_a_key_and_holds_a_million() -> None:
    keys = np.random.default_rng(1).integers(0, 2**64, 1_000_000, np.uint64)
    ours = HashSet(len(keys))
    assert ours._table.nbytes <= 12 * len(keys) + 1024
    for start in range(0, len(keys), 2000):
        assert ours.add(keys[start : start + 2000]).all()
    assert ours._table.nbytes <= 12 * len(keys) + 1024
    assert not ours.add(keys).any()


def test_near_duplicates_are_the_same_but_for_case_punctuation_digits_and_spaces() -> None:
    pairs = [
        ("Page 1 of 3.", "Seite 1 von 3."),
        ("page 2, of 3", "Seite 2 von 3"),
        ("Page 2 of 3", "Seiten 2 von 3"),
        ("1 2 3", "1 2 3"),
        ("1 2 4", "1 2 4"),
        ("की", "का"),
        ("का", "की"),
    ]
    reasons, _ = Sieve(Clean(near_duplicates=True), len(pairs), [])(hashes(pairs, near=True))
    assert [REASONS[code] for code in reasons] == ["", "near duplicate", "", "", "", "", ""]


def test_searching_a_range_of_hashes_after_the_other_finds_the_same_duplicates() -> None:
    dice = np.random.default_rng(1)
    keys = [dice.integers(0, 40, (3, size)).astype(np.uint64) << np.uint64(58) for size in (30, 0, 7, 50)]
    parts = [Hashes(*fields) for fields in keys]
    clean, untagged = Clean(near_duplicates=True), np.zeros(50, np.uint64)
    read = [(part, untagged[: len(part.pairs)]) for part in parts]
    at_once, by_ranges = (
        [reasons.tolist() for reasons, _ in PartSieve(clean, [], lambda: read, most)] for most in (1000, 9)
    )
    assert at_once == by_ranges
    sieve = Sieve(clean, 5, [])
    assert at_once == [sieve(part)[0].tolist() for part in parts]
    seen: set[int] = set()
    for fields, reasons in zip(parts, at_once, strict=True):
        for key, code in zip(fields.pairs.tolist(), reasons, strict=True):
            assert (REASONS[code] == "duplicate") == (key in seen)
            seen.add(key)


# What `nmt prepare` makes of it

RECIPE = """
run: run
data: {source: en, target: de, train: train, valid: valid}
tokenizer: {vocab_size: 400, sample: 500}
"""


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Good pairs, which are the training text of the folder that we are in."""
    monkeypatch.chdir(tmp_path)
    good = sample("train")[:120]
    write("train", good)
    write("valid", sample("valid")[:10])
    return good


def write(prefix: str, pairs: list[tuple[str, str]]) -> None:
    for side, language in enumerate(("en", "de")):
        Path(f"{prefix}.{language}").write_text("".join(f"{pair[side]}\n" for pair in pairs), newline="")


def run(*overrides: str, workers: int = 1) -> list[str]:
    told: list[str] = []
    prepare(loads(RECIPE, overrides=overrides), workers=workers, report=told.append)
    return told


def sources() -> list[str]:
    tokenizer, shards = Tokenizers.load("run/data").source, Shards.open("run/data", "train")
    return tokenizer.decode([shards.pair(index)[0].tolist() for index in range(len(shards))])


def test_good_text_is_left_alone(pairs: list[tuple[str, str]]) -> None:
    assert "train: 120 pairs read from train, none dropped" in run()
    assert sources() == [source for source, _ in pairs]
    assert not any(line.startswith("WARNING") for line in run("run=other"))


def test_what_is_dropped_and_repaired_is_told_with_examples(pairs: list[tuple[str, str]]) -> None:
    write(
        "train",
        [*pairs, pairs[3], ("<b>Open</b>\tfile", "Datei öffnen"), ("Q&amp;A list", "Liste"), pairs[5], pairs[5]],
    )
    told = run()
    first = told.index("train: 125 pairs read from train, 4 dropped (3.20%): 3 duplicate, 1 tags; 1 repaired: entities")
    rows = told[first + 1 : first + 5]
    assert [row[:31].rstrip() for row in rows] == [
        "  duplicate          line 121",
        "                     line 124",
        "  repaired entities  line 123",
        "  tags               line 122",
    ]
    assert "Q&amp;A list" in rows[2]
    assert "<b>Open</b>\\tfile" in rows[3]
    record = Manifest.load("run/data").splits["train"].corpora[0]
    assert (record.dropped, record.repaired) == ({"duplicate": 3, "tags": 1}, {"entities": 1})
    assert sources() == [*(source for source, _ in pairs), "Q&A list"]
    written = Path("run/data/dropped.txt").read_text().splitlines()
    assert written[1:4] == [
        "\t".join(["train", f"line {line}", "duplicate", *pair])
        for line, pair in [(121, pairs[3]), (124, pairs[5]), (125, pairs[5])]
    ]


def test_examples_can_be_thrown_away(pairs: list[tuple[str, str]]) -> None:
    run()
    Path("run/data/dropped.txt").unlink()
    assert "nothing has changed" in run()[0]


def test_a_duplicate_may_be_in_another_corpus_and_the_first_stays(pairs: list[tuple[str, str]]) -> None:
    write("more", [("new", "neu"), *pairs[50:60]])
    told = run("data.train=[train, more]")
    assert any(line.startswith("train: 11 pairs read from more, 10 dropped (90.91%): 10 duplicate") for line in told)
    assert sources() == [*(source for source, _ in pairs), "new"]
    run("data.train=[train, more]", "data.clean.duplicates=false")
    assert len(sources()) == 131


def test_dirt_never_enters_the_vocabulary(pairs: list[tuple[str, str]]) -> None:
    run()
    clean = Path("run/data/tokenizer.model").read_bytes()
    write("train", [*pairs, *[("<b>ქართული</b>", "ქართული")] * 9])
    run()
    assert Path("run/data/tokenizer.model").read_bytes() == clean


@pytest.mark.parametrize("override", ["data.clean.tags=false", "data.clean.min_letters=0.5", "data.clean.overlap=drop"])
def test_cleaning_otherwise_is_preparing_again(pairs: list[tuple[str, str]], override: str) -> None:
    run()
    assert f"preparing again: the recipe has changed in {override.split('=')[0]}" in run(override)[0]


def test_a_step_that_did_not_exist_at_the_time_does_not_spoil_what_was_prepared(pairs: list[tuple[str, str]]) -> None:
    run()
    path = Path("run/data/manifest.json")
    manifest = json.loads(path.read_text())
    del manifest["choices"]["data"]["clean"]["misaligned"]
    path.write_text(json.dumps(manifest))
    assert "nothing has changed" in run()[0]


def test_training_text_of_which_nothing_is_left_is_told_with_the_reasons(pairs: list[tuple[str, str]]) -> None:
    write("train", [(f"<b>{source}</b>", target) for source, target in pairs])
    with pytest.raises(DataError, match=r"data\.train: no pair is left of the 120 read from train \(120 tags\)"):
        run()


# Held-out text


def test_overlap_with_valid_and_test_sets_is_told(pairs: list[tuple[str, str]]) -> None:
    write("valid", [*pairs[:2], (pairs[2][0], "etwas anderes"), ("nothing of the kind", "nichts davon")])
    write("test", [pairs[7], pairs[7]])
    told = run("data.test={one: test, two: valid, three: nowhere}")
    assert "WARNING: data.test.three: not compared with the training text: nowhere.en: no such file" in told[0]
    valid, test = (next(line for line in told if line.startswith(f"WARNING: {key}:")) for key in
                   ("data.valid", "data.test.one"))  # fmt: skip
    assert valid.startswith("WARNING: data.valid: 3 of 4 sources (75.00%) are in the training text, 2 with the same")
    assert "1 of 1 sources (100.00%) are in the training text, 1 with the same translation; training pairs: 1;" in test
    assert told[told.index(valid) + 1].startswith(f"  line 1 of train  {pairs[0][0][:30]}")
    assert sources() == [source for source, _ in pairs]
    overlap = Manifest.load("run/data").overlap
    assert overlap["data.valid"].model_dump() == {"sources": 4, "found": 3, "pairs": 2, "training": 3}
    assert list(overlap) == ["data.valid", "data.test.one", "data.test.two"]


def test_overlap_is_dropped_on_demand_and_then_test_sets_count(pairs: list[tuple[str, str]]) -> None:
    write("valid", pairs[:2])
    write("test", [(pairs[7][0], "etwas anderes")])
    drop = ["data.clean.overlap=drop", "data.test.one=test"]
    told = run(*drop)
    assert any(line.startswith("train: 120 pairs read from train, 3 dropped (2.50%): 3 overlap") for line in told)
    assert sources() == [source for number, (source, _) in enumerate(pairs) if number not in (0, 1, 7)]
    assert "nothing has changed" in run(*drop)[0]
    assert "preparing again: the recipe has changed in data.test.two" in run(*drop, "data.test.two=valid")[0]
    write("test", pairs[9:12])
    assert "preparing again" in run(*drop)[0]
    with pytest.raises(DataError, match=r"nowhere\.en: no such file"):
        run(*drop, "data.test.two=nowhere")


def test_a_test_set_that_came_later_is_told_to_be_unchecked(pairs: list[tuple[str, str]]) -> None:
    run()
    assert run("data.test.new=valid")[1:] == [
        "data.test.new: not compared with the training text yet: nmt prepare --force does it"
    ]


def test_entities_in_held_out_text_are_told_for_they_are_not_repaired_there(pairs: list[tuple[str, str]]) -> None:
    write("valid", [("Q&amp;A", "F&amp;A"), ("A & B", "A & B")])
    assert any(line.startswith("WARNING: data.valid: HTML entities in 1 pairs") for line in run())
    assert not any("WARNING" in line for line in run("data.clean.entities=false"))


# Good text


def test_the_defaults_leave_the_sample_alone() -> None:
    pairs = sample("train")
    assert (Cleaner(data())(pairs).reasons > 0).mean() <= 0.01
