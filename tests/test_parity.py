"""We compute what others compute: models of Hugging Face's `transformers` with the same weights say the same.

`torch.nn.Transformer` is compared with in `test_model.py`.
"""

import numpy as np
import pytest
import torch
from test_variants import LENGTHS, VOCABULARY, built, streams
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel, VitsConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.roformer.modeling_roformer import (
    RoFormerSelfAttention,
    RoFormerSinusoidalPositionalEmbedding,
)
from transformers.models.vits.modeling_vits import VitsAttention

from nmt.ids import BOS, EOS, PAD
from nmt.model.attention import Attention
from nmt.model.positions import Alibi, Rotary, in_attention
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.model.views import Packed
from nmt.recipe import Model

D, LAYERS = 32, 2
# Marian has all sines before all cosines, where the paper takes turns: the states' numbers lie in another order.
ORDER = torch.cat([torch.arange(0, D, 2), torch.arange(1, D, 2)])

# Their name of each of our sub-modules, in either kind of layer.
ATTENTION = {"self_attention": "self_attn", "cross_attention": "encoder_attn"}
NORMS = {
    "around_self": "self_attn_layer_norm",
    "around_cross": "encoder_attn_layer_norm",
    "around_feed_forward": "final_layer_norm",
}


def marian() -> MarianMTModel:
    """A Marian model as the paper has it, its weights random, its biases and norms not what they begin as."""
    torch.manual_seed(3)
    shape = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in
             (("layers", LAYERS), ("attention_heads", 4), ("ffn_dim", 48))}  # fmt: skip
    config = MarianConfig(
        vocab_size=VOCABULARY, d_model=D, activation_function="relu", scale_embedding=True, dropout=0.0,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, forced_eos_token_id=EOS, decoder_start_token_id=BOS,
        max_position_embeddings=64, init_std=0.2, **shape,
    )  # fmt: skip
    model = MarianMTModel(config).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=float(name.endswith("norm.weight")), std=0.3)
    return model


def shared_views(ours: Transformer, theirs: MarianMTModel) -> list[tuple[Tensor, Tensor, tuple[int, ...]]]:
    """Every weight as a part of our tensor, their tensor, and the dimensions that hold the numbers of a state."""
    found = [(ours.projection.data, theirs.model.shared.weight.data, (1,))]

    def linear(mine: Tensor, bias: Tensor, other: nn.Linear, *dims: int) -> None:
        found.append((mine.data, other.weight.data, dims))
        found.append((bias.data, other.bias.data, dims if dims == (0,) else ()))

    for side in ("encoder", "decoder"):
        for a, b in zip(getattr(ours, side).layers, getattr(theirs.model, side).layers, strict=True):
            for name, other in ATTENTION.items():
                if hasattr(a, name):
                    mine, their = getattr(a, name), getattr(b, other)
                    parts = zip(mine.inputs.weight.chunk(3), mine.inputs.bias.chunk(3), "qkv", strict=True)
                    for weight, bias, letter in parts:
                        linear(weight, bias, getattr(their, f"{letter}_proj"), 1)
                    linear(mine.output.weight, mine.output.bias, their.out_proj, 0)
            linear(a.feed_forward.inner.weight, a.feed_forward.inner.bias, b.fc1, 1)
            linear(a.feed_forward.outer.weight, a.feed_forward.outer.bias, b.fc2, 0)
            for name, other in NORMS.items():
                if hasattr(a, name):
                    mine, their = getattr(a, name).norm, getattr(b, other)
                    found += [(mine.weight.data, their.weight.data, (0,)), (mine.bias.data, their.bias.data, (0,))]
    return found


def reordered(x: Tensor, dims: tuple[int, ...], order: Tensor) -> Tensor:
    for dim in dims:
        x = x.index_select(dim, order)
    return x


def their_logits(theirs: MarianMTModel) -> list[Tensor]:
    """Logits of each sentence of `streams`, by Marian, in one padded batch."""
    source, _, target, _ = streams()
    sides = [
        nn.utils.rnn.pad_sequence(list(x.split(n)), batch_first=True, padding_value=PAD)
        for x, n in zip((source, target), LENGTHS.values(), strict=True)
    ]
    logits = theirs(input_ids=sides[0], attention_mask=sides[0].ne(PAD).long(), decoder_input_ids=sides[1]).logits
    return [row[:n] for row, n in zip(logits, LENGTHS["target"], strict=True)]


@pytest.mark.parametrize("direction", ["ours into Marian", "Marian's into ours"])
@torch.no_grad()
def test_marian_with_the_same_weights_gives_the_same_logits(direction: str) -> None:
    ours, theirs = built(layers=LAYERS), marian()
    for mine, their, dims in shared_views(ours, theirs):
        if direction == "ours into Marian":
            their.copy_(reordered(mine, dims, ORDER))
        else:
            mine.copy_(reordered(their, dims, ORDER.argsort()))
    copied = sum(mine.numel() for mine, _, _ in shared_views(ours, theirs))
    assert copied == ours.parameter_count()
    found = ours.logits(ours(*streams())).split(LENGTHS["target"])
    for a, b in zip(found, their_logits(theirs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_rotary_positions_are_roformers() -> None:
    length, heads, width = 9, 3, 8
    x = torch.randn(length, heads, width)
    table = RoFormerSinusoidalPositionalEmbedding(length, width)
    table.weight = nn.Parameter(table.create_weight(), requires_grad=False)
    theirs, _ = RoFormerSelfAttention.apply_rotary_position_embeddings(
        table(torch.Size((1, length)))[None, None], x.transpose(0, 1)[None], x.transpose(0, 1)[None]
    )
    ours = Rotary(width).rotated(x, torch.arange(length), length)
    torch.testing.assert_close(ours, theirs[0].transpose(0, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16])
def test_alibi_is_blooms_where_the_keys_lie_in_the_past(heads: int) -> None:
    """Bloom adds slope · position; a softmax over the past is the same as with -slope · distance."""
    length = 7
    future = torch.full((length, length), -torch.inf).triu(1)
    theirs = build_alibi_tensor(torch.ones(1, length), heads, torch.float32) + future
    ours = Alibi(heads).scores(torch.zeros(heads, length, 4), length, 0) + future
    torch.testing.assert_close(ours.softmax(-1), theirs.softmax(-1))


def test_relative_positions_are_those_of_vits() -> None:
    """VITS has Shaw's vectors for keys and values; unlike Shaw it has none beyond the largest distance."""
    length, reach = 8, 10
    theirs = VitsAttention(VitsConfig(hidden_size=D, num_attention_heads=4, window_size=reach, attention_dropout=0.0))
    config = Model(d_model=D, heads=4, positions="relative", max_distance=reach)
    ours = Attention(config, in_attention(config)).eval()
    places = ours.core.places
    for mine, their in ((places.keys, theirs.emb_rel_k), (places.of_values, theirs.emb_rel_v)):
        mine.data.copy_(their[0])
    projections = theirs.q_proj, theirs.k_proj, theirs.v_proj
    ours.inputs.weight.data.copy_(torch.cat([p.weight for p in projections]))
    ours.inputs.bias.data.copy_(torch.cat([p.bias for p in projections]))
    ours.output.load_state_dict(theirs.out_proj.state_dict())
    x, cut = torch.randn(length, D), Cut.of(np.array([length]))
    view = Packed(cut, cut)
    expected, _ = theirs.eval()(x[None])
    torch.testing.assert_close(ours(*ours.project(x, view), view), expected[0], atol=1e-5, rtol=1e-5)
