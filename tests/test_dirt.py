"""Laws of dirt that was put into a corpus: nearly all of it is found, of every kind, and nearly nothing else."""

import random
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from nmt.data import Manifest, prepare
from nmt.recipe import loads
from nmt.text import locate, one_line, read_lines
from nmt.text.lexicon import FEWEST, LEXICON, Lexicon, Sample
from nmt.text.misaligned import Misaligned

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from dirt import FOREIGN, GOOD, KINDS, SHIFTED, configured, confusion, dirty, reasons  # noqa: E402

Pair = tuple[str, str]

FRENCH = [
    f"{who} {does} {where}."
    for who, does, where in product(
        ["Le chien", "Une vieille femme", "Mon voisin", "Le directeur", "La petite fille", "Un homme en chemise bleue"],
        ["mange une pomme", "regarde la télévision", "attend le train", "lit un livre", "ouvre la porte"],
        ["dans la cuisine", "devant la maison", "avec ses amis", "depuis ce matin", "sans rien dire", "à côté du lac",
         "avant de partir", "pendant les vacances"],
    )
]  # fmt: skip


def sample(split: str = "train") -> list[Pair]:
    """The real text that comes with the house."""
    pairs = locate(str(ROOT / "data" / "libreoffice" / split), "en", "de").pairs()
    return [(one_line(source), one_line(target)) for source, target in pairs]


@pytest.fixture(scope="module")
def real() -> list[Pair]:
    return sample()


@pytest.fixture(scope="module")
def lexicon(real: list[Pair]) -> Lexicon:
    return learned(real[:20_000])


def learned(pairs: list[Pair]) -> Lexicon:
    drawn = Sample()
    drawn.add(pairs)
    lexicon = Lexicon.learn(drawn.pairs())
    assert lexicon
    return lexicon


def astray(lexicon: Lexicon, pairs: list[Pair]) -> list[bool]:
    found: list[bool] = Misaligned(lexicon)(*zip(*pairs, strict=True)).tolist()
    return found


# All kinds at once


def check(pairs: list[Pair], kinds: list[str], source: str, target: str) -> None:
    pytest.importorskip("py3langid")
    table = confusion(pairs, kinds, reasons(pairs, configured(source, target, language=True)))
    assert all(table[kind].total() >= 0.09 * len(pairs) for kind in KINDS)
    left = {kind: table[kind][""] / table[kind].total() for kind in table}
    assert left[GOOD] >= 0.98, table[GOOD]
    for kind in KINDS:
        assert left[kind] <= 0.05, (kind, table[kind])


def test_dirt_of_every_kind_is_found_and_the_good_pairs_stay(real: list[Pair]) -> None:
    alone = random.Random(1).sample(list(dict.fromkeys(real)), 10_000)
    check(*dirty(alone, FRENCH), "en", "de")


def test_lines_that_slipped_within_a_document_are_found_too(real: list[Pair]) -> None:
    """Where neighbours are about the same thing, in the order that they were written in."""
    pairs, kinds = dirty(real, FRENCH)
    table = confusion(pairs, kinds, reasons(pairs, configured("en", "de", language=False)))
    assert table[SHIFTED][""] <= 0.05 * table[SHIFTED].total()
    assert table[GOOD][""] >= 0.98 * table[GOOD].total()


@pytest.mark.parametrize("name", ["multi30k", "tatoeba-en-de"])
def test_dirt_in_public_corpora_is_found_and_they_lose_little_as_they_are(name: str) -> None:
    prefix, french = ROOT / "data" / name / "train", ROOT / "data" / "multi30k" / "train.fr.gz"
    if not (Path(f"{prefix}.en.gz").exists() and french.exists()):
        pytest.skip(f"{prefix}.en.gz is not there")
    pairs = [(one_line(source), one_line(target)) for source, target in locate(str(prefix), "en", "de").pairs()]
    lost = [why for why in reasons(pairs, configured("en", "de", language=False)) if why]
    assert len(lost) <= 0.01 * len(pairs)
    alone = list(dict.fromkeys(pairs))
    random.Random(1).shuffle(alone)
    check(*dirty(alone[:40_000], [one_line(line) for line in read_lines(french)]), "en", "de")


def test_dirt_is_made_as_told(real: list[Pair]) -> None:
    pairs, kinds = dirty(real[:2000], FRENCH, seed=3)
    assert (pairs, kinds) == dirty(real[:2000], FRENCH, seed=3)
    assert len(pairs) == len(kinds) == 2000
    for pair, kind, was in zip(pairs, kinds, real, strict=False):
        assert (pair == was) or kind != GOOD
        assert kind != FOREIGN or pair[1] in FRENCH


# Misaligned pairs


def test_good_text_keeps_its_pairs(real: list[Pair], lexicon: Lexicon) -> None:
    assert np.mean(astray(lexicon, real[20_000:30_000])) < 0.003


def test_one_wrong_translation_is_found_and_its_neighbours_stay(real: list[Pair], lexicon: Lexicon) -> None:
    pairs = [pair for pair in real[20_000:23_000] if min(len(pair[0].split()), len(pair[1].split())) >= 6]
    wrong = pairs[:]
    for at in range(10, len(pairs), 40):
        wrong[at] = (pairs[at][0], pairs[(at + 1777) % len(pairs)][1])
    found = np.array(astray(lexicon, wrong))
    assert found[10::40].mean() > 0.9
    found[10::40] = False
    assert found.mean() < 0.003


