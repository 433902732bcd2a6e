"""How a token knows its place: as a vector added to its embedding, or as something that self-attention does.

Axes: T tokens, D = d_model, N sentences times heads, H heads, K width of a head, Lq and Lk queries and keys of a
sentence, R reach: the largest distance told apart.
"""

import math

import torch
from torch import Tensor, nn

from nmt.errors import DataError
from nmt.recipe import Model


class Sinusoidal(nn.Module):
    """PE(pos, 2i) = sin(pos / 10000^(2i/D)), PE(pos, 2i+1) = cos of the same; extends to any length.

    Vaswani et al. 2017, section 3.5.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self._angles = _Angles(d_model)

    def forward(self, positions: Tensor, longest: int) -> Tensor:
        """Vectors [T, D] for positions [T] in sentences of at most `longest` tokens."""
        return torch.stack(self._angles(positions, longest), -1).flatten(1)


class Learned(nn.Module):
    """A trained vector for each of `max_positions` places (Table 3, row E); no meaning beyond them.

    They begin √D times smaller than the embeddings they are added to, as in fairseq, and grow where that helps.
    """

    def __init__(self, d_model: int, max_positions: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max_positions, d_model)
        nn.init.normal_(self.table.weight, std=d_model**-0.5)

    def forward(self, positions: Tensor, longest: int) -> Tensor:
        """Vectors [T, D] for positions [T] in sentences of at most `longest` tokens; DataError beyond the table."""
        if longest > self.table.num_embeddings:
            raise DataError(
                f"a sentence of {longest} tokens is longer than the {self.table.num_embeddings} learned positions of "
                "this model (model.max_positions); shorten it, or train with sinusoidal positions, which have no limit"
            )
        out: Tensor = self.table(positions)
        return out


class Places(nn.Module):
    """What attention itself does about positions: here nothing. The kinds below each change one of the three."""

    bare = True
    """Whether scores and values stay as equation 1 has them, so that a kernel that knows only this may be used."""

    def rotated(self, x: Tensor, positions: Tensor, longest: int) -> Tensor:
        """Queries or keys x [T, H, K] of tokens at positions [T], all below `longest`."""
        return x

    def scores(self, q: Tensor, keys: int, first: int) -> Tensor | None:
        """What is added to the scores of queries q [N, Lq, K] and this many keys, [N, Lq, Lk].

        The first query stands at place `first` of the keys.
        """
        return None

    def values(self, weights: Tensor, first: int) -> Tensor | None:
        """What is added to the result [N, Lq, V] of attending with weights [N, Lq, Lk], which are fp32."""
        return None


class Rotary(Places):
    """Rotates each pair of numbers of a query or key by an angle that grows with its position.

    So their product depends on the distance alone: Su et al. 2021, "RoFormer", equation 34; extends to any length.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self._angles = _Angles(width)

    def rotated(self, x: Tensor, positions: Tensor, longest: int) -> Tensor:
        """x [T, H, K], each pair of numbers rotated."""
        sin, cos = (table[:, None] for table in self._angles(positions, longest))
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)  # times fp32 is fp32
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)


