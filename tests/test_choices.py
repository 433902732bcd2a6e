"""Every choice of the search finds what exhaustive search for the same objective finds, and scores stay the model's."""

import functools
import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from test_search import LONGEST, SOURCES, VOCABULARY, WORDS, Scripted, every_output, log_p, search
from torch import Tensor

from nmt.errors import RecipeError
from nmt.ids import BOS, EOS
from nmt.model.cache import Decoding
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.model.watching import WatchedDecoding, watched
from nmt.recipe import Decode, Model, redecide
from nmt.search import (
    Constraint,
    Ensemble,
    Hypothesis,
    MinLength,
    NoRepeat,
    Sampling,
    Settings,
    beam_search,
    sample,
    together,
)

Ids = Sequence[int]
WIDE = len(every_output(LONGEST))


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(4)
    config = Model(layers=3, d_model=16, heads=2, d_ffn=16, dropout=0.0, embeddings="separate")
    model = Transformer(config, VOCABULARY, VOCABULARY).eval()
    with torch.no_grad():
        model.output.weight.mul_(2)
        for layer in model.decoder.layers:
            layer.cross_attention.inputs.weight.mul_(3)  # so that attention is sharp, and some of the source left out
    return model


Table = list[dict[tuple[int, ...], float]]


@pytest.fixture(scope="module")
def every_log_p(model: Transformer) -> Table:
    """Of each source, log p of each output."""
    return [{y: log_p(model, source, y) for y in every_output(LONGEST)} for source in SOURCES]


@torch.inference_mode()
def decoding(model: Transformer, sources: Sequence[Ids] = SOURCES, kind: type[Decoding] = Decoding) -> Decoding:
    stream = torch.tensor([token for source in sources for token in [*source, EOS]])
    return kind(model, stream, Cut.of(np.array([len(source) + 1 for source in sources])))


def ids_of(found: Sequence[Hypothesis]) -> list[Ids]:
    return [hypothesis.ids for hypothesis in found]


# What may be said


def repeats(output: Ids, size: int) -> bool:
    ngrams = [tuple(output[i : i + size]) for i in range(len(output) - size + 1)]
    return len(set(ngrams)) < len(ngrams)


PREFIXES: list[list[int]] = [[5], [], [6, 6, 4]]


def constraint(shortest: int, size: int, prefixes: Sequence[Ids]) -> Constraint | None:
    constraints: list[Constraint] = [MinLength(shortest)] if shortest else []
    return together([*constraints, *([NoRepeat(size)] if size else [])], prefixes)


@pytest.mark.parametrize("prefixes", [[], PREFIXES])
@pytest.mark.parametrize("size", [0, 1, 2, 3])
@pytest.mark.parametrize("shortest", [0, 3])
def test_a_wide_enough_beam_is_exhaustive_search_of_what_may_be_said(
    model: Transformer, every_log_p: Table, shortest: int, size: int, prefixes: list[Ids]
) -> None:
    settings = Settings(beam=WIDE, length_penalty=0.8, n_best=3)
    found = search(model, SOURCES, settings, constraint=constraint(shortest, size, prefixes))
    for number, best in enumerate(found):
        prefix = tuple(prefixes[number]) if prefixes else ()
        may_be_said = [
            y for y in every_output(LONGEST)
            if len(y) >= shortest and y[: len(prefix)] == prefix and not (size and said_again(y, size, len(prefix)))
        ]  # fmt: skip
        scores = {y: every_log_p[number][y] / settings.penalty(len(y) + 1.0) for y in may_be_said}
        wanted = sorted(scores, key=lambda y: -scores[y])[:3]
        assert [tuple(ids) for ids in ids_of(best)] == wanted
        assert [one.score for one in best] == pytest.approx([scores[y] for y in wanted], abs=1e-4)


def said_again(output: Ids, size: int, forced: int) -> bool:
    """Whether an n-gram that ends after the forced tokens is there before."""
    ends = range(max(size, forced + 1), len(output) + 1)
    return any(output[end - size : end] in [output[i : i + size] for i in range(end - size)] for end in ends)


def test_no_ngram_is_said_twice_in_outputs_of_any_length(model: Transformer) -> None:
    sources = [[4, 5, 6, 4, 5, 6, 4], [5, 4], [6] * 9]
    for size, beam in itertools.product((2, 3), (1, 3)):
        settings = Settings(beam=beam, length_penalty=2.0)
        found = search(model, sources, settings, [25] * 3, constraint(25, size, []))
        assert all(not repeats(best.ids, size) for best, *_ in filter(None, found))
        free = search(model, sources, settings, [25] * 3, constraint(25, 0, []))
        assert all(repeats(best.ids, size) for (best,) in free)


