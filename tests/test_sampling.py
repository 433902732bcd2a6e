"""Samples have the model's own frequencies, and follow from the sentence and the seed alone; an ensemble is a mean."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from test_search import LONGEST, SOURCES, VOCABULARY, WORDS, every_output, log_p, search
from torch import Tensor

from nmt.errors import NmtError
from nmt.ids import BOS, EOS, PAD, UNK
from nmt.model.cache import Decoding
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.recipe import Model
from nmt.search import Ensemble, Hypothesis, Sampling, Settings, Steps, beam_search, sample
from nmt.search.sampling import draw, uniforms

NO_OUTPUT = [PAD, BOS, UNK]


def model_of(seed: int) -> Transformer:
    torch.manual_seed(seed)
    config = Model(layers=1, d_model=16, heads=2, d_ffn=16, dropout=0.0, embeddings="separate")
    model = Transformer(config, VOCABULARY, VOCABULARY).eval()
    with torch.no_grad():
        model.output.weight.mul_(2)
    return model


@pytest.fixture(scope="module")
def model() -> Transformer:
    return model_of(5)


def decoding(model: Transformer, sources: Sequence[Sequence[int]]) -> Decoding:
    stream = torch.tensor([token for source in sources for token in [*source, EOS]])
    return Decoding(model, stream, Cut.of(np.array([len(source) + 1 for source in sources])))


@torch.inference_mode()
def sampled(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    how: Sampling,
    samples: int = 1,
    keys: Sequence[int] | None = None,
    limits: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    keys = range(len(sources)) if keys is None else keys
    return sample(decoding(model, sources), limits or [LONGEST] * len(sources), how, keys, samples)


def exact(model: Transformer, source: Sequence[int], longest: int) -> dict[tuple[int, ...], float]:
    """The probability of each output, where what is no output is left out of each step, and the limit ends all."""
    p = {}
    for output in every_output(longest):
        p[output] = 1.0
        for length in range(len(output) + 1):
            if length < longest:
                said = output[length] if length < len(output) else EOS
                others = torch.tensor([log_of(model, source, output[:length], token) for token in [EOS, *WORDS]])
                p[output] *= float(others.softmax(0)[[EOS, *WORDS].index(said)])
    return p


@torch.inference_mode()
def log_of(model: Transformer, source: Sequence[int], output: Sequence[int], token: int) -> float:
    ids = torch.tensor([*source, EOS]), torch.tensor([BOS, *output])
    states = model(ids[0], Cut.of(np.array([len(ids[0])])), ids[1], Cut.of(np.array([len(ids[1])])))
    return float(model.logits(states)[-1, token])


def chi_square(found: Counter[tuple[int, ...]], p: dict[tuple[int, ...], float]) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; outcomes expected fewer than five times are one."""
    total = found.total()
    rare = [output for output, share in p.items() if share * total < 5]
    cells = [(found[output], share * total) for output, share in p.items() if share * total >= 5]
    cells.append((sum(found[output] for output in rare), sum(p[output] for output in rare) * total))
    cells = [cell for cell in cells if cell[1] > 0]
    return sum((seen - expected) ** 2 / expected for seen, expected in cells), len(cells) - 1


# What is drawn


def test_samples_have_the_frequencies_that_the_model_gives_them(model: Transformer) -> None:
    source, longest, count = SOURCES[0], 3, 20_000
    [drawn] = sampled(model, [source], Sampling(), count, limits=[longest])
    p = exact(model, source, longest)
    assert sum(p.values()) == pytest.approx(1)
    statistic, freedom = chi_square(Counter(tuple(one.ids) for one in drawn), p)
    assert freedom > 15
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)  # by chance once in ten thousand seeds


@pytest.mark.parametrize("how", [Sampling(temperature=0.5), Sampling(top_k=2), Sampling(top_p=0.7)])
def test_tokens_have_the_frequencies_of_a_plain_reference(how: Sampling) -> None:
    count = 20_000
    logits = torch.tensor([0.1, 2.0, -1.0, 0.5, 1.5])
    chance = torch.from_numpy(uniforms([3], count, 0))[0]
    tokens = draw(logits.repeat(count, 1), chance, how)
    statistic, freedom = chi_square(Counter((int(token),) for token in tokens), plainly(logits, how))
    assert statistic < freedom + 4 * math.sqrt(2 * max(freedom, 1))


