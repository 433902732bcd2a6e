"""What looks wrong is found and what is right is left alone; other hypotheses, or sentences apart, take its place."""

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Shell
from hypothesis import given
from hypothesis import strategies as st

from nmt.data.batches import pack_sources
from nmt.errors import NmtError
from nmt.model.transformer import Transformer
from nmt.recipe import loads
from nmt.search import Hypothesis
from nmt.text import Tokenizer, Tokenizers, one_line, train_tokenizer
from nmt.text.flaws import COPY, EMPTY, LENGTH, LOOP, MARKUP, NUMBERS, flaws
from nmt.translation import Tally, Translation, Translator, translator

SAMPLE = Path(__file__).parent.parent / "data" / "libreoffice"
RECIPE = """
run: run
data: {source: en, target: de, train: train, valid: valid}
tokenizer: {vocab_size: 300}
model: {layers: 1, d_model: 16, heads: 2, d_ffn: 16}
decode: {max_extra: 40}
"""


def wrong(source: str, target: str, tokens: tuple[float, float] = (9, 9)) -> tuple[str, ...]:
    return flaws(one_line(source), one_line(target), tokens)


@pytest.mark.parametrize(
    ("source", "target", "flaw"),
    [
        ("A dog runs.", "", EMPTY),
        ("A dog runs.", " … ", EMPTY),
        ("The dog runs over the grass.", "the dog runs over the grass .", COPY),
        ("I really like it.", "Ich mag mag mag mag es.", LOOP),
        ("He is in the house.", "Er ist in dem Haus in dem Haus in dem Haus.", LOOP),
        ("Strange words.", "Seltsamamamamamam.", LOOP),
        ("Our house.", "我们的我们的我们的我们的我们的", LOOP),
        ("It was in 1954.", "Es war einmal.", NUMBERS),
        ("There are 12 dogs.", "Da sind 14 Hunde.", NUMBERS),
        ("It costs 1,250.50.", "Es kostet 1.205,50.", NUMBERS),
        ("See https://example.org/a?b=c.", "Siehe dort.", MARKUP),
        ("Save <b>this</b> file.", "Speichere diese <b>Datei.", MARKUP),
        ("Save %s as {0}.", "Speichere %s.", MARKUP),
        ("Save %s as %s.", "Speichere %s.", MARKUP),
        ("Write to a.b@example.org.", "Schreib ihm.", MARKUP),
    ],
)
def test_what_is_wrong_is_found(source: str, target: str, flaw: str) -> None:
    assert wrong(source, target) == (flaw,)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("John Ronald Tolkien", "John Ronald Tolkien"),
        ("https://example.org", "https://example.org"),
        ("Very, very, very good!", "Sehr, sehr, sehr gut!"),
        ("Ha ha ha ha ha!", "Ha ha ha ha ha!"),
        ("It costs 1,250.50.", "Es kostet 1 250,50."),
        ("On 05.03.2020 at 4:30", "Am 3/5/2020 um 16:30"),
        ("At 5 p.m.", "Um 17 Uhr"),
        ("For 2.00 euros", "Für 2 Euro"),
        ("5,000 people and 7 dogs", "Fünftausend Leute und sieben Hunde"),
        ("In ١٩٥٤", "1954"),
        ("Two of 3", "2 von 3"),
        ("Save %s as {0}.", "{0}: Sichern von %s"),
        ("...", "…"),
        ("", ""),
    ],
)
def test_what_may_be_right_is_left_alone(source: str, target: str) -> None:
    assert wrong(source, target) == ()


@pytest.mark.parametrize(("tokens", "far"), [((1, 8), False), ((1, 12), True), ((30, 9), True), ((30, 20), False)])
def test_lengths_may_differ_more_where_they_are_short(tokens: tuple[int, int], far: bool) -> None:
    assert (wrong("A dog.", "Ein Hund.", tokens) == (LENGTH,)) == far
    assert wrong("A dog.", "Ein Hund.", tokens[::-1]) == wrong("A dog.", "Ein Hund.", tokens)


@given(st.text(st.sampled_from("ab 12.,:<>{}%我@/…e\u0301١"), max_size=60), st.integers(1, 99))
def test_nothing_is_lost_in_a_line_that_stays_as_it_is(line: str, tokens: int) -> None:
    assert set(wrong(line, line, (tokens, tokens))) <= {COPY}


