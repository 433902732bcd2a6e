"""A static search finds what the plain one finds, whatever stands at its other places; one that is done stays."""

import gc
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from commands import Shell
from numpy.typing import NDArray
from torch import Tensor

from nmt.errors import DeviceError
from nmt.ids import BOS
from nmt.model.cache import Decoding
from nmt.model.engine import why_plain
from nmt.model.static import StaticDecoding, StaticEngine
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.search import Hypothesis, Settings, beam_search
from nmt.search.static import StaticSearch
from nmt.search.steps import Ranking
from nmt.translation import Translator
from nmt.translation import translator as translator_module
from nmt.translation.static import StaticSearches
from tests.test_engine import sharp
from tests.test_variants import VARIANTS, VOCABULARY, built, streams

TAKEN = [name for name in VARIANTS if not why_plain(built(**VARIANTS[name]).config)]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def drawn(*lengths: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(4, VOCABULARY, (length,), generator=draw) for length in lengths]


def plainly(
    model: Transformer, sources: Sequence[Tensor], limits: Sequence[int], settings: Settings
) -> list[list[Hypothesis]]:
    cut = Cut.of(np.array([len(source) for source in sources]), model.projection.device)
    decoding = Decoding(model, torch.cat(list(sources)).to(model.projection.device), cut)
    return beam_search(decoding, limits, settings, model.projection.device)


class Statically:
    """A search that stays, at so many places."""

    def __init__(self, model: Transformer, settings: Settings, places: int, room: int = 64, source: int = 32) -> None:
        self.decoding = StaticDecoding(StaticEngine(model), places, settings.beam, room, source)
        self.search = StaticSearch(self.decoding, settings)

    def __call__(self, sources: Sequence[Tensor], limits: Sequence[int]) -> list[list[Hypothesis]]:
        lengths = [len(source) for source in sources]
        self.decoding.give(torch.cat(list(sources)).numpy(), np.array(lengths))
        return self.search(limits, lengths)


def same(ours: list[list[Hypothesis]], theirs: list[list[Hypothesis]]) -> None:
    assert [[h.ids for h in best] for best in ours] == [[h.ids for h in best] for best in theirs]
    for what in ("score", "log_p"):
        said = [getattr(h, what) for best in ours for h in best]
        assert said == pytest.approx([getattr(h, what) for best in theirs for h in best], abs=2e-4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("variant", "beam"), [*((variant, 4) for variant in TAKEN), ("the paper's", 1), ("of today", 1)]
)
def test_a_static_search_finds_what_the_plain_one_finds(variant: str, beam: int, device: str) -> None:
    model = sharp(built(**VARIANTS[variant])).to(device)
    sources, limits = drawn(5, 3, 19, 1, 8, 30, 2), [14, 6, 25, 3, 12, 21, 0]
    settings = Settings(beam, n_best=min(beam, 2))
    same(Statically(model, settings, places=3)(sources, limits), plainly(model, sources, limits, settings))


