"""Low-rank adaptation (Hu et al. 2021, "LoRA"): W + α/r B A in the place of a matrix W; only A and B learn.

The model knows nothing of it. torch's parametrisation gives the sum wherever a weight is read: to train, to translate,
whole or a part of its rows. So what is trained is, to the bit, what the merged model computes; in turn the gradient of
the sum is computed whole, and an update takes as long as without.

Axes: R rows and C columns of a weight, M matrices that lie in it one below the other, r rank.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from nmt.model.attention import Attention
from nmt.model.dropout import Dropout
from nmt.model.layers import FeedForward
from nmt.recipe import Lora

_ORIGINAL = ".parametrizations.weight.original"  # as torch names W, once something is added to it
_ADDED = ".parametrizations.weight.0."


class LowRank(nn.Module):
    """What is added to a weight [R, C]: for each of its matrices a B [R/M, r] times an A [r, C], scaled.

    A is drawn as in the authors' code, B is 0: at first nothing is added (section 4.1).
    """

    def __init__(self, weight: Tensor, sizes: Sequence[int], choice: Lora) -> None:
        """`sizes`: the rows of each matrix."""
        super().__init__()
        self._sizes, self._rank, self._scale = list(sizes), choice.rank, choice.alpha / choice.rank
        columns = weight.shape[1]
        self.a = nn.Parameter(weight.new_empty(len(sizes) * choice.rank, columns))
        self.b = nn.Parameter(weight.new_zeros(len(weight), choice.rank))
        self.dropout = Dropout(choice.dropout)
        nn.init.uniform_(self.a, -(columns**-0.5), columns**-0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """The sum [R, C], in the type of the weight."""
        with torch.autocast(weight.device.type, enabled=False):  # small changes of large numbers
            a = self.a * self.dropout(self.a.new_ones(self.a.shape[1])) if self.dropout.acts else self.a
            parts = zip(self.b.split(self._sizes), a.split(self._rank), strict=True)
            return weight + self._scale * torch.cat([part_b @ part_a for part_b, part_a in parts])


def adapt(model: nn.Module, choice: Lora) -> None:
    """Has nothing of a model learn but what is added to those of its matrices that learn now and are aimed at."""
    matrices = [found for found in _matrices(model, choice.targets) if found[0].weight.requires_grad]
    model.requires_grad_(False)
    for linear, sizes in matrices:
        added = LowRank(linear.weight, sizes, choice)
        register_parametrization(linear, "weight", added, unsafe=True)  # untried, for `meta` knows no autocast


def _matrices(model: nn.Module, targets: Sequence[str]) -> Iterator[tuple[nn.Linear, list[int]]]:
    """Layers that hold matrices, and the rows of each matrix in their weight."""
    for module in model.modules():
        if isinstance(module, Attention) and "attention" in targets:
            value = module.output.in_features
            key = (module.inputs.out_features - value) // 2
            yield module.inputs, [key, key, value]
            yield module.output, [module.output.out_features]
        elif isinstance(module, FeedForward) and "ffn" in targets:
            inner = module.outer.in_features
            yield module.inner, [inner] * (module.inner.out_features // inner)
            yield module.outer, [module.outer.out_features]


def stored(model: nn.Module) -> dict[str, nn.Parameter]:
    """What a checkpoint has to hold of a model, by name: A and B where there are some, for the rest never changes."""
    parameters = dict(model.named_parameters())
    return {name: parameter for name, parameter in parameters.items() if _ADDED in name} or parameters


def merged(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the model that computes the same, with what was added in them, of which dropout drops nothing."""
    found, training = {}, model.training
    model.eval()
    for name, parameter in model.named_parameters():
        layer = name.removesuffix(_ORIGINAL)
        if layer != name:
            found[f"{layer}.weight"] = model.get_submodule(layer).weight.detach()  # type: ignore[operator]
        elif _ADDED not in name:
            found[name] = parameter.detach()
    model.train(training)
    return found
