"""Label-smoothed cross-entropy, fused with the output projection so that [T, V] is never held whole.

On a GPU the vocabulary is padded inside, for products whose rows begin anywhere are slow there.

Axes: P passes of the model, T target tokens, D = d_model, V vocabulary, V' the same padded, R rows of one block.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nmt.kernels import gradients

BLOCK_NUMBERS = {"cpu": 1 << 22, "cuda": 1 << 28}  # logits held at once: 16 MB, which a CPU's cache holds; 1 GB
MULTIPLE = {"cpu": 1, "cuda": 64}  # what V' is one of
BLOCK_BYTES = {torch.float32: 4, torch.bfloat16: 6}  # of each, for bf16 lies beside fp32


class Loss(NamedTuple):
    """Sums over the target tokens, in nats: `smoothed` is what training minimises, `nll` -log p of the references."""

    smoothed: Tensor
    nll: Tensor


def cross_entropy(
    states: Tensor, projection: Tensor, targets: Tensor, smoothing: float, consistency: float = 0.0
) -> Loss:
    """The loss of decoder states [T, D] against target ids [T], through the output projection [V, D].

    The reference is given 1 - smoothing of the probability and every entry of the vocabulary smoothing / V (Szegedy et
    al. 2016, section 7; Vaswani et al. 2017, section 5.4). Only `smoothed` carries a gradient.

    States [2T, D] are those of two passes that differ in what dropout picked. The loss is then the mean of both, and
    α/4 (KL(p₁‖p₂) + KL(p₂‖p₁)), where α is `consistency`, is added to `smoothed`: R-Drop (Liang et al. 2021, equation
    4), halved, so that learning rates mean the same with it and without.
    """
    smoothed, nll = _ProjectedCrossEntropy.apply(
        states, projection, targets, smoothing, consistency, torch.is_grad_enabled()
    )
    return Loss(smoothed, nll)


class _ProjectedCrossEntropy(torch.autograd.Function):
    """Block by block: logits, loss and at once the gradient, written over the logits; so a block is read only once."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        projection: Tensor,
        targets: Tensor,
        smoothing: float,
        consistency: float,
        wants_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        words = len(projection)
        weight = _as_computed(projection)
        if more := -words % MULTIPLE[weight.device.type]:
            weight = F.pad(weight, (0, 0, 0, more))  # [V', D]
        passes = len(states) // len(targets)
        inputs = _as_computed(states).view(passes, *targets.shape, -1)  # [P, T, D]
        sums = inputs.new_zeros(2, dtype=torch.float32)  # the smoothed loss and -log p
        grad_states = torch.empty_like(inputs) if wants_gradient else None
        grad_weight = torch.zeros_like(projection) if wants_gradient and ctx.needs_input_grad[1] else None
        size = max(1, BLOCK_NUMBERS[inputs.device.type] // (passes * len(weight)))
        for start in range(0, len(targets), size):
            rows = slice(start, start + size)
            block = inputs[:, rows].flatten(0, 1)
            logits = (block @ weight.t()).float()
            found, grad = _of_block(logits, words, targets[rows], smoothing, consistency)
            sums += found
            if grad_states is not None:
                grad = grad.to(inputs.dtype)
                grad_states[:, rows] = (grad @ weight).view_as(inputs[:, rows])
                if grad_weight is not None:  # there is none of embeddings that stay as they are
                    _add_product(grad_weight, grad[:, :words].t(), block)
            del logits, grad  # before the next block has memory of its own
        ctx.save_for_backward(grad_states, grad_weight)
        smoothed, nll = sums.unbind()
        ctx.mark_non_differentiable(nll)
        return smoothed, nll

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_states, grad_weight = ctx.saved_tensors
        grad_projection = None if grad_weight is None else grad_weight.mul_(scale)
        return grad_states.flatten(0, 1).mul_(scale), grad_projection, None, None, None, None


def _of_block(logits: Tensor, words: int, said: Tensor, smoothing: float, consistency: float) -> tuple[Tensor, Tensor]:
    """Smoothed loss and -log p [2] of logits [P·R, V'] against ids [R], and the gradient, which lies where they did.

    Of V' only the `words` count.
    """
    passes = len(logits) // len(said)
    if passes == 1 and words == logits.shape[1] and gradients.at_hand(logits):
        return gradients.cross_entropy_(logits, said, smoothing).float(), logits
    logits[:, words:] = -torch.inf
    picked = said[:, None].repeat(passes, 1)
    log_p = torch.log_softmax(logits, -1, out=logits)
    chosen, mean = log_p.gather(1, picked).sum() / passes, log_p[:, :words].mean(-1).sum() / passes
    smoothed = -((1 - smoothing) * chosen + smoothing * mean)
    apart = _Divergence.of(log_p[:, :words], consistency) if passes > 1 else None
    grad = log_p.exp_()
    grad[:, :words].sub_(smoothing / words)  # p - q, where q is the smoothed reference
    grad = grad.scatter_add_(1, picked, grad.new_full(picked.shape, smoothing - 1))
    if apart:
        smoothed = smoothed + apart.value
        grad.div_(passes)[:, :words].add_(apart.gradient)
    return torch.stack([smoothed, -chosen]), grad


class _Divergence(NamedTuple):
    """α/4 (KL(p₁‖p₂) + KL(p₂‖p₁)), summed over tokens, and its gradient [2R, V] with respect to the logits of both."""

    value: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, log_p: Tensor, consistency: float) -> "_Divergence":
        """Of log-probabilities [2R, V], the first half of them p₁."""
        p, ratio = log_p.exp(), log_p - log_p.roll(len(log_p) // 2, 0)
        towards = (p * ratio).sum(1, keepdim=True)  # KL(p₁‖p₂) and then KL(p₂‖p₁), for each token
        gradient = p * (ratio - towards) + p - p.roll(len(p) // 2, 0)
        return cls(consistency / 4 * towards.sum(), gradient.mul_(consistency / 4))


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b, without a temporary where the types allow it."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _as_computed(x: Tensor) -> Tensor:
    """x in the type autocast computes matrix products in."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
