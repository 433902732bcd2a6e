"""A model of ours as one of CTranslate2: its specification, filled with our weights.

Axes: H heads, K width of a head's queries and keys, V that of its values, W the wider of the two, D = d_model.
"""

from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.errors import ModelError, NmtError
from nmt.ids import BOS, EOS, NEVER, SPECIALS, UNK
from nmt.model.attention import Attention
from nmt.model.layers import DecoderLayer, EncoderLayer, FeedForward, Residual, norm
from nmt.model.positions import Learned, Relative
from nmt.model.transformer import Decoder, Encoder, Transformer
from nmt.recipe import Model
from nmt.text import Tokenizer, Tokenizers

LONGEST = 2048  # tokens of a sentence: CTranslate2's own sines are others, so ours go along as a table, which ends
OLDEST = (4, 7)  # versions before it have no rotary positions in encoders
RULED_OUT = -1e4  # a bias, which even fp16 holds; e to its power is 0


def require() -> ModuleType:
    """The package `ctranslate2`. Raises `NmtError` where it is missing or too old."""
    mend = "pip install 'nmt[ctranslate2]'"
    try:
        import ctranslate2
        import ctranslate2.specs
    except ImportError as error:
        raise NmtError(
            f"models of CTranslate2 are made by its package, which does not load ({error}): {mend}"
        ) from None
    version = tuple(int(part) for part in ctranslate2.__version__.split(".")[:2])
    if version < OLDEST:
        raise NmtError(f"ctranslate2 {ctranslate2.__version__} is too old for our models: {mend}")
    return cast(ModuleType, ctranslate2)


def check(config: Model) -> None:
    """Raises `ModelError` where CTranslate2 cannot hold such a model, with the keys of the recipe that it is about."""
    reasons = []
    if config.window:
        reasons.append(f"model.window: {config.window}, for its attention sees whole sentences")
    if config.positions == "alibi":
        reasons.append("model.positions: alibi, for its encoder has none such")
    if reasons:
        raise ModelError(
            f"CTranslate2 cannot hold a model with {'; nor with '.join(reasons)}. Translate with `nmt translate`, "
            "or train without it"
        )


def specification(model: Transformer, tokenizers: Tokenizers) -> Any:
    """The `TransformerSpec` of a model, with its vocabularies; holds copies of its weights.

    Raises `ModelError` where CTranslate2 cannot hold it.
    """
    check(model.config)
    specs = require().specs
    config = model.config
    width = _width(config)
    shape: dict[str, Any] = {
        "num_heads": config.heads,
        "pre_norm": config.norm == "pre",
        "activation": {
            "relu": specs.Activation.RELU,
            "gelu": specs.Activation.GELU,
            "swiglu": specs.Activation.SWISH,
        }[config.activation],
        "ffn_glu": config.activation == "swiglu",
        "rms_norm": config.norm_type == "rms",
        "relative_position": config.positions == "relative",
        "rotary_dim": config.key_width if config.positions == "rotary" else None,
        "head_dim": width if width * config.heads != config.d_model else None,
    }
    spec = specs.TransformerSpec(
        specs.transformer_spec.TransformerEncoderSpec(config.encoder_layers, **shape),
        specs.transformer_spec.TransformerDecoderSpec(config.decoder_layers, **shape),
    )
    _encoder(spec.encoder, model)
    _decoder(spec.decoder, model)
    _vocabularies(spec, tokenizers)
    spec.config.layer_norm_epsilon = norm(config).eps
    return spec


def _vocabularies(spec: Any, tokenizers: Tokenizers) -> None:
    """Its tokens by id, and what the special ones are for. Both sides must call these by the same names."""
    special = tokenizers.source.pieces(range(SPECIALS))

    def tokens(tokenizer: Tokenizer) -> list[str]:
        return [*special, *tokenizer.pieces(range(SPECIALS, tokenizer.vocab_size))]

    spec.register_source_vocabulary(tokens(tokenizers.source))
    spec.register_target_vocabulary(tokens(tokenizers.target))
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = (special[i] for i in (UNK, BOS, EOS))
    spec.config.decoder_start_token = special[BOS]
    spec.config.add_source_eos = True


def _encoder(spec: Any, model: Transformer) -> None:
    spec.embeddings[0].weight = _copy(model.encoder.embedding.table.weight)
    _surroundings(spec, model.encoder)
    for theirs, ours in zip(spec.layer, model.encoder.layers, strict=True):
        assert isinstance(ours, EncoderLayer)
        _self_attention(theirs.self_attention, ours.self_attention, ours.around_self, model.config)
        _feed_forward(theirs.ffn, ours.feed_forward, ours.around_feed_forward)


