"""Which words of a source and its translation belong together, as cross-attention has it.

The translation is fed to the decoder (teacher forcing), and each of its subwords is linked with the subword of the
source that it looks at most, the heads of one layer averaged; by default that is `aligning_layer`.

Axes: S sentences, H heads, Lt and Ls lengths of the longest target and source.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nmt.data.batches import pack_sources
from nmt.ids import BOS
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.model.watching import aligning_layer, watched
from nmt.text import Tokenizers
from nmt.translation.translation import Links

Ids = Sequence[int]


def pharaoh(links: Links) -> str:
    """The links in the format of Pharaoh: "0-0 1-2"."""
    return " ".join(f"{source}-{target}" for source, target in links)


@torch.inference_mode()
def align(
    model: Transformer,
    tokenizers: Tokenizers,
    pairs: Sequence[tuple[str, str]],
    device: torch.device,
    batch_size: int = 64,
    layer: int | None = None,
) -> list[Links]:
    """The links of each pair of lines, source and target; none where either is blank.

    Words are what spaces part, once a line is `one_line`. `layer` of the decoder counts from 0; left out, it is the one
    before the last.
    """
    texts = zip(*pairs, strict=True) if pairs else ((), ())
    sources, targets = (side.encode(list(lines)) for side, lines in zip(tokenizers, texts, strict=True))
    targets = [ids[: model.longest_output] for ids in targets]
    found: list[Links] = [()] * len(pairs)
    filled = [i for i in range(len(pairs)) if sources[i] and targets[i]]
    for begin in range(0, len(filled), batch_size):
        batch = filled[begin : begin + batch_size]
        weights = attention(model, [sources[i] for i in batch], [targets[i] for i in batch], device, layer)
        for i, rows in zip(batch, weights.numpy(force=True), strict=True):
            seen = rows[: len(targets[i]), : len(sources[i])].argmax(1)
            of_source = words(tokenizers.source.pieces(sources[i]))[seen]
            of_target = words(tokenizers.target.pieces(targets[i]))
            found[i] = tuple(sorted(set(zip(of_source.tolist(), of_target.tolist(), strict=True))))
    return found


def force(model: Transformer, sources: Sequence[Ids], targets: Sequence[Ids], device: torch.device) -> Tensor:
    """The decoder's states when it is fed the targets: ids without BOS and EOS, as are the sources.

    A target has one state more than tokens: state t is that which says token t, and the last says EOS.
    """
    source, lengths = pack_sources(sources)
    fed = np.array([token for target in targets for token in (BOS, *target)])
    fed_lengths = np.array([len(target) + 1 for target in targets])
    cuts = Cut.of(lengths, device), Cut.of(fed_lengths, device)
    states: Tensor = model(torch.from_numpy(source).to(device), cuts[0], torch.from_numpy(fed).to(device), cuts[1])
    return states


def attention(
    model: Transformer,
    sources: Sequence[Ids],
    targets: Sequence[Ids],
    device: torch.device,
    layer: int | None = None,
) -> Tensor:
    """The weights [S, Lt + 1, Ls + 1] of attention to the source in one layer, the heads averaged."""
    place = aligning_layer(model) if layer is None else layer

    def averaged(weights: Tensor) -> Tensor:
        return weights.unflatten(0, (len(sources), -1)).mean(1)

    with watched(model, ["cross"], averaged) as seen:
        force(model, sources, targets, device)
    return seen["cross"][place]


def words(pieces: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """The word, counted from 0, that each of these pieces belongs to: a piece that begins with "▁" begins a word."""
    return np.cumsum([i > 0 and piece.startswith("▁") for i, piece in enumerate(pieces)])