def test_an_output_of_the_least_length_is_not_forbidden(model: Transformer) -> None:
    for number, [best] in enumerate(search(model, SOURCES, Settings(beam=WIDE))):
        again = search(model, SOURCES, Settings(beam=WIDE), constraint=MinLength(len(best.ids)))
        assert again[number][0].ids == best.ids


def test_a_prefix_may_break_the_constraint_on_what_follows_it(model: Transformer) -> None:
    twice = [[4, 4, 4]] * 3
    for (best,) in search(model, SOURCES, Settings(beam=4), constraint=constraint(0, 1, twice)):
        assert best.ids[:3] == [4, 4, 4]
        assert not repeats(best.ids[2:], 1)


def test_an_empty_prefix_changes_nothing(model: Transformer) -> None:
    assert constraint(0, 0, [[], [], []]) is None
    free = search(model, SOURCES, Settings(beam=3))
    some = search(model, SOURCES, Settings(beam=3), constraint=constraint(0, 0, [[], [4], []]))
    assert (some[0], some[2]) == (free[0], free[2])
    assert some[1][0].ids[0] == 4


@pytest.mark.parametrize("prefixes", [[], PREFIXES])
def test_samples_keep_to_the_same_constraints_and_their_score_is_the_models(
    model: Transformer, prefixes: list[Ids]
) -> None:
    limits, may = [7] * 3, constraint(2, 3, prefixes)
    found = sample(decoding(model), limits, Sampling(), range(3), 40, constraint=may)
    for number, (source, drawn) in enumerate(zip(SOURCES, found, strict=True)):
        prefix = prefixes[number] if prefixes else []
        for one in drawn:
            assert len(one.ids) >= 2
            assert one.ids[: len(prefix)] == prefix
            assert not repeats(one.ids, 3)
            assert one.score == pytest.approx(log_p(model, source, one.ids), abs=1e-4)


def test_a_sample_that_may_say_nothing_more_ends(model: Transformer) -> None:
    found = sample(decoding(model), [9] * 3, Sampling(), range(3), 5, constraint=constraint(8, 1, []))
    for source, drawn in zip(SOURCES, found, strict=True):
        for one in drawn:
            assert sorted(one.ids) == list(WORDS)
            assert one.score == pytest.approx(log_p(model, source, one.ids), abs=1e-4)


# Coverage


@torch.inference_mode()
def coverage(model: Transformer, source: Ids, output: Ids, layer: int = 1) -> float:
    """Equation 14's sum of logarithms, by teacher forcing, in plain Python."""
    ids = torch.tensor([*source, EOS]), torch.tensor([BOS, *output])
    with watched(model, ["cross"]) as seen:
        model(ids[0], Cut.of(np.array([len(ids[0])])), ids[1], Cut.of(np.array([len(ids[1])])))
    attention = seen["cross"][layer].mean(0)  # of the heads
    return sum(float(attention[:, i].sum().clamp(max=1).log()) for i in range(len(source)))


@pytest.fixture(scope="module")
def every_coverage(model: Transformer) -> Table:
    """Of each source, how each output covers it."""
    return [{y: coverage(model, source, y) for y in every_output(LONGEST)} for source in SOURCES]


@pytest.mark.parametrize("beta", [0.1, 2.0])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_wide_enough_beam_is_exhaustive_search_for_the_coverage_penalty(
    model: Transformer, every_log_p: Table, every_coverage: Table, alpha: float, beta: float
) -> None:
    settings = Settings(beam=WIDE, length_penalty=alpha, coverage_penalty=beta, n_best=5)
    found = beam_search(decoding(model, kind=WatchedDecoding), [LONGEST] * 3, settings)
    for each, covered, best in zip(every_log_p, every_coverage, found, strict=True):
        scores = {y: p / settings.penalty(len(y) + 1.0) + beta * covered[y] for y, p in each.items()}
        wanted = sorted(scores, key=lambda y: -scores[y])[:5]
        assert [tuple(ids) for ids in ids_of(best)] == wanted
        assert [one.score for one in best] == pytest.approx([scores[y] for y in wanted], abs=1e-4)


