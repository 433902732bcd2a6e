"""Kernels with gradients do what PyTorch does; chunks may be computed side by side; and memory is kept."""

import threading
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from nmt.kernels import gradients
from nmt.model.attention import DotProduct
from nmt.model.dropout import Dropout, seeded
from nmt.model.positions import Places
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.model.views import Packed
from nmt.recipe import Model
from nmt.training.cores import Lanes
from nmt.training.loss import cross_entropy

CPU = torch.device("cpu")
LENGTHS = [([3, 1, 17, 33], [5, 16, 1, 20]), ([1], [1]), ([40, 2, 2], [2, 40, 15])]  # of queries and of keys


@pytest.fixture(autouse=True)
def compiled() -> None:
    if not gradients.at_hand(torch.zeros(1)):
        pytest.skip("no C compiler")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], list[Tensor]]], list[Tensor]]:
    """Does something as where there is no compiler."""

    def done(work: Callable[[], list[Tensor]]) -> list[Tensor]:
        with monkeypatch.context() as patch:
            patch.setattr(gradients, "_functions", dict)
            return work()

    return done


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape))).requires_grad_()


def cut(lengths: list[int]) -> Cut:
    return Cut.of(torch.tensor(lengths).numpy())


def with_gradients(given: list[Tensor], out: Tensor) -> list[Tensor]:
    """What came out, and the gradients of what went in, of a sum with weights of its own."""
    for x in given:
        x.grad = None
    (out * drawn(*out.shape, seed=9).detach()).sum().backward()
    return [out.detach(), *(x.grad for x in given if x.grad is not None)]


@pytest.mark.parametrize("width", [16, 32, 48, 64, 80])
@pytest.mark.parametrize(("queries", "keys"), LENGTHS)
@pytest.mark.parametrize("apart", [True, False], ids=["in one tensor", "in three"])
def test_attention_is_the_plain_one(
    without: Callable[..., list[Tensor]], queries: list[int], keys: list[int], width: int, apart: bool
) -> None:
    q = drawn(sum(queries), 2, width)
    k, v = (drawn(sum(keys), 2, width, seed=seed) for seed in (1, 2))
    if not apart:
        both = torch.cat([k, v], 1).detach().requires_grad_()
        k, v = both.split(2, 1)
        given = [q, both]
    else:
        given = [q, k, v]

    def attend() -> list[Tensor]:
        core = DotProduct(0.0, Places())
        view = Packed(cut(queries), cut(keys))
        return with_gradients(given, view(core, q, *(both.split(2, 1) if not apart else (k, v))))

    for ours, theirs in zip(attend(), without(attend), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


HALF = torch.bfloat16


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), LENGTHS)
def test_attention_in_bf16_is_that_in_fp32_rounded_once(queries: list[int], keys: list[int], causal: bool) -> None:
    keys = queries if causal else keys
    q, both = (drawn(sum(n), heads, 48).detach().to(HALF) for n, heads in ((queries, 2), (keys, 4)))
    weights = drawn(sum(queries), 2, 48, seed=9).detach().to(HALF)

    def attend(dtype: torch.dtype) -> list[Tensor]:
        given = [x.to(dtype, copy=True).requires_grad_() for x in (q, both)]
        k, v = given[1].split(2, 1)
        out = gradients.attention(given[0], k, v, cut(queries).offsets, cut(keys).offsets, causal)
        out.backward(weights.to(dtype))
        return [out.detach(), *(x.grad for x in given if x.grad is not None)]

    for half, full in zip(attend(HALF), attend(torch.float32), strict=True):
        assert torch.equal(half, full.to(HALF))


@pytest.mark.parametrize(("of_x", "of_to"), [(HALF, torch.float32), (HALF, HALF), (torch.float32, HALF), (HALF, None)])
def test_dropout_of_bf16_is_that_of_fp32_rounded_once(of_x: torch.dtype, of_to: torch.dtype | None) -> None:
    x, to = drawn(37, 5).detach().to(of_x), of_to and drawn(37, 5, seed=1).detach().to(of_to)
    weights = drawn(37, 5, seed=2).detach().to(of_to or of_x)

    def thin(*dtypes: torch.dtype | None) -> list[Tensor]:
        given = ((x, dtypes[0]), (to, dtypes[1]))
        a, b = (None if y is None else y.to(dtype, copy=True).requires_grad_() for y, dtype in given)
        assert a is not None
        with seeded(3, CPU):
            out = Dropout(0.3).train()(a, b)
        out.backward(weights.to(out.dtype))
        return [out.detach(), *(y.grad for y in (a, b) if y is not None and y.grad is not None)]

    for half, full in zip(thin(of_x, of_to), thin(torch.float32, torch.float32), strict=True):
        assert torch.equal(half, full.to(half.dtype))
    assert thin(of_x, of_to)[0].dtype == of_to or of_x


