"""Minimum Bayes risk takes the sample that the others are most like, by sacreBLEU's chrF; ε-sampling cuts the tail."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from commands import Shell
from sacrebleu.metrics import CHRF
from test_cli import sentences, text, translated

from nmt.search import Sampling
from nmt.search.sampling import draw
from nmt.translation import Translation, least_risk
from nmt.translation.mbr import BLOCK, chrf_matrix

ODD = [
    "",
    " ",
    "a",
    "ab",
    "ab ab",
    "aaaaaaaaaaaaaaaa",
    "aaa aaa aaa",
    "Ein Hund bellt.",
    "Ein  Hund bellt .",
    "日本語",
    "é",
]


def sacrebleu_s(texts: Sequence[str]) -> list[list[float]]:
    return [[CHRF().sentence_score(one, [other]).score for other in texts] for one in texts]


def made_up(count: int, seed: int) -> list[str]:
    """Sentences of few words, so that they share much."""
    draw = random.Random(seed)
    words = ["der", "die", "hund", "hunde", "bellt", "bellen", "laut", "lauter", "und", "."]
    return [" ".join(draw.choices(words, k=draw.randrange(1, 9))) for _ in range(count)]


@pytest.mark.parametrize("texts", [ODD, made_up(25, 1), made_up(6, 2), ["a"], ["", ""]])
def test_chrf_is_that_of_sacrebleu(texts: list[str]) -> None:
    assert chrf_matrix(texts) == pytest.approx(np.array(sacrebleu_s(texts)), abs=1e-9)


def test_the_size_of_a_block_changes_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = made_up(25, 3)
    whole = chrf_matrix(texts)
    monkeypatch.setattr("nmt.translation.mbr.BLOCK", 7)
    assert BLOCK > 7
    assert chrf_matrix(texts) == pytest.approx(whole, abs=1e-12)


def plainly(texts: Sequence[str]) -> list[float]:
    """Of each sample the mean chrF against the others, samples that are alike counted each."""
    scores = sacrebleu_s(texts)
    return [(sum(row) - row[i]) / (len(texts) - 1) for i, row in enumerate(scores)]


@pytest.mark.parametrize("seed", range(5))
def test_the_best_is_what_the_others_are_most_like(seed: int) -> None:
    texts = made_up(20, seed)
    texts = [*texts, *texts[:5], texts[0], ""]  # some are drawn more than once
    expected = plainly(texts)
    best = least_risk([Translation(each, -1.0) for each in texts], 4)
    assert best[0].text == texts[int(np.argmax(np.array(expected) - 1e-9 * np.arange(len(texts))))]
    assert [one.score for one in best] == pytest.approx([expected[texts.index(one.text)] for one in best])
    assert len({one.text for one in best}) == 4
    taken = {one.text for one in best}
    others = [score for score, one in zip(expected, texts, strict=True) if one not in taken]
    assert [one.score for one in best] == sorted((one.score for one in best), reverse=True)
    assert best[-1].score >= max(others)


def test_of_two_alike_the_first_is_taken_and_one_alone_is_itself() -> None:
    several = [Translation("a b", -3.0, ((0, 0),)), Translation("a b", -3.0, ((1, 1),)), Translation("c", -1.0)]
    assert least_risk(several) == [Translation("a b", 50.0, ((0, 0),))]
    assert least_risk(several[2:]) == several[2:]


def test_mbr_on_the_command_line_takes_the_best_of_the_samples(trained: Shell) -> None:
    lines = [sentences(trained, 1)[0], "", *sentences(trained, 3)[1:]]
    how = ("--epsilon", 0.02, "--seed", 5)
    rows = [row.split(" ||| ") for row in translated(trained, lines, "--sample", "--n-best", 8, *how)]
    drawn = [[row[1] for row in rows if row[0] == str(number)] for number in range(len(lines))]
    assert [len(each) for each in drawn] == [8, 1, 8, 8]
    best = [least_risk([Translation(one, 0.0) for one in each])[0].text for each in drawn]
    assert translated(trained, lines, "--mbr", 8, "--seed", 5) == best
    assert translated(trained, lines, "--mbr", 8, *how, "--batch-size", 1) == best
    several = [row.split(" ||| ") for row in translated(trained, lines, "--mbr", 8, "--n-best", 2, *how)]
    assert several[0][1] == best[0]


def test_more_translations_than_samples_are_refused(trained: Shell) -> None:
    said = trained.fails("translate", "run/model", "--mbr", 4, "--n-best", 5, stdin=text(["a"]))
    assert said.endswith("--mbr 5 draws as many")


@pytest.mark.parametrize(
    ("drawing", "search"),
    [("--mbr 4", "--beam 8"), ("--sample", "--length-penalty 0.6"), ("--sample", "--coverage-penalty 0.2"),
     ("--sample", "--groups 2"), ("--mbr 4", "--diversity 1")],
)  # fmt: skip
def test_what_says_how_to_search_is_refused_where_translations_are_drawn(
    trained: Shell, drawing: str, search: str
) -> None:
    said = trained.fails("translate", "run/model", *drawing.split(), *search.split(), stdin=text(["a"]))
    assert said == f"{search.split()[0]} says how to search, and translations are drawn: leave it out"


def test_what_bounds_an_output_holds_for_what_is_drawn_too(trained: Shell) -> None:
    lines = sentences(trained, 4)
    short = translated(trained, lines, "--sample", "--max-ratio", 0, "--max-extra", 2)
    assert short != translated(trained, lines, "--sample")


# ε-sampling


@pytest.mark.parametrize(
    ("how", "kept"),
    [(Sampling(epsilon=0.1), {1, 3, 4}), (Sampling(epsilon=0.31), {1}), (Sampling(epsilon=0.99), {1}),
     (Sampling(epsilon=0.1, temperature=0.5), {1, 4}), (Sampling(epsilon=0.1, top_p=0.6), {1, 4}),
     (Sampling(epsilon=0.35, top_k=2), {1, 4}), (Sampling(epsilon=1e-12), {0, 1, 2, 3, 4})],
)  # fmt: skip
def test_only_tokens_of_so_much_probability_are_drawn(how: Sampling, kept: set[int]) -> None:
    p = torch.tensor([0.05, 0.5, 0.04, 0.11, 0.3])
    ends = torch.linspace(0, 1 - 2**-52, 5_000, dtype=torch.double)
    drawn = draw(p.log().repeat(5_000, 1), ends, how)
    assert set(drawn.tolist()) == kept
    weights = {token: float(p[token]) ** (1 / how.temperature) for token in kept}
    for token, count in zip(*(part.tolist() for part in drawn.unique(return_counts=True)), strict=True):
        assert count / 5_000 == pytest.approx(weights[token] / sum(weights.values()), abs=1e-3)


def test_an_epsilon_out_of_bounds_is_told() -> None:
    for epsilon in (-0.1, 1.0, math.nan):
        with pytest.raises(Exception, match="epsilon: must be 0, which is no bound, or more, and below 1"):
            Sampling(epsilon=epsilon)
