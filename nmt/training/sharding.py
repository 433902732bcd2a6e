"""Models too large for one GPU: each process holds a share of every tensor, and all of a layer while it computes it.

This is PyTorch's FSDP2 (Zhao et al. 2023, "PyTorch FSDP"; after ZeRO, Rajbhandari et al. 2020): weights, gradients and
what the optimizer keeps of them are tensors of which each of N processes has the N-th part of the rows. A layer's
weights are gathered before it computes and dropped after that, forwards and backwards; its gradients are summed and
dealt out again at once. So all processes must compute as many chunks, and save and measure together.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from nmt.model.folder import Undrawn
from nmt.model.transformer import Transformer
from nmt.training.world import World, told


def shard(model: Transformer, device: torch.device, world: World) -> None:
    """Leaves this process its share of a model that all have alike, and puts that on its device.

    Embeddings and output, which is used where no layer computes, stay whole from the first layer to the last.
    """
    mesh = init_device_mesh(device.type, (world.size,))
    for layer in (*model.encoder.layers, *model.decoder.layers):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):  # gradients are summed, for an update is divided by its own tokens
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def local(tensor: Tensor) -> Tensor:
    """This process's share of a tensor, in the same memory; all of it where it is not sharded."""
    return cast(DTensor, tensor.detach()).to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, which all processes must ask for. Raises `LostError` where another one is gone."""
    if not isinstance(tensor, DTensor):
        return tensor
    with told():
        return cast(DTensor, tensor.detach()).full_tensor()


def like(tensor: Tensor, held: Tensor) -> Tensor:
    """What of a whole tensor belongs beside a tensor that is `held`: the same share, on the same device."""
    if not isinstance(held, DTensor) or tensor.shape != held.shape:
        return tensor
    given = tensor.to(held.device)
    return distribute_tensor(given, held.device_mesh, held.placements, src_data_rank=None)  # all read the same file


def copies(named: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Copies on the CPU of whole tensors, in fp32, for the first process; all must ask, and the others get none."""
    found = {}
    for name, tensor in named.items():
        full = whole(tensor)
        if world.first:
            found[name] = full.detach().to("cpu", torch.float32, copy=True)
    return found


def gathered(model: Transformer, device: torch.device, world: World) -> Transformer | None:
    """A whole model of these weights, for the first process; all must ask, and the others get none."""
    if not world.first:
        for parameter in model.parameters():
            whole(parameter)
        return None
    with Undrawn():
        out = Transformer(model.config, model.encoder.embedding.table.num_embeddings, model.output.num_embeddings)
    for place, parameter in zip(out.parameters(), model.parameters(), strict=True):
        place.data = whole(parameter)
    return out.to(device).eval()
