"""A model folder of ours as Hugging Face's Marian model, and `generate` with it, for `decoding.py`.

The folder is that of a model that was widened: post-norm, one matrix for source, target and output, learned positions.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MarianConfig, MarianMTModel

from nmt.ids import BOS, EOS, PAD
from nmt.model.folder import load, weights_of
from nmt.recipe import Model
from nmt.text import Tokenizers

ATTENTION = {"self_attention": "self_attn", "cross_attention": "encoder_attn"}
NORMS = {
    "around_self": "self_attn_layer_norm",
    "around_cross": "encoder_attn_layer_norm",
    "around_feed_forward": "final_layer_norm",
}


def loaded(folder: Path, device: str, precision: torch.dtype) -> tuple[Any, Tokenizers]:
    """The model of a folder as a Marian model, and its tokenizers."""
    found = load(folder)
    return marian(found.recipe.model, weights_of(found.model)).to(device, precision), found.tokenizers


def marian(config: Model, weights: dict[str, Tensor]) -> Any:
    """The Marian model with these weights."""
    table = weights["encoder.embedding.table.weight"]
    sizes: dict[str, Any] = {
        f"{side}_{what}": size
        for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers))
        for what, size in (("layers", layers), ("attention_heads", config.heads), ("ffn_dim", config.d_ffn))
    }
    theirs = MarianConfig(
        vocab_size=len(table), d_model=config.d_model, activation_function="relu", scale_embedding=True, dropout=0.0,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, forced_eos_token_id=None, decoder_start_token_id=BOS,
        max_position_embeddings=config.max_positions, **sizes,
    )  # fmt: skip
    model: Any = MarianMTModel(theirs).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
        model.model.shared.weight.copy_(table)
        for side, stack in (("encoder", model.model.encoder), ("decoder", model.model.decoder)):
            stack.embed_positions.weight.copy_(weights[f"{side}.embedding.positions.table.weight"])
            for name, value in renamed(weights, f"{side}.layers.", config):
                stack.get_parameter(f"layers.{name}").copy_(value)
    if any(bool(parameter.isnan().any()) for parameter in model.parameters()):
        raise ValueError("weights of Marian's that ours do not have")
    return model


def renamed(weights: dict[str, Tensor], of: str, config: Model) -> Iterator[tuple[str, Tensor]]:
    """The weights of the layers of a side, by Marian's names: queries, keys and values are matrices of their own."""
    for name, value in weights.items():
        if not name.startswith(of):
            continue
        layer, part, rest = name.removeprefix(of).split(".", 2)
        kind = rest.rsplit(".", 1)[1]
        if part in NORMS:
            yield f"{layer}.{NORMS[part]}.{kind}", value
        elif part == "feed_forward":
            yield f"{layer}.{'fc1' if rest.startswith('inner') else 'fc2'}.{kind}", value
        elif rest.startswith("output"):
            yield f"{layer}.{ATTENTION[part]}.out_proj.{kind}", value
        else:
            for letter, matrix in zip("qkv", value.chunk(3), strict=True):
                yield f"{layer}.{ATTENTION[part]}.{letter}_proj.{kind}", matrix


@torch.inference_mode()
def translate(
    model: Any, tokenizers: Tokenizers, lines: list[str], beam: int, batch: int, penalty: float
) -> tuple[list[str], int]:
    """The translations of lines, sorted by length into batches; and how many tokens they have, EOS among them."""
    sources = [[*ids, EOS] for ids in tokenizers.source.encode(lines)]
    order = sorted(range(len(lines)), key=lambda number: -len(sources[number]))
    said: list[list[int]] = [[]] * len(lines)
    for begin in range(0, len(order), batch):
        numbers = order[begin : begin + batch]
        rows = [torch.tensor(sources[number]) for number in numbers]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD).to(model.device)
        found = model.generate(
            input_ids=ids, attention_mask=(ids != PAD).long(), num_beams=beam, do_sample=False,
            length_penalty=penalty, early_stopping=False, max_new_tokens=ids.shape[1] + 50, bad_words_ids=None,
        )  # fmt: skip
        for number, tokens in zip(numbers, found.tolist(), strict=True):
            said[number] = tokens[1 : tokens.index(EOS, 1)] if EOS in tokens[1:] else tokens[1:]
    return tokenizers.target.decode(said), len(said) + sum(map(len, said))
