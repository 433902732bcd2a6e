"""Label-smoothed cross-entropy, fused with the output projection so that [T, V] is never held whole.

On a GPU the vocabulary is padded inside, for products whose rows begin anywhere are slow there.

Axes: P passes of the model, T target tokens, D = d_model, V vocabulary, V' the same padded, R rows of one block.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nmt.kernels import gradients

FILL = 64
"""Rows, to a multiple of which products in bf16 on a CPU are filled up: oneDNN makes code of its own for each shape, a
millisecond and half a megabyte each, and random sentences would go on to bring it new ones."""
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

    Of one pass there may be more states than targets: the last ones then have no loss.
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
        passes = 2 if consistency else 1
        inputs = _as_computed(states).unflatten(0, (passes, -1))  # [P, T, D]
        sums = inputs.new_zeros(2, dtype=torch.float32)  # the smoothed loss and -log p
        grad_states = torch.empty_like(inputs) if wants_gradient else None
        grad_weight = torch.zeros_like(projection) if wants_gradient and ctx.needs_input_grad[1] else None
        for rows in _blocks(inputs.shape[1], passes * len(weight), inputs):
            block = inputs[:, rows].flatten(0, 1)
            found, grad = _of_block(block @ weight.t(), words, targets[rows], smoothing, consistency)
            sums += found
            if grad_states is not None:
                grad = grad.to(inputs.dtype)
                grad_states[:, rows] = (grad @ weight).view_as(inputs[:, rows])
                if grad_weight is not None:  # there is none of embeddings that stay as they are
                    _add_product(grad_weight, grad[:, :words].t(), block)
            del grad  # before the next block has memory of its own
        ctx.save_for_backward(grad_states, grad_weight)
        smoothed, nll = sums.unbind()
        ctx.mark_non_differentiable(nll)
        return smoothed, nll

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_states, grad_weight = ctx.saved_tensors
        grad_projection = None if grad_weight is None else grad_weight.mul_(scale)
        return grad_states.flatten(0, 1).mul_(scale), grad_projection, None, None, None, None


def _blocks(rows: int, width: int, like: Tensor) -> Iterator[slice]:
    """The rows of logits, so many numbers wide, that are held at once."""
    numbers, many = BLOCK_NUMBERS[like.device.type], 1
    if like.device.type == "cpu" and like.dtype == torch.bfloat16:  # a cache holds twice as many; shapes: see `FILL`
        numbers, many = 2 * numbers, FILL
    size = max(1, numbers // width // many * many or numbers // width)
    return (slice(start, start + size) for start in range(0, rows, size))


def _of_block(logits: Tensor, words: int, said: Tensor, smoothing: float, consistency: float) -> tuple[Tensor, Tensor]:
    """Smoothed loss and -log p [2] of logits [P·R, V'] against ids [R], and the gradient; of V' only the `words` count.

    The gradient lies where they did, or where they did in fp32. Of one pass, rows behind the last id have none.
    """
    passes, idle = (2, 0) if consistency else (1, len(logits) - len(said))
    if passes == 1 and words == logits.shape[1] and gradients.at_hand(logits):
        logits[len(said) :] = 0
        return gradients.cross_entropy_(logits[: len(said)], said, smoothing).float(), logits
    if idle:
        found, grad = _of_block(logits[: len(said)], words, said, smoothing, consistency)
        return found, F.pad(grad, (0, 0, 0, idle))
    logits = logits.float()
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