def plainly(logits: Tensor, how: Sampling) -> dict[tuple[int, ...], float]:
    """The distribution that `how` asks for, token by token in plain Python."""
    weights = {token: math.exp(float(logit) / how.temperature) for token, logit in enumerate(logits)}
    order = sorted(weights, key=lambda token: -weights[token])[: how.top_k or None]
    total, kept, mass = sum(weights[token] for token in order), [], 0.0
    for token in order:
        if mass < how.top_p:
            kept.append(token)
        mass += weights[token] / total
    return {(token,): weights[token] / sum(weights[one] for one in kept) for token in kept}


@pytest.mark.parametrize(("top_k", "top_p"), [(1, 1.0), (3, 1.0), (0, 0.5), (0, 0.95), (4, 0.8), (99, 1.0), (0, 1e-9)])
def test_only_the_likeliest_are_drawn_and_all_of_them(top_k: int, top_p: float) -> None:
    generator = torch.Generator().manual_seed(top_k)
    for logits in torch.randn(20, 12, generator=generator):
        how = Sampling(top_k=top_k, top_p=top_p)
        ends = torch.linspace(0, 1 - 2**-52, 5_000, dtype=torch.double)
        assert {(int(token),) for token in draw(logits.repeat(5_000, 1), ends, how)} == plainly(logits, how).keys()


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999999, 1.0 - 1e-12])
def test_the_fewest_are_found_however_many_they_are(monkeypatch: pytest.MonkeyPatch, top_p: float) -> None:
    logits = torch.randn(30, 700, generator=torch.Generator().manual_seed(8)) * torch.linspace(0.1, 9, 30)[:, None]
    chance = torch.from_numpy(uniforms(range(30), 1, 0)[:, 0])
    drawn = set()
    for width in (1, 40, 256, 10_000):
        monkeypatch.setattr("nmt.search.sampling.NUCLEUS", width)
        together = draw(logits, chance, Sampling(top_p=top_p)).tolist()
        assert [int(draw(logits[i : i + 1], chance[i : i + 1], Sampling(top_p=top_p))) for i in range(30)] == together
        drawn.add(tuple(together))
    assert len(drawn) == 1


def test_what_has_no_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    for chance in (0.0, 0.5, 1 - 2**-52):
        assert int(draw(logits, torch.tensor([chance], dtype=torch.double), Sampling())) in (1, 3)


@pytest.mark.parametrize("temperature", [0.0, 1e-3, 1e-45])
def test_temperature_towards_0_is_greedy_search(model: Transformer, temperature: float) -> None:
    greedy = search(model, SOURCES, Settings(beam=1))
    cold = sampled(model, SOURCES, Sampling(temperature=temperature))
    assert [best.ids for (best,) in cold] == [best.ids for (best,) in greedy]


def test_the_score_of_a_sample_is_the_teacher_forced_log_p(model: Transformer) -> None:
    how = Sampling(temperature=1.5, top_k=3, top_p=0.9)
    for source, drawn in zip(SOURCES, sampled(model, SOURCES, how, samples=5), strict=True):
        for one in drawn:
            assert one.score == one.log_p == pytest.approx(log_p(model, source, one.ids), abs=1e-4)
            assert not set(one.ids) & {*NO_OUTPUT, EOS}


def test_no_sample_is_longer_than_its_limit(model: Transformer) -> None:
    for limit, drawn in zip([0, 2, 9], sampled(model, SOURCES, Sampling(), 50, limits=[0, 2, 9]), strict=True):
        assert all(len(one.ids) <= limit for one in drawn)
        assert limit == 0 or any(len(one.ids) == limit for one in drawn)


# What it follows from


@pytest.mark.parametrize("how", [Sampling(), Sampling(temperature=0.7, top_k=3), Sampling(top_p=0.8)])
def test_neighbours_order_and_number_of_samples_change_no_sample(model: Transformer, how: Sampling) -> None:
    generator = np.random.default_rng(1)
    sources = [generator.choice(WORDS, generator.integers(1, 12)).tolist() for _ in range(64)]
    limits = [len(source) + 8 for source in sources]
    keys = [7 * number for number in range(64)]
    together = sampled(model, sources, how, 3, keys, limits)
    backwards = sampled(model, sources[::-1], how, 3, keys[::-1], limits[::-1])[::-1]
    assert [[one.ids for one in drawn] for drawn in backwards] == [[one.ids for one in drawn] for drawn in together]
    for source, key, limit, drawn in zip(sources, keys, limits, together, strict=True):
        for samples in (1, 2, 3):
            [by_itself] = sampled(model, [source], how, samples, [key], [limit])
            assert [one.ids for one in by_itself] == [one.ids for one in drawn[:samples]]


