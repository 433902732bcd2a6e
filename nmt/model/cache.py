"""What decoding remembers from step to step: the keys and values of the tokens so far, and those of the source.

Axes: N sentences, B hypotheses of each, R = N·B rows, H heads, K width of a head, L length so far or of the source.
"""

import torch
from torch import Tensor

from nmt.model.streams import Cut
from nmt.model.transformer import KeysValues, Transformer
from nmt.model.views import Rows


class KeyValueCache:
    """The keys and values [R, H, L, K] of one layer's tokens so far; of the last `most` of them, if it is given."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._kept: KeysValues | None = None

    def __call__(self, k: Tensor, v: Tensor) -> KeysValues:
        """Adds those of one more token [R, H, K]; gives all of them, [R, H, L, K]."""
        new = k[:, :, None], v[:, :, None]
        if self._kept is not None:
            new = torch.cat([self._kept[0], new[0]], 2), torch.cat([self._kept[1], new[1]], 2)
        if self._most is not None:
            new = new[0][:, :, -self._most :], new[1][:, :, -self._most :]
        self._kept = new
        return new

    def select(self, rows: Tensor) -> None:
        """Goes on with these rows [R'] only, in this order; a row may be taken more than once."""
        if self._kept is not None:
            self._kept = self._kept[0].index_select(0, rows), self._kept[1].index_select(0, rows)


class Decoding:
    """Sentences being translated: what `step` needs to say what comes next in each hypothesis."""

    def __init__(self, model: Transformer, source: Tensor, cut: Cut) -> None:
        """Encodes the source stream [Ts]; each sentence begins with one hypothesis, which is empty."""
        self._model = model
        grid = cut.grid(model.config.heads)
        states = model.encoder(source, cut)
        self._sources = [
            (_apart(grid.pad(k), cut.sentences), _apart(grid.pad(v), cut.sentences))
            for k, v in model.decoder.sources(states)
        ]
        self._mask = torch.zeros(cut.filled.shape, device=source.device).masked_fill(~cut.filled, -torch.inf)[:, None]
        seen = model.config.window // 2 + 1 if model.config.window else None
        self._caches = [KeyValueCache(seen) for _ in model.decoder.layers]
        self._length = 0

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [R, V] of what follows once each of the R hypotheses has got this token [R]."""
        decoder, length = self._model.decoder, self._length
        self._length += 1
        place = torch.full_like(tokens, length)
        past = Rows(place=place, longest=length + 1)
        x = decoder.embedding(tokens, place, length + 1)
        states = decoder(x, past, self._sources, Rows(self._mask), self._caches)
        return self._model.logits(states)

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
        """Goes on with these rows [R'] of the R hypotheses, and, if given, with these sentences [N'] only."""
        for cache in self._caches:
            cache.select(rows)
        if sentences is not None:
            self._sources = [(k.index_select(0, sentences), v.index_select(0, sentences)) for k, v in self._sources]
            self._mask = self._mask.index_select(0, sentences)


def _apart(x: Tensor, sentences: int) -> Tensor:
    """[N·H, L, K] as [N, H, L, K]."""
    return x.view(sentences, -1, *x.shape[1:])