def _decoder(spec: Any, model: Transformer) -> None:
    spec.embeddings.weight = _copy(model.decoder.embedding.table.weight)
    _surroundings(spec, model.decoder)
    for theirs, ours in zip(spec.layer, model.decoder.layers, strict=True):
        assert isinstance(ours, DecoderLayer)
        _self_attention(theirs.self_attention, ours.self_attention, ours.around_self, model.config)
        _cross_attention(theirs.attention, ours.cross_attention, ours.around_cross, model.config)
        _feed_forward(theirs.ffn, ours.feed_forward, ours.around_feed_forward)
    bias = torch.zeros(len(model.projection))
    bias[list(NEVER)] = RULED_OUT  # our search never says these, whoever asks; there it would be an option of each call
    _linear(spec.projection, model.projection, bias)


def _surroundings(spec: Any, stack: Encoder | Decoder) -> None:
    """What lies before and after the layers: positions, and the last norm."""
    positions = stack.embedding.positions
    if positions is not None:
        count = positions.table.num_embeddings if isinstance(positions, Learned) else LONGEST
        spec.position_encodings.encodings = _copy(positions(torch.arange(count), count))
    if not isinstance(stack.norm, nn.Identity):
        _norm(spec.layer_norm, stack.norm)


def _self_attention(spec: Any, ours: Attention, around: Residual, config: Model) -> None:
    _linear(spec.linear[0], *_inputs(ours, config, "qkv"))
    _attention(spec, ours, around, config)
    places = ours.core.places
    if isinstance(places, Relative):
        for name, table in (("keys", places.keys), ("values", places.of_values)):
            setattr(spec, f"relative_position_{name}", _copy(F.pad(table, (0, _width(config) - table.shape[1]))))


def _cross_attention(spec: Any, ours: Attention, around: Residual, config: Model) -> None:
    _linear(spec.linear[0], *_inputs(ours, config, "q"))
    _linear(spec.linear[1], *_inputs(ours, config, "kv"))
    _attention(spec, ours, around, config)


def _attention(spec: Any, ours: Attention, around: Residual, config: Model) -> None:
    """What self- and cross-attention have in common: the way out, the norm, and what scores are multiplied by."""
    _linear(spec.linear[-1], _widened(ours.output.weight.t(), config).t(), ours.output.bias)
    spec.queries_scale = config.key_width**-0.5
    _norm(spec.layer_norm, around.norm)


def _inputs(ours: Attention, config: Model, which: str) -> tuple[Tensor, Tensor]:
    """The weight [… H W, D] and the bias [… H W] of the projections to `which` of queries, keys and values.

    There, all of a head have one width. Numbers that are 0 make up for what ours lack, and change no product.
    """
    sizes = [config.heads * width for width in (config.key_width, config.key_width, config.value_width)]
    weights, biases = (dict(zip("qkv", x.split(sizes), strict=True)) for x in (ours.inputs.weight, ours.inputs.bias))
    weight, bias = (torch.cat([_widened(parts[name], config) for name in which]) for parts in (weights, biases))
    return weight, bias


def _feed_forward(spec: Any, ours: FeedForward, around: Residual) -> None:
    matrices = 2 if hasattr(spec, "linear_0_noact") else 1
    weights, biases = ours.inner.weight.chunk(matrices), ours.inner.bias.chunk(matrices)
    _linear(spec.linear_0, weights[0], biases[0])
    if matrices == 2:
        _linear(spec.linear_0_noact, weights[1], biases[1])
    _linear(spec.linear_1, ours.outer.weight, ours.outer.bias)
    _norm(spec.layer_norm, around.norm)


def _norm(spec: Any, ours: Any) -> None:
    spec.gamma = _copy(ours.weight)
    if isinstance(ours, nn.LayerNorm):
        spec.beta = _copy(ours.bias)


def _linear(spec: Any, weight: Tensor, bias: Tensor) -> None:
    spec.weight, spec.bias = _copy(weight), _copy(bias)


def _widened(rows: Tensor, config: Model) -> Tensor:
    """The rows [H K, …] or [H V, …] of all heads with zeros behind those of each head, [H W, …]."""
    apart = rows.unflatten(0, (config.heads, -1))
    return F.pad(apart, [0, 0] * (apart.dim() - 2) + [0, _width(config) - apart.shape[1]]).flatten(0, 1)


def _width(config: Model) -> int:
    return max(config.key_width, config.value_width)


def _copy(x: Tensor) -> Any:
    """As an array of its own: quantising works in place."""
    return x.detach().float().contiguous().numpy().copy()
