"""What attention looks at, for whoever wants to see it; the model itself knows nothing of being watched.

Axes: S sentences, H heads, Lq and Lk lengths of the longest of the queries and keys, L length of a sentence,
C blocks, W width of a block, R hypotheses, V vocabulary.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from nmt.model.cache import Decoding
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer

WATCHED = {  # where the weights of each kind of attention come to be, in every layer
    "encoder": ("encoder", "self_attention.core.weights"),
    "decoder": ("decoder", "self_attention.core.weights"),
    "cross": ("decoder", "cross_attention.core.weights"),
}


@contextmanager
def watched(
    model: Transformer, kinds: Collection[str] = tuple(WATCHED), kept: Callable[[Tensor], Tensor] = Tensor.detach
) -> Iterator[dict[str, list[Tensor]]]:
    """In the block, each forward pass leaves its attention weights under "encoder", "decoder" and "cross".

    `kinds` are those that are wanted, and `kept` gives what of a layer's weights is to stay: all, if it is left out.
    One tensor [S·H, Lq, Lk] a layer, in their order; the rows of queries that are padding mean nothing. Restricted
    self-attention (`model.window`) has blocks of sentences in place of sentences, and their neighbourhood as keys;
    `unfolded` makes them whole.
    """
    seen: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    handles = []
    for kind in kinds:
        stack, place = WATCHED[kind]
        layers = model.get_submodule(f"{stack}.layers")
        assert isinstance(layers, nn.ModuleList)
        handles += [layer.get_submodule(place).register_forward_hook(_note(seen[kind], kept)) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def aligning_layer(model: Transformer) -> int:
    """The layer of the decoder, counted from 0, whose attention to the source tells best what comes from what.

    It is the one before the last (Garg et al. 2019, "Jointly Learning to Align and Translate with Transformer Models").
    """
    return max(len(model.decoder.layers) - 2, 0)


class WatchedDecoding(Decoding):
    """A decoding that also gives what it looks at: the attention of the aligning layer, its heads averaged."""

    def __init__(self, model: Transformer, source: Tensor, cut: Cut) -> None:
        super().__init__(model, source, cut)
        self._watched, self._layer = model, aligning_layer(model)
        self._covered = ~cut.filled  # [S, Lk], and the EOS of each sentence, which says nothing to be covered
        self._covered.scatter_(1, cut.filled.sum(1, keepdim=True) - 1, True)
        self._seen: Tensor | None = None

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [R, V] of what follows once each of the R hypotheses has got this token [R]."""
        with watched(self._watched, ["cross"], self._averaged) as seen:
            logits = super().step(tokens)
        self._seen = seen["cross"][self._layer]
        return logits

    def attention(self) -> Tensor:
        """[R, Lk]: how much of its attention the last step gave to each token of the source; 1 where no token is."""
        assert self._seen is not None
        return self._seen.masked_fill(self._covered[:, None], 1).flatten(0, 1)

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
        """Goes on with these rows [R'] of the R hypotheses, and, if given, with these sentences [S'] only."""
        super().select(rows, sentences)
        if sentences is not None:
            self._covered = self._covered.index_select(0, sentences)

    def _averaged(self, weights: Tensor) -> Tensor:
        """[S, R / S, Lk] of the weights [S·H, R / S, Lk] of a layer."""
        return weights.unflatten(0, (len(self._covered), -1)).mean(1)


def unfolded(weights: Tensor, heads: int, length: int) -> Tensor:
    """The weights [H, L, L] of one sentence's self-attention, whether they came whole or in blocks.

    Restricted attention (`nmt.model.views.Banded`) gives blocks [C·H, W, 2 W or 3 W], each beginning with the keys of
    the block before it. What a query could not see is 0.
    """
    if weights.shape[1] == length:
        return weights
    blocks = weights.unflatten(0, (-1, heads))
    count, _, width, reach = blocks.shape
    whole = blocks.new_zeros(heads, count * width, count * width + reach)
    for block in range(count):
        begin = block * width
        whole[:, begin : begin + width, begin : begin + reach] = blocks[block]
    return whole[:, :length, width : width + length]


def _note(into: list[Tensor], kept: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, object, Tensor], None]:
    """A hook that keeps what a module gives."""

    def note(module: nn.Module, inputs: object, weights: Tensor) -> None:
        into.append(kept(weights))

    return note
