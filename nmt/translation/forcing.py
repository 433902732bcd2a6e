"""What models think of translations that are given: forced decoding, in one pass over all their tokens.

Axes: S sentences, T target tokens, EOS counted, V vocabulary, Lt and Ls lengths of the longest target and source.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nmt.ids import EOS
from nmt.model.transformer import Transformer
from nmt.search import Settings, log_coverage
from nmt.translation.alignment import Ids, attention, force

BLOCK_NUMBERS = 1 << 24  # logits held at once, 64 MB


class Forced(NamedTuple):
    """A translation that was given: log p with EOS, in nats; its tokens, EOS counted; the score search gives it."""

    log_p: float
    tokens: int
    score: float


@torch.inference_mode()
def judge(
    models: Sequence[Transformer],
    sources: Sequence[Ids],
    targets: Sequence[Ids],
    device: torch.device,
    settings: Settings,
) -> list[Forced]:
    """What the models, together if they are several, think of each target, ids without EOS, of its source.

    That a blank line is translated as one is certain, for no model is asked about it.
    """
    given = models, sources, targets, device
    coverage = _coverage(*given) if settings.coverage_penalty else [0.0] * len(sources)
    found = []
    for source, target, log_p, log_c in zip(sources, targets, _log_p(*given), coverage, strict=True):
        score = log_p / float(settings.penalty(len(target) + 1.0)) + settings.coverage_penalty * log_c
        blank = not (source or target)
        found.append(Forced(0.0, 1, 0.0) if blank else Forced(log_p, len(target) + 1, score))
    return found


def _log_p(
    models: Sequence[Transformer], sources: Sequence[Ids], targets: Sequence[Ids], device: torch.device
) -> list[float]:
    """The log-probability [S] of each target and its end, by the mean of the models' probabilities of each token."""
    said = torch.tensor([token for target in targets for token in (*target, EOS)], device=device)
    each = [_of_tokens(model, force(model, sources, targets, device), said) for model in models]
    tokens = torch.stack(each).logsumexp(0) - math.log(len(models))
    return [float(part.sum()) for part in tokens.split([len(target) + 1 for target in targets])]


def _coverage(
    models: Sequence[Transformer], sources: Sequence[Ids], targets: Sequence[Ids], device: torch.device
) -> list[float]:
    """`log_coverage` [S] of each source by its target and its end."""
    weights = torch.stack([attention(model, sources, targets, device) for model in models]).mean(0)  # [S, Lt, Ls]
    pairs = zip(weights, sources, targets, strict=True)
    looked = [of[: len(target) + 1, : len(source)].sum(0, keepdim=True) for of, source, target in pairs]
    return [float(log_coverage(each)) for each in looked]


def _of_tokens(model: Transformer, states: Tensor, said: Tensor) -> Tensor:
    """log p [T] of the tokens said [T], by the states [T, D] that say them."""
    size = max(1, BLOCK_NUMBERS // len(model.projection))
    found = []
    for part, tokens in zip(states.split(size), said.split(size), strict=True):
        logits = model.logits(part).float()
        found.append(logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1))
    return torch.cat(found)