def test_translations_made_by_people_are_hardly_ever_suspected_and_broken_ones_are() -> None:
    sides = [gzip.decompress((SAMPLE / f"test.{side}.gz").read_bytes()).decode().split("\n") for side in ("en", "de")]
    pairs = [(one_line(a), one_line(b)) for a, b in zip(*sides, strict=True) if len(a.split()) > 4]
    assert sum(bool(wrong(*pair)) for pair in pairs) < 0.01 * len(pairs)
    for change in (lambda line: " ".join([line, *line.split()[-2:] * 4]), lambda line: "", lambda line: "."):
        assert sum(bool(wrong(source, change(target))) for source, target in pairs) > 0.99 * len(pairs)


# What is done about it


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Translator]:
    """A translator whose search finds for each line what it is told to, best first; of any other line, `Gut.`."""
    tokenizer = Tokenizer(train_tokenizer(["A dog runs. Ein Hund läuft."], 300, symbols=["<2de>"]))
    recipe, sources = loads(RECIPE), list[str]()
    model = Transformer(recipe.model, tokenizer.vocab_size, tokenizer.vocab_size).eval()

    def packed(ids: Sequence[Sequence[int]]) -> Any:
        sources[:] = tokenizer.decode(ids)
        return pack_sources(ids)

    def make(**found: Sequence[str]) -> Translator:
        told = {key.replace("_", " ") + ".": texts for key, texts in found.items()}

        def search(steps: Any, limits: Any, settings: Any, *_: Any) -> list[list[Hypothesis]]:
            several = [told.get(source.removeprefix("<2de> "), ["Gut."]) for source in sources]
            count = max(settings.beam, settings.n_best) if settings.others else settings.n_best
            return [
                [Hypothesis(tokenizer.encode([text])[0], -n, -float(n)) for n, text in enumerate(texts[:count])]
                for texts in several
            ]

        monkeypatch.setattr(translator, "beam_search", search)
        monkeypatch.setattr(translator, "pack_sources", packed)
        cpu = torch.device("cpu")
        return Translator.of(model, Tokenizers(tokenizer, tokenizer), recipe, cpu, torch.float32)

    return make


def test_the_first_other_hypothesis_without_a_flaw_takes_the_place_of_one_that_has_some(says: Any) -> None:
    found = says(A_dog_runs=["", "ja ja ja ja", "Ein Hund läuft.", "Der Hund läuft."])
    assert list(found.stream(["A dog runs.", "", "It is."])) == [
        [Translation("Ein Hund läuft.", -2.0, (), (EMPTY,), True)],
        [Translation("", 0.0)],
        [Translation("Gut.", 0.0)],
    ]


def test_where_all_have_flaws_that_with_the_fewest_is_taken_and_is_no_better_for_it(says: Any) -> None:
    found = says(A_dog_of_1954=["", "ja ja ja ja 1945", "Ein Hund"])
    [[best]] = found.stream(["A dog of 1954."])
    assert (best.text, best.flaws, best.mended) == ("", (EMPTY,), False)
    found = says(A_dog_of_1954=["ja ja ja ja 1945", "Ein Hund", "Hunde"])
    [[best]] = found.stream(["A dog of 1954."])
    assert (best.text, best.flaws, best.mended) == ("Ein Hund", (LOOP, NUMBERS), False)


def test_a_line_whose_hypotheses_all_look_wrong_is_translated_sentence_by_sentence(says: Any) -> None:
    line = "A dog runs. It is. A cat sits."
    bad = {"A_dog_runs._It_is._A_cat_sits": ["ja ja ja ja"], "A_cat_sits": ["nein nein nein nein", "Eine Katze sitzt."]}
    for typed, tag in ((line, "<2de>"), (line, ""), (f"<2de> {line}", "")):
        [[best]] = says(**bad).stream([typed], tag=tag)
        assert (best.text, best.flaws, best.mended) == ("Gut. Gut. Eine Katze sitzt.", (LOOP,), True)
    bad["A_cat_sits"] = ["nein nein nein nein"]
    [[best]] = says(**bad).stream([line])
    assert (best.text, best.mended) == ("ja ja ja ja", False)


def test_a_line_with_a_prefix_is_not_translated_sentence_by_sentence(says: Any) -> None:
    found = says(**{"A_dog_runs._It_is": ["ja ja ja ja"]})
    told = [best for (best,) in found.stream(["A dog runs. It is."] * 2, prefixes=["", "ja"])]
    assert [best.text for best in told] == ["Gut. Gut.", "ja ja ja ja"]
    assert [best.mended for best in told] == [True, False]


