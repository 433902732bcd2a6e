"""Forced decoding gives what the search gives; translations begin as they are told to; what is refused is told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Shell
from test_cli import ONE_BY_ONE, sentences, text, translated

from nmt.recipe import redecide
from nmt.search import Sampling
from nmt.translation import Forced, Translator

DECODE = {"beam": 3, "length_penalty": 0.7}


@pytest.fixture(scope="module")
def translator(trained: Shell) -> Translator:
    return Translator.load(trained.folder / "run/model", "cpu", "fp32")


@pytest.fixture(scope="module")
def lines(trained: Shell) -> list[str]:
    return ["", *sentences(trained, 20), " "]


# What is given is judged


@pytest.mark.parametrize("how", [{}, {"coverage_penalty": 0.3}, {"length_penalty": 0.0}, {"penalty_form": "power"}])
def test_the_score_of_a_translation_is_the_one_it_was_found_with(
    translator: Translator, lines: list[str], how: dict[str, object]
) -> None:
    # What a search says of itself may be cut into other tokens than its text is; what it is made to say is not.
    decode = {**DECODE, **how, "max_ratio": 0, "max_extra": 0}
    references = translator.translate(lines, **DECODE)
    found = [best for (best,) in translator.stream(lines, prefixes=references, **decode)]
    assert [one.text for one in found] == references
    judged = list(translator.score(zip(lines, references, strict=True), **decode))
    assert [one.score for one in judged] == pytest.approx([one.score for one in found], abs=2e-4)
    if how == {"length_penalty": 0.0}:
        assert [one.log_p for one in judged] == [one.score for one in judged]


def test_tokens_count_the_end(translator: Translator, lines: list[str]) -> None:
    judged = list(translator.score((line, line) for line in lines))
    counts = [len(ids) + 1 for ids in translator.tokenizers.target.encode(lines)]
    assert [one.tokens for one in judged] == counts


def test_batches_and_blocks_change_no_judgement(
    translator: Translator, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(one, other) for one in lines for other in (lines[3], "", lines[7])]
    whole = list(translator.score(pairs))
    monkeypatch.setattr("nmt.translation.forcing.BLOCK_NUMBERS", 1)
    monkeypatch.setattr("nmt.translation.translator.WINDOW", 3)
    for size in (1, 5):
        again = list(translator.score(pairs, batch_size=size))
        assert [one.log_p for one in again] == pytest.approx([one.log_p for one in whole], abs=1e-4)


def test_nothing_is_certain_but_that_a_blank_line_stays_blank(translator: Translator) -> None:
    blank, something, silence = translator.score([("", " "), ("", "etwas"), ("something", "")])
    assert blank == Forced(0.0, 1, 0.0)
    assert something.log_p < 0
    assert silence.log_p < 0
    assert silence.tokens == 1


def test_an_ensemble_judges_by_the_mean_probability_of_each_token(trained: Shell, lines: list[str]) -> None:
    folder = trained.folder / "run/model"
    both = Translator.load(folder, "cpu", "fp32", [folder])
    pairs = [(line, lines[2]) for line in lines]
    alone = [one.log_p for one in Translator.load(folder, "cpu", "fp32").score(pairs)]
    assert [one.log_p for one in both.score(pairs)] == pytest.approx(alone, abs=1e-4)
    with torch.no_grad():
        for weight in both.models[1].parameters():
            weight.mul_(1.1)
    found = list(both.stream(lines[1:2], prefixes=[lines[2]], max_ratio=0, max_extra=0, length_penalty=0))
    [judged] = both.score([(lines[1], lines[2])], length_penalty=0)
    assert judged.log_p == pytest.approx(found[0][0].score, abs=2e-4)


def test_score_prints_a_line_for_each_pair_and_a_column_for_each_file(trained: Shell, lines: list[str]) -> None:
    translator = Translator.load(trained.folder / "run/model", "cpu", "fp32")
    texts = {"source": lines, "ours": lines[::-1], "theirs": lines}
    for name, said in texts.items():
        (trained.folder / name).write_bytes(text(said))
    given = ("score", "--model-score", "recipe.yaml", *ONE_BY_ONE)
    table = trained(*given, "--source", "source", "ours", "theirs").lines
    judged = [list(translator.score(zip(lines, texts[name], strict=True))) for name in ("ours", "theirs")]
    assert table == [f"{one.log_p:.4f}\t{other.log_p:.4f}" for one, other in zip(*judged, strict=True)]
    by_token = trained(*given, "--source", "-", "ours", "--normalise", "tokens", stdin=text(lines)).lines
    assert by_token == [f"{one.log_p / one.tokens:.4f}" for one in judged[0]]
    searched = trained(*given, "--source", "source", "-", "--normalise", "search", stdin=text(lines[::-1])).lines
    assert searched == [f"{one.score:.4f}" for one in judged[0]]


def test_what_cannot_be_judged_is_told(trained: Shell, tmp_path: Path) -> None:
    (tmp_path / "three").write_bytes(text(["a", "b", "c"]))
    (tmp_path / "two").write_bytes(text(["a", "b"]))
    given = ("score", "--model-score", "run/model")
    assert "three has 3 lines but " in trained.fails(*given, "--source", tmp_path / "three", tmp_path / "two")
    assert "needs --source FILE" in trained.fails(*given, tmp_path / "two")
    assert "only once" in trained.fails(*given, "--source", "-", tmp_path / "two", tmp_path / "two")
    for idle in ("--tokenize none", "--lowercase", "--show 2", "--beam 3", "--length-penalty 1", "--json"):
        said = trained.fails(*given, "--source", tmp_path / "two", *idle.split(), tmp_path / "two")
        assert said == f"{idle.split()[0]}: nothing to do with --model-score: leave it out"
    assert "go with --model-score" in trained.fails("score", "recipe.yaml", "--source", tmp_path / "two")


# What is begun is gone on with


def test_a_translation_begins_with_its_prefix(trained: Shell, lines: list[str], tmp_path: Path) -> None:
    free = translated(trained, lines)
    prefixes = ["Die", "Das  Haus,", "", "Ein Übergang", "„ß“"] * 5
    (tmp_path / "prefixes").write_bytes(text(prefixes[: len(lines)]))
    forced = translated(trained, lines, "--prefix", tmp_path / "prefixes", "--batch-size", 3)
    for line, prefix, without, found in zip(lines, prefixes, free, forced, strict=False):
        assert found.startswith(" ".join(prefix.split()) if line.strip() else "")
        assert prefix or found == without
        assert line.strip() or found == ""
    assert forced != free


def test_samples_and_several_translations_begin_with_the_prefix_too(translator: Translator, lines: list[str]) -> None:
    for how in ({"sampling": Sampling()}, {"beam": 4, "groups": 2}):
        for several in list(translator.stream(lines[1:4], 4, prefixes=["Das ist"] * 3, **how)):
            assert all(one.text.startswith("Das ist") for one in several)


def test_prefixes_that_are_not_as_many_as_lines_are_told(trained: Shell, tmp_path: Path) -> None:
    (tmp_path / "two").write_bytes(text(["Die", ""]))
    asked = ("translate", "run/model", "--prefix", tmp_path / "two")
    assert "line 3 has no prefix" in trained.fails(*asked, stdin=text(["a", "b", "c"]))
    assert "there are more prefixes than the 1 lines" in trained.fails(*asked, stdin=text(["a"]))
    assert "only once" in trained.fails("translate", "run/model", "--prefix", "-", stdin=text(["a"]))


# The other keys of `decode`


def test_the_limit_is_a_share_of_the_source_and_more(translator: Translator, lines: list[str]) -> None:
    decode = redecide(translator._decode, max_ratio=0.5, max_extra=3)
    assert [decode.limit(tokens) for tokens in (0, 1, 10)] == [3, 3, 8]
    for line, found in zip(lines, translator.translate(lines, min_length=99, max_ratio=0, max_extra=7), strict=True):
        assert len(translator.tokenizers.target.encode([found])[0]) <= (7 if line.strip() else 0)


def test_options_of_the_command_are_keys_of_the_recipe(
    trained: Shell, translator: Translator, lines: list[str]
) -> None:
    how = {"min_length": 12, "no_repeat_ngram": 2, "groups": 2, "diversity": 0.9, "coverage_penalty": 0.2}
    options = [part for name, value in how.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert translated(trained, lines, *options) == translator.translate(lines, **how)
    assert "decode.groups: must divide decode.beam (4), found 3" in trained.fails(
        "translate", "run/model", "--groups", 3, stdin=text(["a"])
    )


def test_an_engine_finds_with_every_choice_what_the_plain_one_finds(
    trained: Shell, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hows: list[dict[str, Any]] = [
        {"min_length": 9, "no_repeat_ngram": 2},
        {"beam": 6, "groups": 3, "n_best": 6},
        {"prefixes": ["Das ist"] * len(lines), "beam": 1},
        {"sampling": Sampling(epsilon=0.05), "n_best": 3, "min_length": 4},
        {"coverage_penalty": 0.2, "groups": 2},
    ]

    def found() -> list[list[list[str]]]:
        translator = Translator.load(trained.folder / "run/model", "cpu", "fp32")
        return [[[one.text for one in several] for several in translator.stream(lines, **how)] for how in hows]

    engine = found()
    monkeypatch.setattr("nmt.translation.translator.why_plain", lambda config: "a test")
    assert found() == engine
