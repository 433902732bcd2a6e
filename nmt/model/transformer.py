"""The Transformer (Vaswani et al. 2017): encoder, decoder, shared embeddings.

Axes: T tokens of a stream (Ts of the source, Tt of the target), D = d_model, V vocabulary, S sentences, B beams of a
sentence, H heads, K width of a head.
"""

import math
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from nmt.model.attention import View
from nmt.model.dropout import Dropout
from nmt.model.layers import DecoderLayer, EncoderLayer, History, norm, only_these
from nmt.model.positions import in_embedding
from nmt.model.streams import Cut
from nmt.model.views import Packed, self_view
from nmt.recipe import Model

KeysValues = tuple[Tensor, Tensor]


class Embedding(nn.Module):
    """Token embeddings times √D (section 3.4) plus positions (3.5), then dropout (5.4)."""

    def __init__(self, config: Model, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table
        self.scale = math.sqrt(config.d_model)
        self.positions = in_embedding(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens: Tensor, positions: Tensor, longest: int) -> Tensor:
        """[T, D] for token ids [T] at these positions [T], all below `longest`."""
        x = self.table(tokens) * self.scale
        if self.positions is not None:
            x = x + self.positions(positions, longest)
        out: Tensor = self.dropout(x)
        return out


class Encoder(nn.Module):
    """A stack of layers over the source."""

    def __init__(self, config: Model, table: nn.Embedding) -> None:
        super().__init__()
        self._config = config
        self.embedding = Embedding(config, table)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.norm = norm(config) if config.norm == "pre" else nn.Identity()

    def forward(self, tokens: Tensor, cut: Cut) -> Tensor:
        """States [Ts, D] of the source ids [Ts]."""
        view = self_view(self._config, cut)
        x = self.embedding(tokens, cut.positions, cut.longest)
        for layer in self.layers:
            x = layer(x, view)
        out: Tensor = self.norm(x)
        return out


class Decoder(nn.Module):
    """A stack of layers over the target, each looking at the source."""

    def __init__(self, config: Model, table: nn.Embedding) -> None:
        super().__init__()
        self.embedding = Embedding(config, table)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = norm(config) if config.norm == "pre" else nn.Identity()

    def sources(self, states: Tensor) -> list[KeysValues]:
        """Each layer's keys and values [Ts, H, K] of the encoder's states [Ts, D]."""
        return [cast(DecoderLayer, layer).cross_attention.keys_values(states) for layer in self.layers]

    def forward(
        self,
        x: Tensor,
        view: View,
        sources: Tensor | Sequence[KeysValues],
        source_view: View,
        histories: Sequence[History] | None = None,
    ) -> Tensor:
        """States [T, D] of embedded tokens x [T, D]; `histories`, one a layer, widen what self-attention sees.

        `sources`: the encoder's states, or each layer's keys and values of them where they are used again.
        """
        each = [sources] * len(self.layers) if isinstance(sources, Tensor) else sources
        for layer, source, history in zip(self.layers, each, histories or [only_these] * len(self.layers), strict=True):
            x = layer(x, history, view, source, source_view)
        out: Tensor = self.norm(x)
        return out


class Transformer(nn.Module):
    """The whole model."""

    def __init__(self, config: Model, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        target = _table(target_vocabulary, config.d_model)
        source = target if config.embeddings == "shared" else _table(source_vocabulary, config.d_model)
        self.encoder = Encoder(config, source)
        self.decoder = Decoder(config, target)
        self.output = target if config.embeddings != "separate" else _table(target_vocabulary, config.d_model)

    def forward(self, source: Tensor, source_cut: Cut, target: Tensor, target_cut: Cut) -> Tensor:
        """Decoder states [Tt, D] for source ids [Ts] and the target ids [Tt] fed in (teacher forcing)."""
        states = self.encoder(source, source_cut)
        x = self.decoder.embedding(target, target_cut.positions, target_cut.longest)
        view = self_view(self.config, target_cut, causal=True)
        out: Tensor = self.decoder(x, view, states, Packed(target_cut, source_cut))
        return out

    @property
    def projection(self) -> Tensor:
        """The matrix [V, D] that turns the decoder's states into logits."""
        return self.output.weight

    def logits(self, states: Tensor) -> Tensor:
        """[T, V] for decoder states [T, D]."""
        return F.linear(states, self.projection)

    @property
    def longest_output(self) -> int:
        """The most tokens, EOS not counted, that the decoder can give."""
        return self.config.longest - 1

    def parameter_count(self) -> int:
        """Trained numbers, each counted once however often it is shared."""
        return sum(p.numel() for p in self.parameters())


def _table(vocabulary: int, d_model: int) -> nn.Embedding:
    """An embedding table drawn with variance 1/D: times √D it enters at the size of the position signal."""
    table = nn.Embedding(vocabulary, d_model)
    nn.init.normal_(table.weight, std=d_model**-0.5)
    return table
