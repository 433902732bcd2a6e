"""Beam search finds what exhaustive search finds, and says the score it truly has."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.ids import BOS, EOS, SPECIALS
from nmt.model.cache import Decoding
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.recipe import Model
from nmt.search import Constraint, Hypothesis, Judged, Settings, beam_search

VOCABULARY = 7  # the four special ids and three words
WORDS = range(SPECIALS, VOCABULARY)
SOURCES = [[4, 5, 6], [6], [5, 5, 4, 4, 6]]
LONGEST = 4


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(11)
    config = Model(layers=1, d_model=16, heads=2, d_ffn=16, dropout=0.0, embeddings="separate")
    model = Transformer(config, VOCABULARY, VOCABULARY).eval()
    with torch.no_grad():
        model.output.weight.mul_(3)  # sharper, so that outputs differ in score
        model.output.weight[EOS] += 0.3
    return model


def search(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    settings: Settings,
    limits: Sequence[int] | None = None,
    constraint: Constraint | None = None,
) -> list[list[Hypothesis]]:
    with torch.inference_mode():
        stream = torch.tensor([token for source in sources for token in [*source, EOS]])
        decoding = Decoding(model, stream, Cut.of(np.array([len(source) + 1 for source in sources])))
        return beam_search(decoding, limits or [LONGEST] * len(sources), settings, constraint=constraint)


@torch.inference_mode()
def log_p(model: Transformer, source: Sequence[int], output: Sequence[int]) -> float:
    """log p of an output and its end, by teacher forcing."""
    ids = torch.tensor([*source, EOS]), torch.tensor([BOS, *output])
    states = model(ids[0], Cut.of(np.array([len(ids[0])])), ids[1], Cut.of(np.array([len(ids[1])])))
    said = torch.tensor([*output, EOS])
    return float(model.logits(states).log_softmax(-1).gather(1, said[:, None]).sum())


def every_output(longest: int) -> list[tuple[int, ...]]:
    return [output for length in range(longest + 1) for output in itertools.product(WORDS, repeat=length)]


@pytest.mark.parametrize("form", ["gnmt", "power"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_a_wide_enough_beam_is_exhaustive_search(model: Transformer, alpha: float, form: str) -> None:
    settings = Settings(beam=len(every_output(LONGEST)), length_penalty=alpha, penalty_form=form)
    divisor = {"gnmt": lambda n: ((5 + n) / 6) ** alpha, "power": lambda n: n**alpha}[form]
    for source, found in zip(SOURCES, search(model, SOURCES, settings), strict=True):
        scores = {o: log_p(model, source, o) / divisor(len(o) + 1) for o in every_output(LONGEST)}
        best = max(scores, key=scores.__getitem__)
        assert tuple(found[0].ids) == best
        assert found[0].score == pytest.approx(scores[best], abs=1e-4)


def test_the_n_best_are_the_n_best_of_all(model: Transformer) -> None:
    settings = Settings(beam=len(every_output(LONGEST)), length_penalty=0.6, n_best=10)
    for source, found in zip(SOURCES, search(model, SOURCES, settings), strict=True):
        scores = sorted(
            (log_p(model, source, o) / ((6 + len(o)) / 6) ** 0.6 for o in every_output(LONGEST)), reverse=True
        )
        assert [h.score for h in found] == pytest.approx(scores[:10], abs=1e-4)
        assert len({tuple(h.ids) for h in found}) == 10


@pytest.mark.parametrize("n_best", [1, 2])
def test_the_others_that_have_ended_follow_the_n_best_and_change_none_of_them(model: Transformer, n_best: int) -> None:
    asked = search(model, SOURCES, Settings(beam=5, n_best=n_best))
    found = search(model, SOURCES, Settings(beam=5, n_best=n_best, others=True))
    assert [several[:n_best] for several in found] == asked
    assert any(len(several) > n_best for several in found)
    for several in found:
        assert [h.score for h in several] == sorted((h.score for h in several), reverse=True)
        assert len({tuple(h.ids) for h in several}) == len(several) <= 5


def test_one_beam_is_greedy_search(model: Transformer) -> None:
    for source, found in zip(SOURCES, search(model, SOURCES, Settings(beam=1)), strict=True):
        output: list[int] = []
        with torch.inference_mode():
            while len(output) < LONGEST:
                ids = torch.tensor([*source, EOS]), torch.tensor([BOS, *output])
                states = model(ids[0], Cut.of(np.array([len(ids[0])])), ids[1], Cut.of(np.array([len(ids[1])])))
                allowed = model.logits(states)[-1, [EOS, *WORDS]]
                token = [EOS, *WORDS][int(allowed.argmax())]
                if token == EOS:
                    break
                output.append(token)
        assert found[0].ids == output


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_the_reported_score_is_the_teacher_forced_score(model: Transformer, beam: int) -> None:
    for source, found in zip(SOURCES, search(model, SOURCES, Settings(beam=beam, n_best=beam)), strict=True):
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        for hypothesis in found:
            assert hypothesis.log_p == pytest.approx(log_p(model, source, hypothesis.ids), abs=1e-4)


@pytest.mark.parametrize("beam", [1, 4])
def test_neighbours_in_the_batch_change_nothing(model: Transformer, beam: int) -> None:
    draw = np.random.default_rng(1)
    sources = [draw.choice(WORDS, draw.integers(1, 12)).tolist() for _ in range(64)]
    limits = [len(source) + 8 for source in sources]
    together = search(model, sources, Settings(beam=beam), limits)
    for source, limit, found in zip(sources, limits, together, strict=True):
        [by_itself] = search(model, [source], Settings(beam=beam), [limit])
        assert [h.ids for h in found] == [h.ids for h in by_itself]
        assert [h.score for h in found] == pytest.approx([h.score for h in by_itself], abs=1e-5)


def test_no_output_is_longer_than_its_limit(model: Transformer) -> None:
    limits = [0, 2, 9]
    for limit, found in zip(limits, search(model, SOURCES, Settings(length_penalty=3.0), limits), strict=True):
        assert all(len(h.ids) <= limit for h in found)


class Scripted:
    """A decoding that says what a table of probabilities says, whatever the hypothesis."""

    def __init__(self, table: list[dict[int, float]], rows: int) -> None:
        self.table, self.rows, self.steps = table, rows, 0

    def step(self, tokens: Tensor) -> Tensor:
        logits = torch.full((len(tokens), VOCABULARY), -30.0)
        for token, p in self.table[min(self.steps, len(self.table) - 1)].items():
            logits[:, token] = math.log(p)
        self.steps += 1
        return logits

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
        self.rows = len(rows)


def test_search_ends_once_nothing_can_overtake_the_best() -> None:
    sure = Scripted([{4: 0.98, 5: 0.02}, {EOS: 0.99, 4: 0.01}], 1)
    [[best]] = beam_search(sure, [500], Settings(beam=2, length_penalty=0.6))
    assert best.ids == [4]
    assert sure.steps < 10


def test_search_goes_on_while_a_longer_output_may_still_win() -> None:
    # Ending at once costs log 0.4; each further word is almost free, and the penalty rewards length.
    tempting = Scripted([{EOS: 0.4, 4: 0.6}, {4: 0.999, EOS: 0.001}, {4: 0.999, EOS: 0.001}, {EOS: 0.999, 4: 0.001}], 1)
    [[best]] = beam_search(tempting, [20], Settings(beam=2, length_penalty=1.0))
    assert best.ids == [4, 4, 4]


class Rising:
    """No word may be followed by a lower one, and sentence s ends with the word 4 + s, or not at all."""

    def allowed(self, tokens: NDArray[np.int64], sentences: NDArray[np.int64]) -> NDArray[np.bool_]:
        last = tokens[:, -1] if tokens.shape[1] else np.zeros(len(tokens), np.int64)
        out: NDArray[np.bool_] = np.arange(VOCABULARY) >= last[:, None]
        out[:, EOS] = last == SPECIALS + sentences
        return out


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_wide_enough_beam_is_exhaustive_search_of_what_is_allowed(model: Transformer, alpha: float) -> None:
    settings = Settings(beam=200, length_penalty=alpha, n_best=4)
    found = search(model, SOURCES, settings, constraint=Judged(Rising()))
    for number, (source, best) in enumerate(zip(SOURCES, found, strict=True)):
        allowed = [
            output
            for output in every_output(LONGEST)
            if list(output) == sorted(output) and (len(output) == LONGEST or output[-1:] == (SPECIALS + number,))
        ]  # at the limit it ends, even against the constraint
        scores = sorted((log_p(model, source, y) / settings.penalty(len(y) + 1.0) for y in allowed), reverse=True)
        assert [h.score for h in best] == pytest.approx(scores[:4], abs=1e-4)
        assert {tuple(h.ids) for h in best} <= set(allowed)
