"""The layers of encoder and decoder (Vaswani et al. 2017, section 3.1 and figure 1).

Axes: T tokens of a stream, D = d_model.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from nmt.model.attention import Attention, View
from nmt.model.dropout import Dropout
from nmt.model.positions import in_attention
from nmt.recipe import Model

History = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes the keys and values [T, H, K] of the tokens at hand, gives those that self-attention may look at."""


def only_these(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The history of a whole stream: its own keys and values."""
    return k, v


def norm(config: Model) -> nn.Module:
    """The norm that the recipe names, of states [T, D]."""
    return nn.LayerNorm(config.d_model) if config.norm_type == "layer" else nn.RMSNorm(config.d_model, eps=1e-6)


class Residual(nn.Module):
    """A sub-layer's surroundings, and the one place where the norm sits: post, norm(x + f(x)); pre, x + f(norm(x)).

    The paper is post-norm (section 3.1); pre-norm is Wang et al. 2019, "Learning Deep Transformer Models".
    """

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.norm = norm(config)
        self.dropout = Dropout(config.dropout)
        self.pre = config.norm == "pre"

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x and the sub-layer's answer to it, [T, D]."""
        if self.pre:
            return self.dropout(sublayer(self.norm(x)), x)
        out: Tensor = self.norm(self.dropout(sublayer(x), x))
        return out


def swiglu(x: Tensor) -> Tensor:
    """silu(a) b for the two halves a and b of x [T, 2 F]; Shazeer 2020, "GLU Variants Improve Transformer"."""
    gate, value = x.chunk(2, -1)
    return F.silu(gate) * value


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "swiglu": swiglu}


class FeedForward(nn.Module):
    """max(0, x W1 + b1) W2 + b2; equation 2. Or with another activation than max(0, …)."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        matrices = 2 if config.activation == "swiglu" else 1
        self.inner = nn.Linear(config.d_model, matrices * config.d_ffn)
        self.outer = nn.Linear(config.d_ffn, config.d_model)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = Dropout(config.activation_dropout)
        for matrix in (*self.inner.weight.chunk(matrices), self.outer.weight):
            nn.init.xavier_uniform_(matrix)
        for linear in (self.inner, self.outer):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[T, D] for x [T, D], each token by itself."""
        out: Tensor = self.outer(self.dropout(self.activation(self.inner(x))))
        return out


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.self_attention = Attention(config, in_attention(config))
        self.feed_forward = FeedForward(config)
        self.around_self = Residual(config)
        self.around_feed_forward = Residual(config)

    def forward(self, x: Tensor, view: View) -> Tensor:
        """The next states [T, D] of x [T, D]."""
        x = self.around_self(x, lambda y: self.self_attention(*self.self_attention.project(y, view), view))
        out: Tensor = self.around_feed_forward(x, self.feed_forward)
        return out


class DecoderLayer(nn.Module):
    """Self-attention over the history, attention to the source, the feed-forward network."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.self_attention = Attention(config, in_attention(config))
        self.cross_attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.around_self = Residual(config)
        self.around_cross = Residual(config)
        self.around_feed_forward = Residual(config)

    def forward(
        self, x: Tensor, history: History, view: View, source: Tensor | tuple[Tensor, Tensor], source_view: View
    ) -> Tensor:
        """The next states [T, D] of x [T, D]; `source` is the encoder's states, or their keys and values."""
        keys_values = self.cross_attention.keys_values(source) if isinstance(source, Tensor) else source

        def look_back(y: Tensor) -> Tensor:
            q, k, v = self.self_attention.project(y, view)
            out: Tensor = self.self_attention(q, *history(k, v), view)
            return out

        def look_across(y: Tensor) -> Tensor:
            out: Tensor = self.cross_attention(self.cross_attention.queries(y), *keys_values, source_view)
            return out

        x = self.around_self(x, look_back)
        x = self.around_cross(x, look_across)
        out: Tensor = self.around_feed_forward(x, self.feed_forward)
        return out