CHOICES: dict[str, dict[str, Any]] = {
    "as the paper searches": {},
    "with another penalty": {"length_penalty": 1.0, "penalty_form": "power"},
    "without a penalty": {"length_penalty": 0.0},
    "for all of the beam": {"n_best": 5},
    "with what else has ended": {"others": True},
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("choice", CHOICES)
def test_a_static_search_keeps_to_every_choice_and_may_be_asked_again(choice: str, device: str) -> None:
    model, settings = sharp(built()).to(device), Settings(**({"beam": 5} | CHOICES[choice]))
    search = Statically(model, settings, places=2)
    for lengths in ((5, 3, 19), (7,), (2, 2, 11, 4, 9, 23)):
        sources, limits = drawn(*lengths), [length + 7 for length in lengths]
        same(search(sources, limits), plainly(model, sources, limits, settings))


@pytest.mark.parametrize("places", [1, 2, 8])
def test_the_number_of_places_changes_nothing(places: int) -> None:
    model, settings = sharp(built()), Settings(3)
    lengths = np.random.default_rng(1).integers(1, 25, 14).tolist()
    sources, limits = drawn(*lengths), [length + 5 for length in lengths]
    same(Statically(model, settings, places)(sources, limits), plainly(model, sources, limits, settings))


def test_a_place_that_is_done_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a step may be taken once more than is needed, to get warm or to be captured."""
    step = StaticSearch._advance

    def thrice(search: StaticSearch, steps: Ranking, room: int) -> None:
        done = search._done.clone()
        search._done.fill_(True)
        step(search, steps, room)
        step(search, steps, room)
        search._done.copy_(done)
        step(search, steps, room)

    model, settings, sources, limits = (
        sharp(built()),
        Settings(3, others=True),
        drawn(5, 9, 2, 14, 7),
        [9, 12, 4, 19, 8],
    )
    theirs = plainly(model, sources, limits, settings)
    monkeypatch.setattr(StaticSearch, "_advance", thrice)
    same(Statically(model, settings, places=2)(sources, limits), theirs)


def test_steps_of_known_tokens_have_the_logits_of_the_plain_model() -> None:
    model = built()
    source, cut, _, _ = streams()
    decoding = StaticDecoding(StaticEngine(model), len(cut.lengths), 2, 32, 64)
    decoding.give(source.numpy(), cut.lengths)
    decoding.begin(torch.arange(len(cut.lengths)), range(len(cut.lengths)))
    steps, plain = decoding.within(32, 32), Decoding(model, source, cut)
    tokens, draw = torch.full((len(cut.lengths),), BOS), torch.Generator().manual_seed(3)
    rows = torch.arange(len(tokens)).repeat_interleave(2)
    for step in range(10):
        theirs = plain.step(tokens)
        ours = steps.step(tokens if step else tokens.repeat_interleave(2))
        torch.testing.assert_close(ours[:, :VOCABULARY], theirs if step else theirs.repeat_interleave(2, 0))
        assert (ours[:, VOCABULARY:] == -torch.inf).all()
        plain.select(rows)
        steps.select(rows if step else torch.arange(len(rows)))
        decoding.clock += 1
        tokens = torch.randint(4, VOCABULARY, (len(rows),), generator=draw)
        rows = (
            torch.arange(len(rows) // 2)[:, None] * 2 + torch.randint(0, 2, (len(rows) // 2, 2), generator=draw)
        ).flatten()


@pytest.mark.parametrize("device", DEVICES)
def test_a_translator_says_the_same_with_static_searches(
    device: str, trained: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (trained.folder / "test.en").read_text().splitlines()[:9]
    lines = [*lines, "", lines[0], " ".join(lines[:6])]
    plain, fast = (Translator.load(trained.folder / "run/model", device, "fp32") for _ in range(2))
    plain.static, fast.static = False, True
    asked: list[int] = []
    call = StaticSearches.__call__

    def told(searches: StaticSearches, source: NDArray[np.int64], lengths: NDArray[np.int64], *others: Any) -> Any:
        asked.append(len(lengths))
        return call(searches, source, lengths, *others)

    monkeypatch.setattr(StaticSearches, "__call__", told)
    for choices in ({}, {"batch_size": 2}, {"beam": 1, "on_suspect": "off"}, {"n_best": 3}):
        ours, theirs = (list(translator.stream(lines, workers=1, **choices)) for translator in (fast, plain))
        assert [[t.text for t in best] for best in ours] == [[t.text for t in best] for best in theirs]
    assert max(asked) > 9
    asked.clear()
    for other in ({"no_repeat_ngram": 3}, {"groups": 2}, {"coverage_penalty": 0.1}, {"prefixes": ["Da"] * len(lines)}):
        ours, theirs = (list(translator.stream(lines, workers=1, **other)) for translator in (fast, plain))
        assert ours == theirs
    assert not asked


@pytest.mark.gpu
def test_graphs_in_bf16_say_nearly_what_the_plain_model_does_in_fp32(trained: Shell) -> None:
    lines = (trained.folder / "test.en").read_text().splitlines()
    model = trained.folder / "run/model"
    fast, plain = Translator.load(model, "cuda", "bf16"), Translator.load(model, "cuda", "fp32")
    plain.static = False
    ours, theirs = (one.translate(lines, on_suspect="off") for one in (fast, plain))
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 0.7 * len(lines)


def test_a_search_that_has_too_little_room_goes_before_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[weakref.ref[object]] = []
    make = StaticDecoding.__init__

    def made(*given: Any) -> None:
        assert [each() for each in left] == [None] * len(left)  # and no collector was asked
        make(*given)

    monkeypatch.setattr(StaticDecoding, "__init__", made)
    searches, settings = StaticSearches(sharp(built()), torch.float32), Settings(2)
    gc.disable()
    try:
        for length in (3, 70, 140):
            source = drawn(length)[0]
            [[best]] = searches(source.numpy(), np.array([length]), [length + 5], settings, 4)
            assert best == plainly(searches._engine.model, [source], [length + 5], settings)[0][0]._replace(
                score=best.score, log_p=best.log_p
            )
            [kept] = searches._made.values()
            left = [weakref.ref(each) for each in kept]
            del kept
    finally:
        gc.enable()


def test_after_an_error_in_its_midst_a_search_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    searches, settings, sources = StaticSearches(sharp(built()), torch.float32), Settings(2), drawn(5, 9, 2, 7, 6)
    given = torch.cat(sources).numpy(), np.array([5, 9, 2, 7, 6]), [9] * 5, settings, 2
    ended, times = StaticSearch._ended, iter(range(9))
    monkeypatch.setattr(StaticSearch, "_ended", lambda search: ended(search) if next(times) else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        searches(*given)
    model, first = searches._engine.model, drawn(5)
    same(searches(first[0].numpy(), np.array([5]), [4], settings, 2), plainly(model, first, [4], settings))
    same(searches(*given), plainly(model, sources, [9] * 5, settings))


def test_no_more_lines_are_aligned_at_once_than_a_batch_has(trained: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    align = translator_module.align

    def told(model: Any, tokenizers: Any, pairs: Any, device: Any, size: int) -> Any:
        sizes.append(size)
        return align(model, tokenizers, pairs, device, size)

    monkeypatch.setattr(translator_module, "align", told)
    lines = (trained.folder / "test.en").read_text().splitlines()[:9]
    plain, fast = (Translator.load(trained.folder / "run/model", "cpu", "fp32") for _ in range(2))
    fast.static = True
    ours, theirs = (list(one.stream(lines, alignments=True, batch_size=2)) for one in (fast, plain))
    assert [best[0].alignment for best in ours] == [best[0].alignment for best in theirs]
    assert max(sizes) == 2


def test_too_little_memory_is_told_with_the_mend(trained: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    translator = Translator.load(trained.folder / "run/model", "cpu", "fp32")
    for work in ("_found", "_aligned"):
        monkeypatch.setattr(Translator, work, full)
        with pytest.raises(DeviceError, match=r"out of memory: lower --batch-size, now 64"):
            list(translator.stream(["one"], alignments=True))
        monkeypatch.undo()