def test_coverage_changes_what_is_found(model: Transformer) -> None:
    found = [
        beam_search(decoding(model, kind=WatchedDecoding), [9] * 3, Settings(beam=8, coverage_penalty=beta))
        for beta in (0.0, 5.0)
    ]
    covered = [[coverage(model, s, best.ids) for s, (best,) in zip(SOURCES, each, strict=True)] for each in found]
    assert all(more >= less for less, more in zip(*covered, strict=True))
    assert sum(covered[1]) > sum(covered[0])


def test_an_ensemble_of_a_model_with_itself_covers_what_the_model_covers(model: Transformer) -> None:
    settings = Settings(beam=5, coverage_penalty=0.5, n_best=5)
    alone = beam_search(decoding(model, kind=WatchedDecoding), [LONGEST] * 3, settings)
    both = Ensemble.of([decoding(model, kind=WatchedDecoding) for _ in range(2)])
    for found, wanted in zip(beam_search(both, [LONGEST] * 3, settings), alone, strict=True):
        assert ids_of(found) == ids_of(wanted)
        assert [one.score for one in found] == pytest.approx([one.score for one in wanted], abs=1e-5)


class Looking(Scripted):
    """A script that looks at one token of a source of two after the other."""

    def attention(self) -> Tensor:
        return torch.eye(2)[[min(self.steps, 2) - 1]].repeat(self.rows, 1)


def test_search_goes_on_while_what_is_not_covered_may_yet_be() -> None:
    # Ending at once is likelier, but leaves half of the source out.
    script = Looking([{EOS: 0.6, 4: 0.4}, {EOS: 0.9, 4: 0.1}], 1)
    [[best]] = beam_search(script, [5], Settings(beam=2, length_penalty=0.0, coverage_penalty=0.1))
    assert best.ids == [4]
    [[best]] = beam_search(Looking(script.table, 1), [5], Settings(beam=2, length_penalty=0.0))
    assert best.ids == []


# Diverse groups


def next_log_p(model: Transformer, source: Ids) -> "functools._lru_cache_wrapper[list[float]]":
    @functools.cache
    @torch.inference_mode()
    def of(output: tuple[int, ...]) -> list[float]:
        ids = torch.tensor([*source, EOS]), torch.tensor([BOS, *output])
        states = model(ids[0], Cut.of(np.array([len(ids[0])])), ids[1], Cut.of(np.array([len(ids[1])])))
        found: list[float] = model.logits(states)[-1].log_softmax(-1).tolist()
        return found

    return of


def plainly(model: Transformer, source: Ids, settings: Settings, longest: int) -> list[tuple[tuple[int, ...], float]]:
    """Diverse beam search as the paper's algorithm 1 has it, without an early stop: outputs with their log p."""
    of = next_log_p(model, source)
    width = settings.beam // settings.groups
    live: list[list[tuple[tuple[int, ...], float]]] = [[((), 0.0)] for _ in range(settings.groups)]
    finished: list[list[tuple[tuple[int, ...], float]]] = [[] for _ in range(settings.groups)]
    for length in range(longest + 1):
        said: Counter[int] = Counter()
        for group in range(settings.groups):
            tokens = [EOS, *WORDS] if length < longest else [EOS]
            cost = {token: settings.diversity * said[token] if length < longest else 0.0 for token in tokens}
            nexts = [(y, token, p + of(y)[token]) for y, p in live[group] for token in tokens]
            nexts.sort(key=lambda one: cost[one[1]] - one[2])
            chosen = nexts[: width - len(finished[group])]
            said.update(token for _, token, _ in chosen)
            finished[group] += [(y, p) for y, token, p in chosen if token == EOS]
            live[group] = [((*y, token), p) for y, token, p in chosen if token != EOS]
    return [one for group in finished for one in group]


@pytest.mark.parametrize("diversity", [0.0, 0.7, 5.0])
@pytest.mark.parametrize(("beam", "groups"), [(4, 2), (6, 3), (3, 3), (6, 2), (5, 1)])
def test_diverse_groups_find_what_the_plain_algorithm_finds(
    model: Transformer, beam: int, groups: int, diversity: float
) -> None:
    settings = Settings(beam=beam, groups=groups, diversity=diversity, n_best=beam)
    limits = [5, 3, 6]
    for source, limit, found in zip(SOURCES, limits, search(model, SOURCES, settings, limits), strict=True):
        wanted = {y: p / settings.penalty(len(y) + 1.0) for y, p in plainly(model, source, settings, limit)}
        assert {tuple(one.ids): one.score for one in found} == pytest.approx(wanted, abs=1e-4)
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_the_best_of_the_groups_is_the_best_of_each(model: Transformer) -> None:
    settings = Settings(beam=6, groups=3, n_best=6)
    every = search(model, SOURCES, settings)
    for count in (1, 2):
        few = search(model, SOURCES, Settings(beam=6, groups=3, n_best=count))
        assert [ids_of(found) for found in few] == [ids_of(found)[:count] for found in every]