@pytest.mark.parametrize("far", [-3, -1, 1, 2])
def test_a_run_that_slipped_is_found_with_its_short_lines(real: list[Pair], lexicon: Lexicon, far: int) -> None:
    pairs = real[20_000:20_400]
    targets = [target for _, target in pairs]
    targets[100:160] = [targets[at + far] for at in range(100, 160)]
    found = np.array(astray(lexicon, [(source, target) for (source, _), target in zip(pairs, targets, strict=True)]))
    assert found[100:160].mean() > 0.9
    assert np.concatenate([found[:90], found[170:]]).mean() < 0.01


def test_paraphrases_are_no_slip(lexicon: Lexicon) -> None:
    german = ["Speichern Sie das Dokument.", "Sichern Sie dieses Dokument.", "Das Dokument speichern."]
    assert not any(astray(lexicon, [("Save the document.", line) for line in german] * 2))
    english = ["Save the document.", "Saves the current document.", "Click to save this document."]
    assert not any(astray(lexicon, [(line, "Das Dokument speichern.") for line in english] * 2))


def test_what_nothing_is_known_of_stays(lexicon: Lexicon) -> None:
    pairs = [("Xyzzy plugh.", "Frobozz."), ("", ""), ("Καλημέρα", "早上好"), ("1", "!")]
    assert not any(astray(lexicon, pairs))
    assert astray(lexicon, pairs[:1]) == [False]


def test_a_name_in_both_sides_speaks_for_them(lexicon: Lexicon) -> None:
    names = ["Qwghlm", "Zarquon", "Vetinari"]
    with_names, without = (lexicon.words([line], side) for side, line in enumerate([" ".join(names), names[0]]))
    assert len(with_names.unknown) == 3
    assert np.intersect1d(with_names.unknown, without.unknown).size == 1


def test_few_pairs_say_too_little(real: list[Pair]) -> None:
    assert Lexicon.learn(real[: FEWEST - 1]) is None
    assert Lexicon.learn(real[:FEWEST]) is not None


def test_the_sample_is_the_same_whatever_the_order_and_however_often_pairs_come(real: list[Pair]) -> None:
    once, often = Sample(500), Sample(500)
    once.add(real[:5000])
    mixed = real[:5000] * 2
    random.Random(1).shuffle(mixed)
    for start in range(0, len(mixed), 700):
        often.add(mixed[start : start + 700])
    assert once.pairs() == often.pairs()
    assert len(once.pairs()) == 500
    assert max(map(real.index, once.pairs())) > 4000
    once.add([("a" * 5000, "b")] * 3)
    assert max(len(side) for pair in once.pairs() for side in pair) <= 1000


def test_a_lexicon_is_read_as_it_was_written(real: list[Pair], lexicon: Lexicon, tmp_path: Path) -> None:
    lexicon.save(tmp_path)
    written = (tmp_path / LEXICON).read_bytes()
    again = Lexicon.load(tmp_path)
    assert again
    mixed = [(a, b) for (a, _), (_, b) in zip(real[:300], real[7:307], strict=True)] + real[400:700]
    assert astray(again, mixed) == astray(lexicon, mixed)
    assert any(astray(lexicon, mixed))
    learned(real[:20_000]).save(tmp_path)
    assert (tmp_path / LEXICON).read_bytes() == written


# Through nmt prepare

RECIPE = """
run: run
data: {source: en, target: de, train: train, valid: valid}
tokenizer: {vocab_size: 400, sample: 500}
"""


@pytest.fixture
def folder(tmp_path: Path, real: list[Pair], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pairs, _ = dirty(real[:6000], FRENCH)
    for name, some in {"train": pairs, "valid": sample("valid")[:10]}.items():
        for side, language in enumerate(("en", "de")):
            Path(f"{name}.{language}").write_text("".join(f"{pair[side]}\n" for pair in some))
    return tmp_path


def run(*overrides: str, workers: int = 1) -> list[str]:
    told: list[str] = []
    prepare(loads(RECIPE, overrides=overrides), workers=workers, report=told.append)
    return told


def test_misaligned_pairs_are_told_with_examples_and_the_number_of_workers_changes_nothing(folder: Path) -> None:
    told = [run(f"run=run{workers}", "data.clean.near_duplicates=true", workers=workers) for workers in (1, 2)]
    assert told[0][1:] == told[1][1:]
    dropped = Manifest.load("run1/data").splits["train"].corpora[0].dropped
    assert dropped["misaligned"] > 400
    assert any(line.startswith("  misaligned ") and " line " in line for line in told[0])
    assert sum("\tmisaligned\t" in line for line in Path("run1/data/dropped.txt").read_text().splitlines()) == 20
    one, other = ({path.name: path.read_bytes() for path in Path(f"run{n}/data").iterdir()} for n in (1, 2))
    del one["manifest.json"], other["manifest.json"]  # its figures are those told
    assert one == other


def test_the_step_can_be_switched_off_and_says_where_it_cannot_be_taken(folder: Path) -> None:
    told = run("data.clean.misaligned=false")
    assert not (folder / "run" / "data" / LEXICON).exists()
    assert "misaligned" not in "\n".join(told)
    for language in ("en", "de"):
        path = folder / f"train.{language}"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:1000]))
    assert "data.clean.misaligned: not looked for, for that takes 4,000 different pairs" in run()