class Alibi(Places):
    """Takes slope · distance from each score, with another slope for each head; extends to any length.

    Press et al. 2022, "Train Short, Test Long"; in an encoder the distance counts on either side.
    """

    bare = False
    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.tensor(self._slopes(heads)), persistent=False)

    @staticmethod
    def _slopes(heads: int) -> list[float]:
        """2^(-8/H), 2^(-16/H), …; where H is no power of 2, as the authors do: the rest from between those."""
        power = 2 ** (heads.bit_length() - 1)
        slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
        between = [2 ** (-4 * i / power) for i in range(1, 2 * power, 2)]
        return slopes + between[: heads - power]

    def scores(self, q: Tensor, keys: int, first: int) -> Tensor:
        """[N, Lq, Lk], the same for each sentence."""
        distances = _distances(q.shape[1], keys, first, q.device).abs()
        each = (-self.slopes[:, None, None] * distances).to(q.dtype)
        return each.repeat(len(q) // len(each), 1, 1)


class Relative(Places):
    """Adds to keys and to values a vector learned for the distance, which counts as R where it is farther.

    Shaw et al. 2018, "Self-Attention with Relative Position Representations", equations 3 and 4; the heads of a layer
    share them.
    """

    bare = False

    def __init__(self, key_width: int, value_width: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.keys = nn.Parameter(torch.empty(2 * reach + 1, key_width))
        self.of_values = nn.Parameter(torch.empty(2 * reach + 1, value_width))
        nn.init.xavier_uniform_(self.keys)
        nn.init.xavier_uniform_(self.of_values)

    def scores(self, q: Tensor, keys: int, first: int) -> Tensor:
        """q · a / √K for the vector a of each distance, [N, Lq, Lk]."""
        near, rows = self._rows(q.shape[1], keys, first, q.device)
        products = q @ self.keys[near].to(q.dtype).t() * q.shape[-1] ** -0.5
        # in fp32, for many keys share a distance and backward adds up what they say
        return products.float().gather(2, rows.expand(len(q), -1, -1)).to(q.dtype)

    def values(self, weights: Tensor, first: int) -> Tensor:
        """The vectors of the distances, weighted, [N, Lq, V]."""
        n, queries, keys = weights.shape
        near, rows = self._rows(queries, keys, first, weights.device)
        vectors = self.of_values[near]
        of_distance = weights.new_zeros(n, queries, len(vectors)).scatter_add(2, rows.expand(n, -1, -1), weights)
        return of_distance @ vectors

    def _rows(self, queries: int, keys: int, first: int, device: torch.device) -> tuple[slice, Tensor]:
        """Which rows of the tables there are distances for; and [Lq, Lk], the one of these for each distance."""
        farthest = min(self.reach, max(keys - 1 - first, first + queries - 1))
        near = slice(self.reach - farthest, self.reach + farthest + 1)
        return near, _distances(queries, keys, first, device).clamp(-farthest, farthest) + farthest


def in_embedding(config: Model) -> nn.Module | None:
    """What is added to embeddings, if this kind of positions is; called with positions [T] and the longest."""
    if config.positions == "sinusoidal":
        return Sinusoidal(config.d_model)
    return Learned(config.d_model, config.max_positions) if config.positions == "learned" else None


def in_attention(config: Model) -> Places:
    """What this kind of positions does in self-attention."""
    if config.positions == "rotary":
        return Rotary(config.key_width)
    if config.positions == "alibi":
        return Alibi(config.heads)
    if config.positions == "relative":
        return Relative(config.key_width, config.value_width, config.max_distance)
    return Places()


def _distances(queries: int, keys: int, first: int, device: torch.device) -> Tensor:
    """[Lq, Lk]: how far each key stands behind (above 0) or before (below 0) each query."""
    return torch.arange(keys, device=device) - torch.arange(first, first + queries, device=device)[:, None]


class _Angles(nn.Module):
    """Sines and cosines of pos / 10000^(2i/W) for i < W/2, made in double precision once and kept in fp32."""

    sin: Tensor
    cos: Tensor

    def __init__(self, width: int, prepared: int = 512) -> None:
        super().__init__()
        self._width = width
        for name, rows in zip(("sin", "cos"), self._rows(prepared), strict=True):
            self.register_buffer(name, rows, persistent=False)

    def _rows(self, count: int) -> tuple[Tensor, Tensor]:
        rates = torch.exp(torch.arange(0, self._width, 2, dtype=torch.float64) * (-math.log(10000) / self._width))
        angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
        return angles.sin().float(), angles.cos().float()

    def forward(self, positions: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """[T, W/2] each, for positions [T] below `longest`; the tables grow when they have to."""
        if longest > len(self.sin):
            self.sin, self.cos = (rows.to(self.sin.device) for rows in self._rows(2 * longest))
        return self.sin[positions], self.cos[positions]