def test_the_loss_of_logits_in_bf16_is_that_of_fp32_and_its_gradient_rounded_once() -> None:
    logits, said = drawn(30, 77).detach().to(HALF), torch.arange(30)
    full = logits.float()
    assert torch.equal(gradients.cross_entropy_(logits, said, 0.1), gradients.cross_entropy_(full, said, 0.1))
    assert torch.equal(logits, full.to(HALF))


def test_what_is_no_number_and_what_is_too_large_stay_so_in_bf16() -> None:
    most = float("inf")
    x = torch.tensor([float("nan"), most, -most, 3.4e38, -3.4e38, 1e-40, 0.0, -0.0, 1.00390625, 1.01171875])
    bits = torch.tensor([0x7FFFFFFF, 0x7F800001, -1], dtype=torch.int32).view(torch.float32)  # none of them a number
    x = torch.cat([x, bits, drawn(100).detach()])
    everything = torch.zeros(len(x), dtype=torch.int16)
    out = gradients.thinned(x, everything, -1, 1.0, torch.full(x.shape, -0.0, dtype=HALF))
    torch.testing.assert_close(out, x.to(HALF), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("targets", [10, 64, 70, 128])
def test_states_behind_the_last_target_have_no_loss_and_no_gradient(
    without: Callable[..., list[Tensor]], targets: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nmt.training.loss.BLOCK_NUMBERS", {"cpu": 32 * 41})  # blocks of 32 rows, or of 64
    states, projection = drawn(128, 24), drawn(41, 24)
    said = torch.arange(targets) * 7 % 41

    def learn(count: int = 128) -> list[Tensor]:
        with torch.autocast("cpu", HALF, enabled=dtype == HALF):
            loss = cross_entropy(states[:count], projection, said, 0.1)
        return [loss.nll, *with_gradients([states, projection], loss.smoothed)]

    for ours, plain, exact in zip(learn(), without(learn), learn(targets), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5 if dtype != HALF else 1e-2)
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5 if dtype != HALF else 1e-2)


@pytest.mark.parametrize("lengths", [[3, 1, 17, 33], [64]])
def test_no_position_sees_its_future_to_the_bit(lengths: list[int]) -> None:
    offsets = cut(lengths).offsets
    q, k, v = (drawn(sum(lengths), 2, 32, seed=seed) for seed in range(3))
    before = gradients.attention(q, k, v, offsets, offsets, causal=True)
    with torch.no_grad():
        for x in (k, v):
            x[offsets[1:].long() - 1] += 5.0  # the last of each sentence, which only the last query sees
    after = gradients.attention(q, k, v, offsets, offsets, causal=True)
    others = torch.ones(sum(lengths), dtype=torch.bool)
    others[offsets[1:].long() - 1] = False
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before, after)


def test_neighbours_change_nothing_to_the_bit() -> None:
    lengths = [7, 20, 3]
    q, k, v = (drawn(sum(lengths), 2, 32, seed=seed) for seed in range(3))
    together = gradients.attention(q, k, v, cut(lengths).offsets, cut(lengths).offsets)
    alone = [
        gradients.attention(*parts, cut([n]).offsets, cut([n]).offsets)
        for n, *parts in zip(lengths, *(x.split(lengths) for x in (q, k, v)), strict=True)
    ]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("shape", [(7, 5), (64, 128)])
def test_dropout_picks_the_same(without: Callable[..., list[Tensor]], shape: tuple[int, int], added: bool) -> None:
    x, to = drawn(*shape), drawn(*shape, seed=1)

    def thin() -> list[Tensor]:
        with seeded(3, CPU):
            out = Dropout(0.3).train()(x, to if added else None)
        return with_gradients([x, to] if added else [x], out)

    for ours, theirs in zip(thin(), without(thin), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("tokens", "vocabulary", "smoothing"), [(5, 33, 0.1), (300, 70, 0.0), (40, 1000, 0.2)])
