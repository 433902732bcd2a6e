"""What attention looks at, for whoever wants to see it; the model itself knows nothing of being watched.

Axes: S sentences, H heads, Lq and Lk lengths of the longest of the queries and keys, L length of a sentence,
C blocks, W width of a block.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

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
