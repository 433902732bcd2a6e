"""Where a token stands in its sentence, as a vector added to its embedding (Vaswani et al. 2017, section 3.5).

Axes: T tokens, D = d_model.
"""

import math

import torch
from torch import Tensor, nn

from nmt.errors import DataError


class Sinusoidal(nn.Module):
    """PE(pos, 2i) = sin(pos / 10000^(2i/D)), PE(pos, 2i+1) = cos of the same; extends to any length."""

    table: Tensor

    def __init__(self, d_model: int, prepared: int = 512) -> None:
        super().__init__()
        self.d_model = d_model
        self.register_buffer("table", self._rows(prepared), persistent=False)

    def _rows(self, count: int) -> Tensor:
        """The first `count` rows of the table, computed in double precision, as fp32."""
        rates = torch.exp(torch.arange(0, self.d_model, 2, dtype=torch.float64) * (-math.log(10000) / self.d_model))
        angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(1).float()

    def forward(self, positions: Tensor, longest: int) -> Tensor:
        """Vectors [T, D] for positions [T] in sentences of at most `longest` tokens."""
        if longest > len(self.table):
            self.table = self._rows(2 * longest).to(self.table)
        return self.table[positions]


class Learned(nn.Module):
    """A trained vector for each of `max_positions` places (Table 3, row E); no meaning beyond them."""

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
