"""Noise hits as often as it is asked to, a pair at a time, and never where it would teach what is wrong."""

import random
import re
from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt import recipe as recipes
from nmt.data.segmentation import Segmented, Segmenter
from nmt.errors import RecipeError
from nmt.recipe import Noise as Rates
from nmt.text import Tokenizer, Tokenizers, one_line, train_tokenizer
from nmt.text.noise import (
    Noise,
    in_capitals,
    in_lower_case,
    in_title_case,
    with_placeholders,
    with_tags,
    without_final_punctuation,
)

KINDS = ("upper", "title", "lower", "no_final_punctuation", "typos", "placeholders", "tags")
ALL = Rates(upper=0.2, title=0.2, lower=0.2, no_final_punctuation=0.5, typos=0.5, placeholders=0.5, tags=0.5)


def draw(seed: object = 1) -> Callable[[], float]:
    return random.Random(str(seed)).random


# What each kind does to text

CASED = [
    (in_capitals, ("Hello, straße.", "Grüße, Straße."), ("HELLO, STRASSE.", "GRÜSSE, STRASSE.")),
    (in_capitals, ("Привет, мир", "Γειά σου"), ("ПРИВЕТ, МИР", "ΓΕΙΆ ΣΟΥ")),
    (in_capitals, ("我爱 Google 和你", "I love Google and you"), ("我爱 Google 和你", "I love Google and you")),
    (in_capitals, ("I love Google.", "我爱 Google 你"), ("I LOVE GOOGLE.", "我爱 Google 你")),
    (in_capitals, ("Put {name} or %1$s at http://a.org/b", "<b>a</b>"),
                  ("PUT {name} OR %1$s AT http://a.org/b", "<b>A</b>")),
    (in_title_case, ("it's NASA's l'été, 3rd (don't)", "ǆ ein"), ("It's NASA's L'été, 3rd (Don't)", "ǅ Ein")),
    (in_title_case, ("«the well-known <i>tag</i>'s <b>x</b>y {0}s", "я"),
                    ("«The Well-known <i>Tag</i>'s <b>X</b>y {0}s", "Я")),
    (in_lower_case, ("Hello NASA, ΟΔΟΣ <B>x</B>", "Hallo NASA"), ("hello nasa, οδος <B>x</B>", "Hallo NASA")),
]  # fmt: skip


@pytest.mark.parametrize(("change", "before", "after"), CASED)
def test_case_is_unicodes_on_both_sides_and_scripts_without_case_and_markup_stay(
    change: Callable[[tuple[str, str]], tuple[str, str]], before: tuple[str, str], after: tuple[str, str]
) -> None:
    assert change(before) == after
    assert change(after) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("One. Two!", "Eins. Zwei."), ("One. Two", "Eins. Zwei")),
        (("Really ?!", "Wirklich …"), ("Really", "Wirklich")),
        (("你好。", "नमस्ते।"), ("你好", "नमस्ते")),
        (("Well, how are you?", "Bueno, ¿qué tal?"), ("Well, how are you", "Bueno, qué tal")),
        (("One.", "Eins"), ("One.", "Eins")),
        (("...", "Ja."), ("...", "Ja.")),
        (('He said "go."', "Er sagte: „Geh.“"), ('He said "go."', "Er sagte: „Geh.“")),
    ],
)
def test_final_punctuation_goes_from_both_sides_or_from_neither(
    before: tuple[str, str], after: tuple[str, str]
) -> None:
    assert without_final_punctuation(before) == after


def test_a_typo_is_one_slip_within_a_word_and_the_rest_stays() -> None:
    noise = Noise(Rates(typos=1.0), "en")
    text = "Perhaps 300km R2D2 of {name} <b>bold</b> http://example.org/path me@example.org 我爱你们 naïveté"
    seen = set()
    for seed in range(200):
        typed = noise.with_typos(text, draw(seed))
        first, *middle, bold, url, mail, chinese, last = typed.split(" ")
        assert middle == ["300km", "R2D2", "of", "{name}"]
        assert (url, mail, chinese) == ("http://example.org/path", "me@example.org", "我爱你们")
        assert bold.startswith("<b>")
        assert bold.endswith("</b>")
        for word, slip in (("Perhaps", first), ("bold", bold[3:-4]), ("naïveté", last)):
            assert slip != word
            assert abs(len(slip) - len(word)) <= 1
            assert is_a_slip(word, slip), (word, slip)
        seen.add(first)
    assert {"Prehaps", "Prhaps", "Peerhaps"} <= seen
    assert {"Perjaps", "Oerhaps"} & seen