def test_groups_without_diversity_are_one_smaller_beam(model: Transformer) -> None:
    found = search(model, SOURCES, Settings(beam=6, groups=3, diversity=0.0, n_best=6))
    assert [ids_of(each) for each in found] == [ids_of(each) for each in search(model, SOURCES, Settings(2, n_best=2))]


def test_groups_that_must_differ_begin_differently(model: Transformer) -> None:
    found = search(model, SOURCES, Settings(beam=4, groups=4, diversity=99.0, n_best=4))
    assert all(len({tuple(one.ids[:1]) for one in best}) == 4 for best in found)


def test_groups_that_are_not_equal_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"decode\.groups: must divide decode\.beam \(5\), found 2"):
        redecide(Decode(beam=6, groups=2), beam=5)


# All of them together


class Random(Scripted):
    """A script of sharp probabilities, the same for each hypothesis, that looks now here, now there."""

    def __init__(self, seed: int, steps: int) -> None:
        self._draw = np.random.default_rng(seed)
        tables = self._draw.dirichlet([0.2] * (len(WORDS) + 1), steps) + 1e-9
        super().__init__([dict(zip([EOS, *WORDS], map(float, table), strict=True)) for table in tables], 1)
        self._looks = torch.tensor(self._draw.dirichlet([0.2] * 4, steps), dtype=torch.float)

    def attention(self) -> Tensor:
        return self._looks[self.steps - 1].expand(self.rows, -1)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize(("beta", "groups", "count"), [(0.0, 1, 1), (1.0, 1, 1), (1.0, 1, 3), (0.0, 2, 2), (1.0, 2, 2)])
def test_to_stop_early_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, alpha: float, beta: float, groups: int, count: int
) -> None:
    settings = Settings(4, alpha, "power", count, beta, groups)

    def searched(seed: int) -> tuple[list[Hypothesis], int]:
        script = Random(seed, 11)
        [found] = beam_search(script, [10], settings)
        return found, script.steps

    early = [searched(seed) for seed in range(40)]
    monkeypatch.setattr("nmt.search.beam.Beams.done", lambda beams, settings: beams.tokens.shape[2] > beams.limit)
    late = [searched(seed) for seed in range(40)]
    assert [ids_of(found) for found, _ in early] == [ids_of(found) for found, _ in late]
    assert sum(steps for _, steps in early) < sum(steps for _, steps in late) == 40 * 11


@pytest.mark.parametrize(
    "settings",
    [Settings(beam=4, coverage_penalty=0.3, groups=2, n_best=4), Settings(beam=1, coverage_penalty=0.3),
     Settings(beam=4, groups=4), Settings(beam=3, n_best=3)],
)  # fmt: skip
def test_neighbours_change_nothing_whatever_is_chosen(model: Transformer, settings: Settings) -> None:
    generator = np.random.default_rng(2)
    sources = [generator.choice(WORDS, generator.integers(1, 9)).tolist() for _ in range(40)]
    prefixes = [generator.choice(WORDS, generator.integers(0, 4)).tolist() for _ in sources]
    limits = [len(source) + 5 for source in sources]

    def searched(some: Sequence[int]) -> list[list[Hypothesis]]:
        kind = WatchedDecoding if settings.coverage_penalty else Decoding
        steps = decoding(model, [sources[i] for i in some], kind)
        may = constraint(3, 3, [prefixes[i] for i in some])
        return beam_search(steps, [limits[i] for i in some], settings, constraint=may)

    for number, together_found in enumerate(searched(range(len(sources)))):
        [alone] = searched([number])
        assert ids_of(together_found) == ids_of(alone)
        assert [one.score for one in together_found] == pytest.approx([one.score for one in alone], abs=1e-4)
        for one in together_found:
            assert one.log_p == pytest.approx(log_p(model, sources[number], one.ids), abs=1e-4)