def test_the_loss_is_the_same(
    without: Callable[..., list[Tensor]], tokens: int, vocabulary: int, smoothing: float
) -> None:
    states, projection = drawn(tokens, 24), drawn(vocabulary, 24)
    said = torch.arange(tokens) * 7 % vocabulary

    def learn() -> list[Tensor]:
        loss = cross_entropy(states, projection, said, smoothing)
        return [loss.nll, *with_gradients([states, projection], loss.smoothed * 2)]

    for ours, theirs in zip(learn(), without(learn), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(bad: float) -> None:
    """Training looks for it in the loss and in the gradients."""
    states = drawn(4, 8)
    with torch.no_grad():
        states[2, 3] = bad
    loss = cross_entropy(states, drawn(20, 8), torch.zeros(4, dtype=torch.long), 0.1)
    loss.smoothed.backward()
    assert not loss.smoothed.isfinite()
    assert states.grad is not None
    assert not states.grad.isfinite().all()
    q, k, v = (drawn(4, 1, 16, seed=seed) for seed in range(3))
    for x in (q, k, v):
        with torch.no_grad():
            kept = x[2, 0, 3].clone()
            x[2, 0, 3] = bad
            offsets = cut([4]).offsets
            assert not gradients.attention(q, k, v, offsets, offsets).isfinite().all()
            x[2, 0, 3] = kept


@pytest.mark.parametrize(("norm", "activation", "heads"), [*product(["post", "pre"], ["relu", "swiglu"], [2, 4])])
def test_a_whole_model_learns_alike(
    without: Callable[..., list[Tensor]], norm: str, activation: str, heads: int
) -> None:
    """Of heads 16 wide all kernels are used; those 8 wide take the plain attention."""
    config = Model(layers=2, d_model=32, heads=heads, d_ffn=48, dropout=0.2, norm=norm, activation=activation)
    torch.manual_seed(1)
    model = Transformer(config, 50, 50).train()
    source, target = cut([4, 9, 1]), cut([6, 2, 12])
    ids = torch.randint(4, 50, (40,), generator=torch.Generator().manual_seed(2))

    def learn() -> list[Tensor]:
        model.zero_grad()
        with seeded(5, CPU):
            states = model(ids[:14], source, ids[14:34], target)
            loss = cross_entropy(states, model.projection, ids[-20:], 0.1)
        loss.smoothed.backward()
        return [loss.nll, *(p.grad for p in model.parameters() if p.grad is not None)]

    for ours, theirs in zip(learn(), without(learn), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def linear(model: Transformer, item: int) -> Tensor:
    """Work whose gradient tells the item."""
    loss = (model.output.weight * item).sum()
    loss.backward()
    return loss.detach()


def tiny() -> Transformer:
    torch.manual_seed(1)
    return Transformer(Model(layers=1, d_model=16, heads=1, d_ffn=16), 10, 10)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("items", [[], [5], [1, 2], [1, 2, 3, 4, 5, 6, 7]])
def test_lanes_find_what_one_would_and_add_up_all_gradients(count: int, items: list[int]) -> None:
    model = tiny()
    lanes = Lanes(model, count)
    for _ in range(2):  # what one update leaves is not in the next
        model.zero_grad()
        found = lanes.run(linear, items)
        alone = [(model.output.weight.detach() * item).sum() for item in items]
        assert [float(x) for x in found] == pytest.approx([float(x) for x in alone])
        if items:
            assert model.output.weight.grad is not None
            assert bool((model.output.weight.grad == sum(items)).all())


def test_lanes_share_the_weights_and_not_the_gradients() -> None:
    model = tiny()
    lanes = Lanes(model, 3)
    with torch.no_grad():
        model.output.weight.fill_(2.0)
    met = lanes.run(lambda lane, _: (lane, float(lane.output.weight.detach().mean())), [1, 2, 3, 4])
    assert [mean for _, mean in met] == [2.0] * 4
    assert len({id(lane) for lane, _ in met}) == 3
    assert met[0][0] is met[3][0] is model


@pytest.mark.parametrize("where", [0, 1])
def test_what_goes_wrong_in_a_lane_is_raised_and_leaves_nothing_behind(where: int) -> None:
    model = tiny()
    lanes = Lanes(model, 2)
    threads = torch.get_num_threads()

    def fail(lane: Transformer, item: int) -> None:
        linear(lane, 100)
        if item == where:
            raise ArithmeticError(f"item {item}")

    with pytest.raises(ArithmeticError, match=f"item {where}"):
        lanes.run(fail, [0, 1])
    assert torch.get_num_threads() == threads
    model.zero_grad()
    lanes.run(linear, [1, 2])
    assert model.output.weight.grad is not None
    assert bool((model.output.weight.grad == 3).all())


def test_dropout_in_one_thread_does_not_depend_on_another() -> None:
    dropout, x = Dropout(0.5).train(), torch.ones(1000)
    with seeded(4, CPU):
        alone = dropout(x)
    with seeded(4, CPU):
        other = threading.Thread(target=lambda: dropout(x))
        other.start()
        other.join()
        assert torch.equal(dropout(x), alone)