def is_a_slip(word: str, slip: str) -> bool:
    """Whether one letter is left out, put in or replaced, or two are swapped."""
    begin = next((n for n, (a, b) in enumerate(zip(word, slip, strict=False)) if a != b), min(len(word), len(slip)))
    a, b = word[begin:], slip[begin:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


def test_neighbouring_keys_are_those_of_the_languages_keyboard() -> None:
    near = {language: Noise(Rates(), language)._keys for language in ("en", "de_AT", "fr", "ru", "el")}
    assert sorted(near["en"]["g"]) == sorted("ftyhbv")
    assert "z" in near["de_AT"]["t"]
    assert "z" not in near["en"]["t"]
    assert "a" in near["fr"]["z"]
    assert sorted(near["ru"]["п"]) == sorted("арнеим")
    assert "σ" in near["el"]["α"]


NAMES = (
    "On Monday Anna met 12 dogs in Berlin, see www.x.org/y.",
    "Am Montag traf Anna 12 Hunde in Berlin, siehe www.x.org/y.",
)


def test_placeholders_stand_for_names_numbers_and_addresses_on_both_sides() -> None:
    words = set()
    for seed in range(100):
        source, target = with_placeholders(NAMES, draw(seed))
        words_of = (re.findall(r"<.*?>|[^ ,]*[^ ,.]", text) for text in (NAMES[0], source))
        gone = [(old, new) for old, new in zip(*words_of, strict=True) if old != new]
        assert 1 <= len(gone) <= 3
        for old, new in gone:
            assert (source.count(new), target.count(new), source.count(old), target.count(old)) == (1, 1, 0, 0)
            target = target.replace(new, old)
        assert target == NAMES[1]
        words |= {old for old, _ in gone}
    assert words == {"Anna", "12", "Berlin", "www.x.org/y"}


def test_with_no_place_of_its_own_a_placeholder_is_at_an_end_of_both_lines() -> None:
    """In and It may be translations of each other, Anna stands twice, 12-mal is another word than 12."""
    pairs = [("In a hand, Anna, Anna", "In einer Hand Anna"), ("It is so. It 12", "It so. It 12-mal"), ("in", "in")]
    for pair in pairs:
        begun = 0
        for seed in range(20):
            source, target = with_placeholders(pair, draw(seed))
            mark = source.replace(pair[0], "")
            first = source.endswith(pair[0])
            assert mark.strip()
            assert (source, target) == tuple(mark + line if first else line + mark for line in pair)
            begun += first
        assert 0 < begun < 20


def test_tags_stand_around_the_same_words_or_around_everything() -> None:
    wrapped = set()
    for seed in range(100):
        source, target = with_tags(NAMES, draw(seed))
        inside = []
        for text, plain in zip((source, target), NAMES, strict=True):
            parts = text.replace("</", "<").replace(">", "<").split("<")
            assert "".join(parts[::2]) == plain
            inside.append(sorted(parts[2::4]))
        assert inside[0] == inside[1] or inside == [[NAMES[0]], [NAMES[1]]]
        wrapped |= set(inside[0])
    assert wrapped == {"Anna", "12", "Berlin", "www.x.org/y", NAMES[0]}


def test_nothing_comes_before_the_tag_of_a_corpus_and_no_noise_changes_it() -> None:
    every = Noise(Rates(lower=1.0, typos=1.0, placeholders=1.0, tags=1.0), "en")
    for seed in range(50):
        source, target = every(("<2DE> <Back> Some quiet people.", "Einige stille Leute."), draw(seed))
        assert source.startswith("<2DE> <Back> ")
        assert not target.startswith("<2DE>")


def test_marks_that_are_there_already_are_not_used_again() -> None:
    for seed in range(100):
        source, target = with_placeholders(("{0} {1} %s", "%s {0} {1}"), draw(seed))
        for mark in ("{0}", "{1}", "%s"):
            assert source.count(mark) == target.count(mark) == 1


TEXT = st.text(st.characters(codec="utf-8"), max_size=40).map(one_line).filter(bool)
CORNERS = (
    st.text(st.sampled_from("aZßİıΣςŉǆ.!?¿ 1{}<>%$@#&;:/…\u0301\u0345न्我ა"), max_size=30).map(one_line).filter(bool)
)


@settings(max_examples=300, deadline=None)
@given(source=TEXT | CORNERS, target=TEXT | CORNERS, seed=st.integers())
def test_whatever_the_text_two_lines_stay_two_lines_with_something_in_them(source: str, target: str, seed: int) -> None:
    noisy = Noise(ALL, "en")((source, target), draw(seed))
    assert noisy == Noise(ALL, "en")((source, target), draw(seed))
    for line in noisy:
        assert "\n" not in line
        assert one_line(line)
    assert Noise(Rates(), "en")((source, target), draw(seed)) == (source, target)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_hits_as_often_as_it_is_asked_to(kind: str) -> None:
    pair = "Some quiet people walked home.", "Einige stille Leute gingen heim."
    noise, count, rate = Noise(Rates(**{kind: 0.1}), "en"), 4000, 0.1
    hits = 0
    for seed in range(count):
        noisy = noise(pair, draw(seed))
        if kind == "typos":
            assert noisy[1] == pair[1]
            hits += sum(a != b for a, b in zip(pair[0].split(), noisy[0].split(), strict=True))
        else:
            hits += noisy != pair
    tried = count * (5 if kind == "typos" else 1)
    assert abs(hits - tried * rate) < 4.5 * sqrt(tried * rate * (1 - rate))


def test_a_pair_is_in_one_case_at_most_and_other_noise_does_not_change_which_pairs_are_hit() -> None:
    pair = "A Dog barks.", "Ein Hund bellt."
    cased = Noise(Rates(upper=0.25, title=0.25, lower=0.25), "en")
    also = Noise(Rates(upper=0.25, title=0.25, lower=0.25, no_final_punctuation=1.0), "en")
    seen = []
    for seed in range(200):
        noisy = cased(pair, draw(seed))
        seen.append([in_capitals(pair), in_title_case(pair), in_lower_case(pair), pair].index(noisy))
        assert also(pair, draw(seed)) == tuple(line.rstrip(".") for line in noisy)
    assert min(seen.count(kind) for kind in range(4)) > 25


def test_shares_that_exceed_all_pairs_are_a_mistake_of_the_recipe() -> None:
    with pytest.raises(
        RecipeError, match=r"train\.noise\.lower: must be at most 1 less .*\(0\.9 together\), found 0\.2"
    ):
        recipes.loads(RECIPE, overrides=["train.noise.upper=0.5", "train.noise.title=0.4", "train.noise.lower=0.2"])
    recipes.loads(RECIPE, overrides=["train.noise.upper=0.7", "train.noise.title=0.1", "train.noise.lower=0.2"])


# What it does to updates

SOURCES = [
    f"{a} {b} sees Anna's {n} dogs, {c}."
    for n, a in enumerate(("The", "This"))
    for b in ("man", "woman")
    for c in ("ok", "no")
]
TARGETS = [
    f"{a} {b} sieht Annas {n} Hunde, {c}."
    for n, a in enumerate(("Der", "Dieser"))
    for b in ("Mann", "Mensch")
    for c in ("ok", "no")
]
TOKENIZER = Tokenizer(train_tokenizer(SOURCES + TARGETS, 340))
RECIPE = """
run: run
data: {source: en, target: de, train: train, valid: valid}
tokenizer: {vocab_size: 340}
"""
NOISY = [f"train.noise.{kind}={rate}" for kind, rate in ALL.model_dump().items()]


class Stored:
    """Stands for the shards. Every third pair is stored cut into letters, which the tokenizer would not do."""

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sides = TOKENIZER.encode([SOURCES[index], TARGETS[index]])
        if index % 3 == 0:
            sides = TOKENIZER.resample(sides, 1.0, 1)
        source, target = (np.array(side, np.uint16) for side in sides)
        return source, target


def segmented(step: int, pairs: list[int], *changes: str) -> Segmented:
    recipe = recipes.loads(RECIPE, overrides=changes)
    segmenter = Segmenter(Stored(), Tokenizers(TOKENIZER, TOKENIZER), recipe)  # type: ignore[arg-type]
    return segmenter.update(step, np.array(pairs))


def as_lists(found: Segmented) -> list[tuple[list[int], list[int]]]:
    return [(source.tolist(), target.tolist()) for source, target in found.pairs]


def stored(pairs: list[int]) -> list[tuple[list[int], list[int]]]:
    return as_lists(Segmented([Stored().pair(i) for i in pairs]))


def test_the_noise_of_a_pair_is_a_function_of_seed_step_and_pair_whatever_its_neighbours() -> None:
    pairs = list(range(len(SOURCES)))
    first = as_lists(segmented(1, pairs, *NOISY))
    assert first != stored(pairs)
    assert as_lists(segmented(1, pairs, *NOISY)) == first
    assert as_lists(segmented(2, pairs, *NOISY)) != first
    assert as_lists(segmented(1, pairs, *NOISY, "seed=2")) != first
    assert as_lists(segmented(1, pairs[::-1], *NOISY)) == first[::-1]
    assert [as_lists(segmented(1, [i], *NOISY))[0] for i in pairs] == first


def test_a_line_without_noise_keeps_its_stored_ids_and_one_with_noise_is_its_text() -> None:
    pairs = list(range(len(SOURCES)))
    noise = Noise(Rates(typos=0.02, upper=0.2), "en")
    touched = 0
    for step in range(1, 20):
        found = as_lists(segmented(step, pairs, "train.noise.typos=0.02", "train.noise.upper=0.2"))
        for i, new, old in zip(pairs, found, stored(pairs), strict=True):
            text = noise((SOURCES[i], TARGETS[i]), draw(f"1 {step} {i}"))
            for before, after, ids, before_ids in zip((SOURCES[i], TARGETS[i]), text, new, old, strict=True):
                assert ids == (before_ids if before == after else TOKENIZER.encode([after])[0])
                touched += before != after
    assert 20 < touched < 200


def test_without_noise_nothing_changes_with_dropout_or_without() -> None:
    pairs = list(range(len(SOURCES)))
    off = [f"train.noise.{kind}=0.0" for kind in KINDS]
    assert as_lists(segmented(1, pairs, *off)) == stored(pairs)
    dropped = as_lists(segmented(3, pairs, "train.bpe_dropout=0.3", *off))
    seeds = (int(np.random.default_rng([1, 3, side]).integers(2**32 - 1)) for side in range(2))
    sides = zip(*stored(pairs), strict=True)
    resampled = [TOKENIZER.resample(side, 0.3, seed) for side, seed in zip(sides, seeds, strict=True)]
    assert dropped == list(zip(*resampled, strict=True))


def test_dropout_cuts_noisy_text_anew() -> None:
    pairs = list(range(len(SOURCES)))
    noisy, both = segmented(1, pairs, *NOISY), segmented(1, pairs, *NOISY, "train.bpe_dropout=0.5")
    for one, other in zip(noisy.pairs, both.pairs, strict=True):
        assert TOKENIZER.decode(one) == TOKENIZER.decode(other)
    assert as_lists(noisy) != as_lists(both)


def test_a_pair_that_noise_would_make_too_long_stays_as_it_is_stored() -> None:
    pairs = list(range(len(SOURCES)))
    plain = stored(pairs)
    anew = [TOKENIZER.encode(in_capitals((SOURCES[i], TARGETS[i]))) for i in pairs]
    longest = sorted(max(map(len, sides)) for sides in anew)[len(anew) // 2]
    found = as_lists(segmented(1, pairs, "train.noise.upper=1.0", f"data.max_length={longest}"))
    fit = [max(map(len, sides)) <= longest for sides in anew]
    assert found == [tuple(new) if fits else old for new, old, fits in zip(anew, plain, fit, strict=True)]
    assert 0 < sum(fit) < len(pairs)