def test_numbers_are_the_same_everywhere_and_differ_with_key_sample_and_step() -> None:
    assert uniforms([0, 2**64 - 1], 2, 0).tolist() == KNOWN
    drawn = np.concatenate([uniforms(range(100), 10, step).ravel() for step in range(10)])
    assert len(np.unique(drawn)) == len(drawn) == 10_000
    assert drawn.min() >= 0
    assert drawn.max() < 1
    cells = Counter((int(at),) for at in drawn * 100)
    statistic, freedom = chi_square(cells, {(cell,): 0.01 for cell in range(100)})
    assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)


def test_a_stream_is_splitmix64() -> None:
    """The first numbers of its authors' program from the seed 1234567, as many ports of it have them in their tests."""
    from nmt.search.sampling import _mixed, _places

    with np.errstate(over="ignore"):
        numbers = _mixed(np.array([1234567], np.uint64) + _places(0, 3))
    assert numbers.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


KNOWN = [[0.6524484863740321, 0.2762335822778945], [0.3662420901697574, 0.49717172900533013]]


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", -1.0), ("temperature", math.inf), ("temperature", math.nan), ("top_k", -1), ("top_p", 0.0),
     ("top_p", 1.1), ("seed", -1), ("seed", 2**32)],
)  # fmt: skip
def test_a_number_out_of_bounds_is_told(key: str, value: float) -> None:
    with pytest.raises(NmtError, match=f"^{key}: must be .*found {value}$"):
        Sampling(**{key: value})  # type: ignore[arg-type]


# Ensembles


def several(models: Sequence[Transformer], sources: Sequence[Sequence[int]]) -> Steps:
    return Ensemble.of([decoding(model, sources) for model in models])


@torch.inference_mode()
def searched(models: Sequence[Transformer], settings: Settings) -> list[list[Hypothesis]]:
    return beam_search(several(models, SOURCES), [LONGEST] * len(SOURCES), settings)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_ensemble_of_a_model_with_itself_says_what_the_model_says(model: Transformer, count: int) -> None:
    alone = search(model, SOURCES, Settings(beam=4, n_best=4))
    for found, wanted in zip(searched([model] * count, Settings(beam=4, n_best=4)), alone, strict=True):
        assert [one.ids for one in found] == [one.ids for one in wanted]
        assert [one.score for one in found] == pytest.approx([one.score for one in wanted], abs=1e-5)


def test_the_probability_of_an_ensemble_is_the_mean_of_its_members_probabilities(model: Transformer) -> None:
    models = [model, model_of(6), model_of(7)]
    settings = Settings(beam=200, length_penalty=0.0, n_best=20)
    for source, found in zip(SOURCES, searched(models, settings), strict=True):
        p = {output: mean_log_p(models, source, output) for output in every_output(LONGEST)}
        best = sorted(p.values(), reverse=True)
        assert [one.log_p for one in found] == pytest.approx(best[:20], abs=1e-4)
        assert all(one.log_p == pytest.approx(p[tuple(one.ids)], abs=1e-4) for one in found)


def mean_log_p(models: Sequence[Transformer], source: Sequence[int], output: Sequence[int]) -> float:
    """Token by token, the log of the mean probability."""
    steps = zip(*(token_log_p(model, source, output) for model in models), strict=True)
    return sum(math.log(sum(math.exp(one) for one in step) / len(models)) for step in steps)


@torch.inference_mode()
def token_log_p(model: Transformer, source: Sequence[int], output: Sequence[int]) -> list[float]:
    ids = torch.tensor([*source, EOS]), torch.tensor([BOS, *output])
    states = model(ids[0], Cut.of(np.array([len(ids[0])])), ids[1], Cut.of(np.array([len(ids[1])])))
    said = torch.tensor([*output, EOS])
    return model.logits(states).log_softmax(-1).gather(1, said[:, None])[:, 0].tolist()


def test_the_order_of_an_ensemble_changes_no_output(model: Transformer) -> None:
    models = [model, model_of(6), model_of(7)]
    outputs = {
        tuple(tuple(best.ids) for (best,) in searched(order, Settings(beam=3)))
        for order in itertools.permutations(models)
    }
    assert len(outputs) == 1


def test_a_probability_too_small_to_hold_is_small_and_not_0() -> None:
    class Sure:
        def step(self, tokens: Tensor) -> Tensor:
            return torch.tensor([[0.0, 0.0, -1e4, 0.0, 1e4]])

        def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
            pass

    assert bool(Ensemble([Sure(), Sure()]).step(torch.tensor([BOS])).isfinite().all())
    [[best]] = beam_search(Sure(), [3], Settings(beam=1))
    [[ours]] = beam_search(Ensemble([Sure(), Sure()]), [3], Settings(beam=1))
    assert ours.ids == best.ids == [4, 4, 4]