def test_what_was_cut_off_at_the_most_that_may_be_said_looks_wrong(says: Any) -> None:
    source, long = "a b c d e f g h i j k l m n o p.", "p o n m l k j i h g f e d c b a b c d e f g h i"
    found = says(**{source[:-1].replace(" ", "_"): [long, "Ein Hund läuft auf dem Gras."]})
    [[best]] = found.stream([source])
    assert (best.flaws, best.mended) == ((), False)
    tokens = len(found.tokenizers.target.encode([long])[0]) - len(found.tokenizers.source.encode([source])[0])
    [[best]] = found.stream([source], max_extra=tokens)
    assert (best.text, best.flaws, best.mended) == ("Ein Hund läuft auf dem Gras.", (LENGTH,), True)


def test_warning_changes_nothing_nor_does_asking_for_the_n_best(says: Any) -> None:
    found = says(A_dog_runs=["", "Ein Hund läuft."])
    assert list(found.stream(["A dog runs."], on_suspect="warn")) == [[Translation("", 0.0, (), (EMPTY,))]]
    assert list(found.stream(["A dog runs."], on_suspect="off")) == [[Translation("", 0.0)]]
    assert list(found.stream(["A dog runs."], 2)) == [
        [Translation("", 0.0, (), (EMPTY,)), Translation("Ein Hund läuft.", -1.0)]
    ]


def test_failing_names_the_first_line_that_nothing_mends_after_those_before_it(says: Any) -> None:
    found = says(A_dog_runs=["", "Ein Hund."], A_cat=[""]).stream(
        ["A dog runs.", "It is.", "A cat."], on_suspect="fail", first=11
    )
    assert [next(found)[0].text, next(found)[0].text] == ["Ein Hund.", "Gut."]
    with pytest.raises(NmtError, match=r"^line 13: its translation looks wrong \(empty\)"):
        next(found)


def test_another_word_for_what_to_do_is_told(says: Any) -> None:
    with pytest.raises(NmtError, match="must be retry, warn, fail, off, found mend"):
        next(says().stream([], on_suspect="mend"))


def test_of_a_split_line_only_the_piece_that_looks_wrong_is_mended(
    says: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = says(A_dog_runs=["", "Ein Hund."], It_is=["Es ist."])
    found._longest = 8
    told: list[int] = []
    [[best]] = found.stream(["A dog runs. It is. A dog runs."], done=told.append)
    assert sum(told) == 1
    assert (best.text, best.flaws, best.mended) == ("Ein Hund. Es ist. Ein Hund.", (EMPTY,), True)
    assert "line 1 has " in capsys.readouterr().err


def test_the_counts_say_what_was_wrong_how_much_was_mended_and_where_to_look() -> None:
    tally = Tally(before=1_000)
    looped, mended = Translation("a", 0, (), (LOOP,)), Translation("b", 0, (), (LOOP, NUMBERS), True)
    lines = [[Translation("c", 0)]] * 998 + [[mended], [looped]]
    assert list(tally.over(lines)) == lines
    assert tally.summary == (
        "2 of 1,000 lines looked wrong: a loop 2 (1 mended, first: line 1,999); "
        "numbers lost 1 (1 mended, first: line 1,999)"
    )
    assert Tally().summary == ""


# Commands


def test_translating_tells_the_counts_in_the_end_and_fails_where_it_is_asked_to(trained: Shell) -> None:
    text = b"Save the file 1234567 as %s\n"
    done = trained("translate", "run/model", "--on-suspect", "warn", stdin=text)
    assert done.err.startswith("1 of 1 lines looked wrong: ")
    assert trained("translate", "run/model", "--on-suspect", "off", stdin=text).err == ""
    told = trained.fails("translate", "run/model", "--on-suspect", "fail", stdin=text)
    assert told.startswith("line 1: its translation looks wrong (")


def test_what_is_scored_is_what_the_search_holds_best(trained: Shell) -> None:
    trained("score", "recipe.yaml", "--device", "cpu")
    text = (trained.folder / "test.en").read_bytes()
    plain = trained("translate", "run/model", "--device", "cpu", "--on-suspect", "off", stdin=text)
    assert (trained.folder / "run/translations/held.de").read_bytes() == plain.out
