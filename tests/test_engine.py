"""The engine agrees with the plain model, in every variant and precision, and searches as it does."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nmt.ids import BOS, EOS
from nmt.kernels import Kernels, Plain, kernels
from nmt.model import engine
from nmt.model.cache import Decoding
from nmt.model.engine import Engine, why_plain
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.search import Settings, beam_search
from tests.test_variants import LENGTHS, VARIANTS, VOCABULARY, built, expected, streams

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.int8: 8e-2}
TAKEN = [name for name in VARIANTS if not why_plain(built(**VARIANTS[name]).config)]


@pytest.fixture(params=["in C", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernels:
    """The kernels that the engine computes with."""
    chosen: Kernels = kernels() if request.param == "in C" else Plain()
    if request.param == "in C" and isinstance(chosen, Plain):
        pytest.skip("no C compiler")
    monkeypatch.setattr(engine, "kernels", lambda: chosen)
    return chosen


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def sentences(*lengths: int) -> tuple[Tensor, Cut]:
    draw = torch.Generator().manual_seed(sum(lengths))
    return torch.randint(4, VOCABULARY, (sum(lengths),), generator=draw), Cut.of(np.array(lengths))


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("variant", TAKEN)
def test_the_engine_agrees_with_every_variant_s_plain_form(variant: str, precision: torch.dtype, way: Kernels) -> None:
    model = built(**VARIANTS[variant])
    source, cut, target, _ = streams()
    fed = nn.utils.rnn.pad_sequence(list(target.split(LENGTHS["target"])), batch_first=True, padding_value=9)
    decoding = Engine(model, precision).start(source, cut)
    stepped = torch.stack([decoding.step(column) for column in fed.t()], 1)
    for ours, theirs in zip(stepped, expected(model), strict=True):
        assert (ours[: len(theirs)].double() - theirs).norm() < TOLERANCE[precision] * theirs.norm()


def test_hypotheses_that_are_chosen_copied_and_ended_go_on_as_in_the_plain_model(way: Kernels) -> None:
    model = built()
    source, cut = sentences(5, 3, 19)
    plain, fast = Decoding(model, source, cut), Engine(model).start(source, cut)
    tokens, draw = torch.full((3,), BOS), torch.Generator().manual_seed(1)
    for step in range(12):
        theirs, ours = plain.step(tokens), fast.step(tokens)
        goes_on = tokens != EOS
        torch.testing.assert_close(ours[goes_on], theirs[goes_on])
        assert ours.isfinite().all()
        each = len(tokens) // 3
        rows = torch.arange(3)[:, None] * each + torch.randint(0, each, (3, 3), generator=draw)
        for decoding in (plain, fast):
            decoding.select(rows.flatten())
        tokens = torch.randint(4, VOCABULARY, (9,), generator=draw)
        tokens[torch.randint(0, 9, (step % 4,), generator=draw)] = EOS
        ended = (~goes_on)[rows.flatten()]  # once ended, ended for good
        tokens[ended] = EOS


def test_sentences_that_are_dropped_leave_the_others_as_they_were(way: Kernels) -> None:
    model = built()
    source, cut = sentences(5, 3, 19)
    kept = torch.tensor([0, 2])
    plain, fast = Decoding(model, source, cut), Engine(model).start(source, cut)
    for decoding in (plain, fast):
        decoding.step(torch.full((3,), BOS))
        decoding.select(kept, kept)
    tokens = torch.tensor([7, 8])
    torch.testing.assert_close(fast.step(tokens), plain.step(tokens))


@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_likeliest_tokens_are_those_of_the_logits(precision: torch.dtype, way: Kernels) -> None:
    made = Engine(built(), precision)
    source, cut = sentences(4, 9)
    whole, ranked = made.start(source, cut), made.start(source, cut)
    tokens, only_end = torch.tensor([BOS, BOS]), torch.tensor([False, True])
    logits = whole.step(tokens)
    log_p, ids = ranked.best(tokens, 3, only_end)
    theirs = logits.log_softmax(-1)
    theirs[:, [0, 1, 3]] = -torch.inf
    torch.testing.assert_close(log_p[0], theirs[0].topk(3).values)
    assert log_p[1].tolist() == [pytest.approx(theirs[1, EOS].item(), abs=1e-5), -torch.inf, -torch.inf]
    assert ids[1].tolist() == [EOS] * 3
    for decoding in (whole, ranked):
        decoding.select(torch.tensor([0, 0, 1, 1]))
    log_p, _ = ranked.best(torch.tensor([5, EOS, EOS, EOS]), 2, torch.tensor([False] * 4))
    assert (log_p > -torch.inf).any(1).tolist() == [True, False, False, False]


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("variant", ["the paper's", "pre-norm", "of today"])
def test_a_search_on_the_engine_finds_what_one_on_the_plain_model_finds(variant: str, beam: int, way: Kernels) -> None:
    model = sharp(built(**VARIANTS[variant]))
    source, cut = sentences(5, 3, 19, 1, 8)
    settings, limits = Settings(beam, n_best=min(beam, 2)), [14, 6, 25, 3, 12]
    theirs = beam_search(Decoding(model, source, cut), limits, settings)
    ours = beam_search(Engine(model).start(source, cut), limits, settings)
    assert [[h.ids for h in hypotheses] for hypotheses in ours] == [[h.ids for h in best] for best in theirs]
    scores = [h.score for best in ours for h in best]
    assert scores == pytest.approx([h.score for best in theirs for h in best], abs=1e-4)


def test_neighbours_change_no_bit_in_eight_bits(way: Kernels) -> None:
    """Sums of whole numbers are exact, and each row has a scale of its own."""
    made = Engine(sharp(built()), torch.int8)
    lengths, settings = (5, 3, 19, 1, 8), Settings(4)
    source, cut = sentences(*lengths)
    together = beam_search(made.start(source, cut), [20] * 5, settings)
    for found, alone in zip(together, source.split(lengths), strict=True):
        assert beam_search(made.start(alone, Cut.of(np.array([len(alone)]))), [20], settings) == [found]


def test_decodings_of_one_engine_do_not_meet_even_where_one_takes_over_the_memory_of_another() -> None:
    model = built()
    made, (source, cut) = Engine(model), sentences(6, 2)
    tokens = torch.tensor([5, 6])

    def stepped(decoding: Decoding) -> Tensor:
        decoding.step(torch.full((2,), BOS))
        return decoding.step(tokens)

    expected = stepped(Decoding(model, source, cut))
    first, second = made.start(source, cut), made.start(source.flip(0), Cut.of(np.array([2, 6])))
    first.step(torch.full((2,), BOS))
    second.step(torch.full((2,), BOS))
    torch.testing.assert_close(first.step(tokens), expected)
    del first, second
    assert len(made.spare) == 2
    torch.testing.assert_close(stepped(made.start(source, cut)), expected)  # type: ignore[arg-type]


def sharp(model: Transformer) -> Transformer:
    """With embeddings so large that no two tokens are nearly as likely as one another."""
    model.output.weight.mul_(4)
    return model
