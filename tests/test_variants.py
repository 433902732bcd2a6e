"""Every choice of a model is what its source says, however it is computed.

`plain` computes each variant from its formulas: one pair alone, dense attention, double precision, none of our modules.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.model import views
from nmt.model.attention import DotProduct
from nmt.model.cache import Decoding
from nmt.model.positions import _Angles
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.recipe import Depths, Model

VOCABULARY = 40
LENGTHS = {"source": [5, 3, 19, 1], "target": [4, 17, 2, 1]}

VARIANTS: dict[str, dict[str, object]] = {
    "the paper's": {},
    "learned": {"positions": "learned"},
    "relative": {"positions": "relative", "max_distance": 3},
    "rotary": {"positions": "rotary"},
    "alibi": {"positions": "alibi"},
    "alibi, 6 heads": {"positions": "alibi", "heads": 6, "d_k": 8, "d_v": 8},
    "pre-norm": {"norm": "pre"},
    "rms": {"norm_type": "rms"},
    "pre-norm, rms": {"norm": "pre", "norm_type": "rms"},
    "gelu": {"activation": "gelu"},
    "swiglu": {"activation": "swiglu"},
    "d_k": {"d_k": 4},
    "d_v": {"d_v": 16},
    "3 heads": {"heads": 3, "d_k": 8, "d_v": 8},
    "deep encoder": {"layers": Depths(encoder=3, decoder=1)},
    "separate embeddings": {"embeddings": "separate"},
    "embeddings of the decoder": {"embeddings": "decoder"},
    "window": {"window": 6},
    "window of one": {"window": 1},
    "window, relative": {"window": 6, "positions": "relative", "max_distance": 2},
    "window, rotary": {"window": 5, "positions": "rotary"},
    "window, alibi": {"window": 8, "positions": "alibi"},
    "of today": {
        "positions": "rotary", "norm": "pre", "norm_type": "rms", "activation": "swiglu", "d_ffn": 32,
    },
}  # fmt: skip


def built(**choices: object) -> Transformer:
    """A small model without dropout, whose biases and norms are not the identity they begin as."""
    torch.manual_seed(1)
    settings = {"layers": 2, "d_model": 32, "heads": 4, "d_ffn": 48, "dropout": 0.0} | choices
    model = Transformer(Model.model_validate(settings), VOCABULARY, VOCABULARY).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=0.5, std=0.3)
    return model


def streams(lengths: dict[str, list[int]] = LENGTHS) -> tuple[Tensor, Cut, Tensor, Cut]:
    """Random sentences of these lengths, packed."""
    draw = torch.Generator().manual_seed(2)
    source, target = (torch.randint(4, VOCABULARY, (sum(n),), generator=draw) for n in lengths.values())
    return source, Cut.of(np.array(lengths["source"])), target, Cut.of(np.array(lengths["target"]))


# --- the plain form


class Plain:
    """The states of a pair, from the weights of a model by name and the formulas of the papers."""

    def __init__(self, model: Transformer) -> None:
        self.config = model.config
        self.w = {name: p.double() for name, p in model.named_parameters(remove_duplicate=False)}

    def __call__(self, source: Tensor, target: Tensor) -> Tensor:
        x = self.embedded("encoder", source)
        for i in range(self.config.encoder_layers):
            x = self.sublayer(x, f"encoder.layers.{i}", "self", lambda y, n: self.attention(y, y, n, causal=False))
            x = self.sublayer(x, f"encoder.layers.{i}", "feed_forward", self.feed_forward)
        memory = self.last(x, "encoder")
        x = self.embedded("decoder", target)
        for i in range(self.config.decoder_layers):
            x = self.sublayer(x, f"decoder.layers.{i}", "self", lambda y, n: self.attention(y, y, n, causal=True))
            x = self.sublayer(x, f"decoder.layers.{i}", "cross", lambda y, n: self.attention(y, memory, n))
            x = self.sublayer(x, f"decoder.layers.{i}", "feed_forward", self.feed_forward)
        return self.last(x, "decoder")

    def embedded(self, side: str, ids: Tensor) -> Tensor:
        d = self.config.d_model
        x = self.w[f"{side}.embedding.table.weight"][ids] * math.sqrt(d)
        if self.config.positions == "sinusoidal":
            angle = [[pos / 10000 ** (2 * (j // 2) / d) for j in range(d)] for pos in range(len(ids))]
            x = x + torch.tensor([[(math.cos if j % 2 else math.sin)(a) for j, a in enumerate(row)] for row in angle])
        if self.config.positions == "learned":
            x = x + self.w[f"{side}.embedding.positions.table.weight"][: len(ids)]
        return x

    def sublayer(self, x: Tensor, layer: str, kind: str, f: Any) -> Tensor:
        name = f"{layer}.feed_forward" if kind == "feed_forward" else f"{layer}.{kind}_attention"
        norm = f"{layer}.around_{kind}.norm"
        if self.config.norm == "pre":
            return x + f(self.norm(x, norm), name)
        return self.norm(x + f(x, name), norm)

    def last(self, x: Tensor, side: str) -> Tensor:
        return self.norm(x, f"{side}.norm") if self.config.norm == "pre" else x

    def norm(self, x: Tensor, name: str) -> Tensor:
        if self.config.norm_type == "rms":
            return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self.w[f"{name}.weight"]
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.w[f"{name}.weight"].t() + self.w[f"{name}.bias"]

    def feed_forward(self, x: Tensor, name: str) -> Tensor:
        inner = self.linear(x, f"{name}.inner")
        half = inner.shape[1] // 2
        act = {
            "relu": lambda: inner.clamp(min=0),
            "gelu": lambda: inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))),
            "swiglu": lambda: inner[:, :half] * inner[:, :half].sigmoid() * inner[:, half:],
        }[self.config.activation]
        return self.linear(act(), f"{name}.outer")

    def attention(self, x: Tensor, y: Tensor, name: str, causal: bool | None = None) -> Tensor:
        """Causal or not, of itself; None: of another side, which has no distances."""
        c = self.config
        key, value = c.heads * c.key_width, c.heads * c.value_width
        q, k, v = (
            (z @ w.t() + b).view(len(z), c.heads, -1)
            for z, w, b in zip(
                (x, y, y),
                self.w[f"{name}.inputs.weight"].split([key, key, value]),
                self.w[f"{name}.inputs.bias"].split([key, key, value]),
                strict=True,
            )
        )
        if causal is not None and c.positions == "rotary":
            q, k = rotated(q), rotated(k)
        heads = [self.head(q[:, h], k[:, h], v[:, h], h, name, causal) for h in range(c.heads)]
        return self.linear(torch.cat(heads, 1), f"{name}.output")

    def head(self, q: Tensor, k: Tensor, v: Tensor, h: int, name: str, causal: bool | None) -> Tensor:
        c, out = self.config, []
        keys, values = (self.w.get(f"{name}.core.places.{t}") for t in ("keys", "of_values"))
        for i in range(len(q)):
            scores, seen = [], []
            for j in range(len(k)):
                far = c.window and causal is not None and abs(i - j) > c.window / 2
                if far or (causal and j > i):
                    continue
                shift = 0 if keys is None else keys[clipped(j - i, c.max_distance)]
                score = q[i] @ (k[j] + shift) / math.sqrt(c.key_width)
                if causal is not None and c.positions == "alibi":
                    score = score - slope(h, c.heads) * abs(i - j)
                scores.append(score)
                shift = 0 if values is None else values[clipped(j - i, c.max_distance)]
                seen.append(v[j] + shift)
            out.append(torch.stack(scores).softmax(0) @ torch.stack(seen))
        return torch.stack(out)


def clipped(distance: int, most: int) -> int:
    """The row of a table of 2 · most + 1 distances."""
    return max(-most, min(most, distance)) + most


def rotated(x: Tensor) -> Tensor:
    """Pairs of numbers as complex ones, times e^(i pos θ)."""
    width = x.shape[-1]
    theta = 10000.0 ** (-2 * torch.arange(width // 2, dtype=torch.float64) / width)
    turn = torch.polar(torch.ones(1, dtype=torch.float64), torch.arange(len(x))[:, None] * theta)
    return torch.view_as_real(torch.view_as_complex(x.view(*x.shape[:2], -1, 2)) * turn[:, None]).flatten(2)


def slope(head: int, heads: int) -> float:
    """ALiBi's, for 4 and for 6 heads; the latter from the authors' get_slopes(6)."""
    known = {4: [2**-2, 2**-4, 2**-6, 2**-8], 6: [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]}
    return float(known[heads][head])


# --- what a model computes, one way or another


def kernels_stand_in(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, *, window_size: tuple[int, int]
) -> Tensor:
    """What the documentation of torch's `varlen_attn` promises, sentence by sentence."""
    out = []
    for s in range(len(cu_q) - 1):
        a, b = slice(int(cu_q[s]), int(cu_q[s + 1])), slice(int(cu_k[s]), int(cu_k[s + 1]))
        assert a.stop - a.start <= max_q
        assert b.stop - b.start <= max_k
        i, j = torch.arange(a.stop - a.start)[:, None], torch.arange(b.stop - b.start)
        left, right = (10**6 if side < 0 else side for side in window_size)
        seen = (j >= i - left) & (j <= i + right)
        parts = (x[part].transpose(0, 1) for x, part in ((q, a), (k, b), (v, b)))
        out.append(F.scaled_dot_product_attention(*parts, attn_mask=seen).transpose(0, 1))
    return torch.cat(out)


