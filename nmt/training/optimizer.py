"""What turns gradients into updates: AdamW, or Muon for the matrices inside layers and AdamW for the rest."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from nmt.model.attention import Attention
from nmt.model.layers import FeedForward
from nmt.recipe import Recipe
from nmt.training.muon import Muon
from nmt.training.sharding import like

_ADAM = ("step", "exp_avg", "exp_avg_sq")
_MUON = ("momentum_buffer",)


class Optimizer:
    """The optimizers of a model's parameters, with a state of tensors that have names."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        choice = recipe.train.optimizer
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        matrices = {name: rows for name, rows in _for_muon(recipe, model).items() if name in named}
        self._parts: list[tuple[list[str], tuple[str, ...], torch.optim.Optimizer]] = []
        if rest := {name: p for name, p in named.items() if name not in matrices}:
            adam = torch.optim.AdamW(
                rest.values(),
                lr=0.0,
                betas=choice.betas,
                eps=choice.eps,
                weight_decay=choice.weight_decay,
                fused=True,
            )
            self._parts.append(([*rest], _ADAM, adam))
        if matrices:
            muon = Muon(
                list(matrices.values()),
                [named[name] for name in matrices],
                lr=0.0,
                weight_decay=choice.weight_decay,
                momentum=choice.momentum,
            )
            self._parts.append(([*matrices], _MUON, muon))

    def step(self, rate: float) -> None:
        """Moves the parameters by their gradients, at this learning rate."""
        for _, _, optimizer in self._parts:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def zero_grad(self) -> None:
        """Leaves the gradients out."""
        for _, _, optimizer in self._parts:
            optimizer.zero_grad()

    def forget(self) -> None:
        """Is as if it had seen nothing."""
        for _, _, optimizer in self._parts:
            optimizer.load_state_dict(optimizer.state_dict() | {"state": {}})

    def tensors(self) -> dict[str, Tensor]:
        """The state itself, as `exp_avg/NAME`, `exp_avg_sq/NAME`, `step/NAME`, `momentum_buffer/NAME`."""
        return dict(self._tensors())

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for names, kinds, optimizer in self._parts:
            for name, parameter in zip(names, optimizer.param_groups[0]["params"], strict=True):
                for kind in kinds if parameter in optimizer.state else ():  # not before it has taken a step
                    yield f"{kind}/{name}", optimizer.state[parameter][kind]

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes up what `tensors` gave, nothing before the first step. Raises KeyError where something is missing."""
        for names, kinds, optimizer in self._parts:
            parameters = zip(names, optimizer.param_groups[0]["params"], strict=True)
            state = {
                i: {kind: like(tensors[f"{kind}/{name}"], parameter) for kind in kinds}
                for i, (name, parameter) in enumerate(parameters)
                if tensors
            }
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def kept_numbers(recipe: Recipe, model: nn.Module) -> int:
    """How many numbers, in fp32, the optimizer of a model keeps once it has taken a step."""
    muon = _for_muon(recipe, model)
    learning = ((name, p.numel()) for name, p in model.named_parameters() if p.requires_grad)
    return sum(count if name in muon else 2 * count + 1 for name, count in learning)


def _for_muon(recipe: Recipe, model: nn.Module) -> dict[str, list[int]]:
    """The weights that Muon takes, with the rows of the matrices that each is made of.

    They are those from states to states, not embeddings and projections.
    """
    if recipe.train.optimizer.name != "muon":
        return {}
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found[f"{name}.weight"] = [module.out_features]
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            found[f"{name}.inputs.weight"] = module.sizes
        if isinstance(module, FeedForward) and module.inner.out_features > module.outer.in_features:
            found[f"{name}.inner.weight"] = [module.outer.in_features] * 2  # of swiglu
    return found
