"""Multi-head attention (Vaswani et al. 2017, section 3.2).

One path serves self, cross, cached and uncached attention: `Attention` projects and is handed the keys and values it
looks at; a view (`nmt.model.views`) says which query may see which key, and lays them out for `DotProduct`.

Axes: T tokens (Tq of the queries, Tk of the keys), N sentences times heads, Lq and Lk queries and keys of a sentence,
H heads, K width of a head's queries and keys, V that of its values, D = d_model.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.model.dropout import Dropout
from nmt.model.positions import Places
from nmt.recipe import Model


class View(Protocol):
    """Which query sees which key."""

    @property
    def positions(self) -> Tensor:
        """The place [Tq] of each query in its sentence."""
        ...

    @property
    def longest(self) -> int:
        """Above every place."""
        ...

    def __call__(self, core: "DotProduct", q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attends by `core`: queries [Tq, H, K], keys and values in the form the view asks for; gives [Tq, H, V]."""
        ...


class Softmax(nn.Module):
    """The weights of attention, in fp32. A module, so that a hook can look at them (`nmt.model.watching`)."""

    def forward(self, scores: Tensor) -> Tensor:
        """[N, Lq, Lk], each row summing to 1."""
        return scores.softmax(-1, dtype=torch.float32)


class DotProduct(nn.Module):
    """Scaled dot-product attention, equation 1, with what positions add to it: softmax(q kᵀ / √K + …) v + ….

    The products of a query and a key whose numbers have variance 1 have variance K; divided by √K they stay where
    softmax still has a gradient (section 3.2.1).
    """

    def __init__(self, dropout: float, places: Places) -> None:
        super().__init__()
        self.places = places
        self.weights = Softmax()
        self.dropout = Dropout(dropout)

    @property
    def bare(self) -> bool:
        """Whether a kernel that knows nothing but equation 1, and keeps the weights to itself, may do its work."""
        return self.places.bare and not self.dropout.acts and not self.weights._forward_hooks

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, first: int) -> Tensor:
        """q [N, Lq, K], k [N, Lk, K], v [N, Lk, V]; gives [N, Lq, V].

        mask [1 or N, 1 or Lq, Lk] of 0 and -inf in q's type; `first` is the place of the first query among the keys.
        """
        scale = 1 / math.sqrt(q.shape[-1])
        added = self.places.scores(q, k.shape[1], first)
        if added is not None:
            mask = added if mask is None else mask + added
        if mask is None:
            scores = torch.bmm(q, k.transpose(1, 2)) * scale
        else:
            scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale)
        weights = self.dropout(self.weights(scores))
        out = torch.bmm(weights.to(v.dtype), v)
        added = self.places.values(weights, first)
        return out if added is None else out + added.to(out.dtype)


class Attention(nn.Module):
    """Multi-head attention: project, attend, project back; section 3.2.2.

    The three input projections lie in one matrix [H (2K + V), D], so that self-attention is a single product.
    Each is drawn uniformly with variance 2 / (rows + columns) (Glorot and Bengio 2010), as in the authors' code.
    """

    def __init__(self, config: Model, places: Places | None = None) -> None:
        """`places` is what it does about positions; nothing in attention to the source."""
        super().__init__()
        self.heads = config.heads
        key, value = config.heads * config.key_width, config.heads * config.value_width
        self.sizes = [key, key, value]
        """The rows of `inputs` that give queries, keys and values."""
        self.inputs = nn.Linear(config.d_model, sum(self.sizes))
        self.core = DotProduct(config.attention_dropout, Places() if places is None else places)
        self.output = nn.Linear(value, config.d_model)
        for matrix in self.inputs.weight.split(self.sizes):  # each is a projection of its own, and is scaled as one
            nn.init.xavier_uniform_(matrix)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.inputs.bias)
        nn.init.zeros_(self.output.bias)

    def project(self, x: Tensor, view: View) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys [T, H, K] and values [T, H, V] of one stream x [T, D] that looks at itself."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.inputs(x).split(self.sizes, -1))
        q, k = (self.core.places.rotated(part, view.positions, view.longest) for part in (q, k))
        return q, k, v

    def queries(self, x: Tensor) -> Tensor:
        """Queries [T, H, K] of the stream x [T, D] that looks at another."""
        end = self.sizes[0]
        return F.linear(x, self.inputs.weight[:end], self.inputs.bias[:end]).unflatten(-1, (self.heads, -1))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [T, H, K] and values [T, H, V] of the stream x [T, D] that another looks at."""
        begin, *sizes = self.sizes
        both = F.linear(x, self.inputs.weight[begin:], self.inputs.bias[begin:])
        k, v = (part.unflatten(-1, (self.heads, -1)) for part in both.split(sizes, -1))
        return k, v

    def forward(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        """What the queries [Tq, H, K] find, [Tq, D]."""
        out: Tensor = self.output(view(self.core, q, k, v).flatten(1))
        return out