@pytest.fixture(params=["padded", "packed"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether attention pads, or a kernel for packed streams does the work: here one that stands in for CUDA's."""
    if request.param == "packed":
        import torch.nn.attention.varlen as varlen

        def takes(core: DotProduct, q: Tensor, v: Tensor) -> bool:
            return core.bare and q.shape == v.shape

        monkeypatch.setattr(varlen, "varlen_attn", kernels_stand_in)
        monkeypatch.setattr(views, "_kernel_takes", takes)
    return str(request.param)


def uncached(model: Transformer) -> list[Tensor]:
    """Logits of each sentence of `streams`."""
    return list(model.logits(model(*streams())).split(LENGTHS["target"]))


def cached(model: Transformer) -> list[Tensor]:
    """The same, token by token; sentences that have ended go on with any token, which is cut off."""
    source, source_cut, target, _ = streams()
    fed = nn.utils.rnn.pad_sequence(list(target.split(LENGTHS["target"])), batch_first=True, padding_value=9)
    decoding = Decoding(model, source, source_cut)
    stepped = torch.stack([decoding.step(column) for column in fed.t()], 1)
    return [row[:n] for row, n in zip(stepped, LENGTHS["target"], strict=True)]


def expected(model: Transformer) -> list[Tensor]:
    source, _, target, _ = streams()
    plain = Plain(model)
    pairs = zip(source.split(LENGTHS["source"]), target.split(LENGTHS["target"]), strict=True)
    return [plain(x, y) @ model.projection.double().t() for x, y in pairs]


@pytest.fixture(scope="module")
def answers() -> dict[str, list[Tensor]]:
    """The plain form of each variant, computed when first asked for."""
    return {}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("way", [uncached, cached])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_agrees_with_its_plain_form(
    variant: str, form: str, way: Any, precision: str, answers: dict[str, list[Tensor]]
) -> None:
    model = built(**VARIANTS[variant])
    with torch.inference_mode():
        if variant not in answers:
            answers[variant] = expected(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found = way(model)
    for ours, theirs in zip(found, answers[variant], strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < (1e-5 if precision == "fp32" else 3e-2), error


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gradients_of_every_variant_are_those_of_its_plain_form(variant: str, form: str) -> None:
    model = built(**VARIANTS[variant])
    weights = [torch.linspace(-1, 1, n * VOCABULARY).view(n, -1) for n in LENGTHS["target"]]
    torch.stack([(x * w).sum() for x, w in zip(uncached(model), weights, strict=True)]).sum().backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    torch.stack([(x * w).sum() for x, w in zip(expected(model), weights, strict=True)]).sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None
        assert (ours[name] - p.grad).norm() <= 1e-4 * p.grad.norm() + 1e-4, name


@pytest.mark.parametrize("positions", ["sinusoidal", "relative", "rotary", "alibi"])
def test_positions_that_extend_go_on_beyond_any_length_that_was_prepared(positions: str) -> None:
    model, length = built(positions=positions, layers=1), 20
    for module in model.modules():
        if isinstance(module, _Angles):
            module.sin, module.cos = module.sin[:3], module.cos[:3]  # as though only this had been prepared
    cut = Cut.of(np.array([length]))
    source, target = torch.randint(4, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        decoding = Decoding(model, source, cut)
        stepped = torch.cat([decoding.step(token[None]) for token in target])
        whole = model.logits(model(source, cut, target, cut))
        plain = Plain(model)(source, target) @ model.projection.double().t()
    for found in (whole, stepped):
        assert (found.double() - plain).norm() < 1e-5 * plain.norm()


@pytest.mark.parametrize(
    ("choices", "why"),
    [
        ({"positions": "alibi"}, "model.positions: alibi"),
        ({"attention_dropout": 0.1}, "model.attention_dropout: 0.1"),
        ({"d_v": 32}, "model.d_k: 64 and model.d_v: 32, which differ"),
        ({"heads": 2, "d_model": 8}, "heads of width 4, which is no multiple of 8 up to 256"),
        ({"positions": "rotary", "window": 8}, None),
        ({}, None),
    ],
)
def test_what_keeps_a_model_from_the_fastest_kernel_is_told(
    choices: dict[str, object], why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, gpu = Model.model_validate(choices), torch.device("cuda")
    monkeypatch.setattr(views, "has_bf16", lambda device: True)
    assert views.why_padded(model, gpu, torch.bfloat16) == why
    assert views.why_padded(model, gpu, torch.float32) == "train.precision: fp32"
    monkeypatch.setattr(views, "has_bf16", lambda device: False)
    assert views.why_padded(model, gpu, torch.bfloat16) == "cuda, which is no GPU that multiplies bf16"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_agrees_with_its_plain_form_on_a_gpu(variant: str, precision: str) -> None:
    """Whole, stepwise, and the gradient of the first layer; in bf16 by CUDA's own kernel where it takes the variant."""
    model = built(**VARIANTS[variant])
    first = model.encoder.layers[0].get_parameter("self_attention.inputs.weight")
    plain = expected(model)
    torch.cat(plain).square().mean().backward()
    gradient, first.grad = first.grad, None
    model.cuda()
    source, source_cut, target, target_cut = streams()
    cuts = [Cut.of(cut.lengths, "cuda") for cut in (source_cut, target_cut)]
    fed = nn.utils.rnn.pad_sequence(list(target.split(LENGTHS["target"])), batch_first=True, padding_value=9).cuda()
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
        whole = model.logits(model(source.cuda(), cuts[0], target.cuda(), cuts[1]))
        with torch.inference_mode():
            decoding = Decoding(model, source.cuda(), cuts[0])
            stepped = torch.stack([decoding.step(column) for column in fed.t()], 1)
    whole.float().square().mean().backward()
    found = zip(whole.detach().split(LENGTHS["target"]), stepped, plain, strict=True)
    pairs = [(x, theirs) for ours, row, theirs in found for x in (ours, row[: len(theirs)])]
    bound = 1e-4 if precision == "fp32" else 3e-2
    assert gradient is not None
    assert first.grad is not None
    assert (first.grad.cpu() - gradient).norm() < 5 * bound * gradient.norm()
    for ours, theirs in pairs:
        assert (ours.cpu().double() - theirs).norm() < bound * theirs.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("positions", ["relative", "alibi", "rotary"])
def test_a_thousand_tokens_in_bf16_keep_their_weight_on_a_gpu(positions: str) -> None:
    model, cut = built(positions=positions, layers=1), Cut.of(np.array([1000]), "cuda")
    ids = torch.randint(4, VOCABULARY, (1000,))
    with torch.inference_mode():
        exact = model(ids, Cut.of(np.array([1000])), ids, Cut.of(np.array([1000])))
        model.cuda()
        with torch.autocast("cuda", torch.bfloat16):
            found = model(ids.cuda(), cut, ids.cuda(), cut)
    assert (found.cpu() - exact).norm() < 3e-2 * exact.norm()
