"""How widely attention looks: the entropy of its weights, which tells of collapse long before the loss does.

0 nats: each query looks at one key; log L: at all L alike. Where it falls to 0 in all of a layer, softmax has no
gradient left and training is about to diverge (Zhai et al. 2023, "Stabilizing Transformer Training by Preventing
Attention Entropy Collapse").

Axes: S sentences, H heads, Lq and Lk lengths of the longest of the queries and keys.
"""

import numpy as np
import torch
from torch import Tensor

from nmt.data.batches import Chunk, Ids
from nmt.model.watching import watched
from nmt.training.learner import Learner


@torch.no_grad()
def attention_entropy(learner: Learner, chunk: Chunk) -> dict[str, list[float]]:
    """The mean over queries and heads, for each layer; under "encoder", "decoder" (its self-attention) and "cross"."""
    with watched(learner.measured, kept=entropy) as seen:
        learner.negative_log_likelihood([chunk])
    lengths = {"encoder": chunk.source_lengths, "decoder": chunk.target_lengths, "cross": chunk.target_lengths}
    return {kind: [mean(layer, lengths[kind]) for layer in layers] for kind, layers in seen.items()}


def entropy(weights: Tensor) -> Tensor:
    """-Σ w log w in nats [S·H, Lq], of attention weights [S·H, Lq, Lk]."""
    out: Tensor = torch.special.entr(weights.float()).sum(-1)
    return out


def mean(entropies: Tensor, lengths: Ids) -> float:
    """The mean of entropies [S·H, Lq] over the heads and the queries of sentences of these lengths [S].

    Where self-attention is restricted, sentences come in blocks of Lq queries, each on a row of its own.
    """
    size = entropies.shape[1]
    blocks = -(-lengths // size)
    queries = np.full(blocks.sum(), size)
    queries[blocks.cumsum() - 1] = lengths - (blocks - 1) * size
    filled = torch.from_numpy(np.arange(size) < queries[:, None]).to(entropies.device)
    return float(entropies.unflatten(0, (len(queries), -1)).mean(1)[filled].mean())
