"""The layers of encoder and decoder (Vaswani et al. 2017, section 3.1 and figure 1).

Axes: T tokens of a stream, D = d_model.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.model.attention import Attention, View
from nmt.recipe import Model

History = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes the keys and values [T, H, K] of the tokens at hand, gives those that self-attention may look at."""


def only_these(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The history of a whole stream: its own keys and values."""
    return k, v


class Dropout(nn.Module):
    """Sets each number to 0 with probability p and scales the others by 1 / (1 - p) (Srivastava et al. 2014)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x, thinned while training."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return x * self._mask(x)

    def _mask(self, x: Tensor) -> Tensor:
        """On a CPU a draw is what costs: one of 64 bits serves four numbers, p being met to within 1/65536."""
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.int16)[: x.numel()] >= round(self.p * 65536) - 32768
        return kept.view(x.shape).to(x.dtype).mul_(1 / (1 - self.p))


class Residual(nn.Module):
    """A sub-layer's surroundings, and the one place where the norm sits: post, norm(x + f(x)); pre, x + f(norm(x)).

    The paper is post-norm (section 3.1); pre-norm is Wang et al. 2019, "Learning Deep Transformer Models".
    """

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.d_model)
        self.dropout = Dropout(config.dropout)
        self.pre = config.norm == "pre"

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x and the sub-layer's answer to it, [T, D]."""
        if self.pre:
            return x + self.dropout(sublayer(self.norm(x)))
        out: Tensor = self.norm(x + self.dropout(sublayer(x)))
        return out


class FeedForward(nn.Module):
    """max(0, x W1 + b1) W2 + b2; equation 2."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.inner = nn.Linear(config.d_model, config.d_ffn)
        self.outer = nn.Linear(config.d_ffn, config.d_model)
        for linear in (self.inner, self.outer):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[T, D] for x [T, D], each token by itself."""
        out: Tensor = self.outer(F.relu(self.inner(x)))
        return out


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.self_attention = Attention(config.d_model, config.heads)
        self.feed_forward = FeedForward(config)
        self.around_self = Residual(config)
        self.around_feed_forward = Residual(config)

    def forward(self, x: Tensor, view: View) -> Tensor:
        """The next states [T, D] of x [T, D]."""
        x = self.around_self(x, lambda y: self.self_attention(*self.self_attention.project(y), view))
        out: Tensor = self.around_feed_forward(x, self.feed_forward)
        return out


class DecoderLayer(nn.Module):
    """Self-attention over the history, attention to the source, the feed-forward network."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.self_attention = Attention(config.d_model, config.heads)
        self.cross_attention = Attention(config.d_model, config.heads)
        self.feed_forward = FeedForward(config)
        self.around_self = Residual(config)
        self.around_cross = Residual(config)
        self.around_feed_forward = Residual(config)

    def forward(
        self, x: Tensor, history: History, view: View, source: tuple[Tensor, Tensor], source_view: View
    ) -> Tensor:
        """The next states [T, D] of x [T, D]; `source` holds the keys and values of the encoder's states."""

        def look_back(y: Tensor) -> Tensor:
            q, k, v = self.self_attention.project(y)
            out: Tensor = self.self_attention(q, *history(k, v), view)
            return out

        def look_across(y: Tensor) -> Tensor:
            out: Tensor = self.cross_attention(self.cross_attention.queries(y), *source, source_view)
            return out

        x = self.around_self(x, look_back)
        x = self.around_cross(x, look_across)
        out: Tensor = self.around_feed_forward(x, self.feed_forward)
        return out
