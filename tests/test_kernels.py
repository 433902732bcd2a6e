"""The kernels in C compute what those in PyTorch do; where they cannot be compiled, nothing is missing but speed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nmt.kernels import Eight, Kernels, Norm, Plain, Product, Rows, Seen
from nmt.kernels.build import library
from nmt.kernels.native import Native
from nmt.model.matrices import Int8

WIDTHS = [(3, 5), (8, 64), (17, 48), (2, 300)]  # rows and their width, also such as fill no vector


@pytest.fixture(scope="module")
def native() -> Kernels:
    compiled = library()
    if compiled is None:
        pytest.skip("no C compiler")
    return Native(compiled)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def product(rows: int, width: int, form: str) -> Product:
    """As a matrix product in fp32 gives it; or one in 8 bits, with a scale and a bias; or without either."""
    y = drawn(rows, width, seed=7)
    if form == "bare":
        return Product(y)
    scale = drawn(rows, seed=8).abs() + 0.1
    return Product(y, scale, drawn(width, seed=9) if form == "scaled" else None)


def assert_alike(ours: Rows, theirs: Rows) -> None:
    """In 8 bits a number may fall to either side of a step."""
    assert isinstance(ours, Eight) == isinstance(theirs, Eight)
    if isinstance(ours, Eight) and isinstance(theirs, Eight):
        assert ours.zero == theirs.zero
        torch.testing.assert_close(ours.scale, theirs.scale)
        assert (ours.values.int() - theirs.values.int()).abs().max() <= 1
        assert (ours.values != theirs.values).float().mean() < 0.01
    else:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def meant(rows: Eight) -> Tensor:
    return (rows.values.float() - rows.zero) * rows.scale[:, None]


@pytest.mark.parametrize("zero", [0, 128])
@pytest.mark.parametrize(("outs", "width"), [(16, 64), (5, 30), (96, 512)])
@pytest.mark.parametrize("rows", [1, 3, 4])
def test_a_product_of_few_rows_is_that_of_many_to_the_bit(
    native: Kernels, rows: int, outs: int, width: int, zero: int
) -> None:
    draw = torch.Generator().manual_seed(rows + outs)
    values = torch.randint(0, 256, (rows, width), generator=draw, dtype=torch.uint8)
    matrix = torch.randint(-127, 128, (outs, width), generator=draw, dtype=torch.int8)
    few = Eight(values, torch.ones(rows), zero), matrix, matrix.sum(1, dtype=torch.int32), drawn(outs).abs()
    assert torch.equal(native.multiply(*few), Plain().multiply(*few))
    onednn, many = Int8(drawn(outs, width)), Eight(values.repeat(8, 1), torch.ones(8 * rows), zero)
    assert torch.equal(onednn(few[0]).y, onednn(many).y[:rows])  # 8 rows and more are its own


@pytest.mark.parametrize("form", ["bare", "scaled", "scaled without bias"])
@pytest.mark.parametrize(("rows", "width"), WIDTHS)
def test_a_product_is_settled_alike(native: Kernels, rows: int, width: int, form: str) -> None:
    assert_alike(native.settle(product(rows, width, form)), Plain().settle(product(rows, width, form)))


@pytest.mark.parametrize("eight", [False, True])
@pytest.mark.parametrize("pre", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("form", ["none", "bare", "scaled", "scaled without bias"])
@pytest.mark.parametrize(("rows", "width"), WIDTHS)
def test_norms_are_alike(
    native: Kernels, rows: int, width: int, form: str, biased: bool, pre: bool, eight: bool
) -> None:
    norm = Norm(drawn(width), drawn(width, seed=1) if biased else None, 1e-5)
    states = [drawn(rows, width, seed=2) for _ in range(2)]
    added = [None if form == "none" else product(rows, width, form) for _ in range(2)]
    ours, theirs = (
        k.norm(x, y, norm, pre=pre, eight=eight) for k, x, y in zip([native, Plain()], states, added, strict=True)
    )
    assert_alike(ours, theirs)
    assert_alike(*states)


@pytest.mark.parametrize("eight", [False, True])
@pytest.mark.parametrize("form", ["bare", "scaled"])
@pytest.mark.parametrize("kind", ["relu", "gelu", "swiglu"])
@pytest.mark.parametrize(("rows", "width"), [(3, 6), (8, 64), (17, 48), (2, 300)])
def test_activations_are_alike(native: Kernels, rows: int, width: int, kind: str, form: str, eight: bool) -> None:
    ours, theirs = (k.activate(product(rows, width, form), kind, eight=eight) for k in (native, Plain()))
    assert_alike(ours, theirs)


@pytest.mark.parametrize("eight", [False, True])
@pytest.mark.parametrize("by", ["index", "begin"])
@pytest.mark.parametrize(("k_width", "v_width"), [(64, 64), (32, 32), (8, 8), (5, 7), (40, 24), (272, 264)])
def test_attention_is_alike(native: Kernels, k_width: int, v_width: int, by: str, eight: bool) -> None:
    """Each query sees another number of keys, one and more than a vector among them."""
    heads, count = 3, torch.tensor([1, 4, 16, 17, 40], dtype=torch.int32)
    kv, inputs = drawn(60, heads * (k_width + v_width)), drawn(5, heads * k_width + 3)
    index = torch.randint(0, 60, (5, 40), generator=torch.Generator().manual_seed(3), dtype=torch.int32)
    begin = torch.tensor([59, 3, 0, 11, 20], dtype=torch.int32)
    seen = Seen(kv, count, index=index) if by == "index" else Seen(kv, count, begin)
    ours, theirs = (
        k.attend(inputs[:, : heads * k_width], seen, heads, k_width, eight=eight) for k in (native, Plain())
    )
    assert_alike(ours, theirs)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("width", "most"), [(6, 4), (64, 1), (1000, 5), (9000, 12)])
def test_the_likeliest_tokens_are_alike(native: Kernels, width: int, most: int, scaled: bool) -> None:
    logits, only_end = 4 * drawn(9, width), torch.arange(9) % 4 == 3
    scale = drawn(9, seed=5).abs() + 0.5 if scaled else None
    (ours, which), (theirs, plainly) = (
        k.top(Product(logits.clone(), scale), most, torch.tensor([0, 1, 3]), 2, only_end) for k in (native, Plain())
    )
    torch.testing.assert_close(ours, theirs)
    assert which.tolist() == plainly.tolist()
    there = ours > -torch.inf
    assert there.sum(1).tolist() == [1 if end else min(most, width - 3) for end in only_end]
    assert not torch.isin(which[there], torch.tensor([0, 1, 3])).any()


@pytest.mark.parametrize("kernels", ["native", "plain"])
def test_eight_bits_hold_each_row_to_half_a_step(kernels: str, request: pytest.FixtureRequest) -> None:
    chosen: Kernels = request.getfixturevalue("native") if kernels == "native" else Plain()
    x = drawn(6, 100) * torch.tensor([1e-3, 1, 100, 0, 1, 1])[:, None]
    found = chosen.reduce(x)
    assert ((meant(found) - x).abs() <= 0.501 * x.abs().amax(1, keepdim=True) / 127).all()
    positive = chosen.activate(Product(x.clone()), "relu", eight=True)
    assert isinstance(positive, Eight)
    assert ((meant(positive) - x.relu()).abs() <= 0.501 * x.relu().amax(1, keepdim=True) / 255).all()


def kind_of_kernels(**environment: str) -> str:
    """Which kernels a new process takes."""
    code = "from nmt.kernels import kernels; print(type(kernels()).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "environment",
    [{"NMT_KERNELS": "off"}, {"CC": "false"}, {"CC": "/no/such/compiler"}],
    ids=["switched off", "a compiler that fails", "no compiler"],
)
def test_where_nothing_can_be_compiled_the_kernels_are_plain(environment: dict[str, str], tmp_path: Path) -> None:
    assert kind_of_kernels(**environment, XDG_CACHE_HOME=str(tmp_path)) == "Plain"


def test_kernels_are_compiled_once_and_kept_where_only_their_user_writes(native: Kernels, tmp_path: Path) -> None:
    assert kind_of_kernels(XDG_CACHE_HOME=str(tmp_path)) == "Native"
    (kept,) = (tmp_path / "nmt").iterdir()
    made = kept.stat().st_mtime_ns
    assert not (tmp_path / "nmt").stat().st_mode & 0o022
    assert kind_of_kernels(XDG_CACHE_HOME=str(tmp_path)) == "Native"
    assert kept.stat().st_mtime_ns == made


def test_a_cache_that_cannot_be_written_costs_speed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert kind_of_kernels(XDG_CACHE_HOME=str(tmp_path / "file")) == "Plain"
