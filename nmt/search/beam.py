"""Beam search with a length penalty and a stop that is exact for it (Wu et al. 2016, section 7).

Axes: N sentences still searched, B beam, R = N·B rows, F finished hypotheses kept, V vocabulary,
t tokens so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from nmt.ids import BOS, EOS, PAD, UNK

NEVER = [PAD, BOS, UNK]  # are no output


class Steps(Protocol):
    """A decoding under way, one step at a time; `nmt.model.cache.Decoding` is the plain one."""

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [R, V] of what follows once each of the R hypotheses has got this token [R]."""
        ...

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
        """Goes on with these rows [R'], and, if given, with these sentences [N'] only."""
        ...


class Hypothesis(NamedTuple):
    """A finished output: its ids without EOS; log p with EOS, in nats; and that divided by the length penalty."""

    ids: list[int]
    log_p: float
    score: float


@dataclass(frozen=True)
class Settings:
    """How to search. `penalty_form`: gnmt is ((5 + |Y|) / 6)^α, power is |Y|^α; |Y| counts EOS."""

    beam: int = 4
    length_penalty: float = 0.6
    penalty_form: str = "gnmt"
    n_best: int = 1

    def penalty(self, length: float | Tensor) -> float | Tensor:
        """What log p of an output of this many tokens is divided by."""
        base = (5 + length) / 6 if self.penalty_form == "gnmt" else length
        return base**self.length_penalty


@dataclass
class _Finished:
    """The F best finished hypotheses of each sentence, best first; score -inf where there are fewer."""

    scores: Tensor  # [N, F]
    log_p: Tensor  # [N, F]
    tokens: Tensor  # [N, F, t], EOS from the end on

    def add(self, scores: Tensor, log_p: Tensor, tokens: Tensor) -> "_Finished":
        """With more hypotheses, [N, B] and [N, B, t], of which those scored -inf are none."""
        longer = torch.nn.functional.pad(self.tokens, (0, tokens.shape[2] - self.tokens.shape[2]), value=EOS)
        all_scores = torch.cat([self.scores, scores], 1)
        best, where = all_scores.topk(self.scores.shape[1], dim=1)
        log_p = torch.cat([self.log_p, log_p], 1).gather(1, where)
        return _Finished(best, log_p, _take(torch.cat([longer, tokens], 1), where))

    def of(self, sentences: Tensor) -> "_Finished":
        """Those of some sentences."""
        return _Finished(self.scores[sentences], self.log_p[sentences], self.tokens[sentences])


@torch.inference_mode()
def beam_search(
    steps: Steps, limits: Sequence[int], settings: Settings, device: torch.device | str = "cpu"
) -> list[list[Hypothesis]]:
    """The best outputs of each sentence, at most settings.n_best of them, best first.

    `limits` [N] is the most tokens, EOS not counted, that the output of each sentence may have. A sentence is done when
    no hypothesis still growing can overtake its n-th best finished one, whatever it goes on to say.
    """
    count = len(limits)
    limit = torch.tensor(limits, device=device)
    tokens = torch.empty(count, 1, 0, dtype=torch.long, device=device)
    live = torch.zeros(count, 1, device=device)  # log p of each hypothesis
    kept = max(settings.beam, settings.n_best)
    none = torch.full((count, kept), -torch.inf, device=device)
    finished = _Finished(none, none, torch.empty(count, kept, 0, dtype=torch.long, device=device))
    places = torch.full((count,), settings.beam, device=device)  # in the beam, for hypotheses that go on
    searched = torch.arange(count, device=device)
    results: list[list[Hypothesis]] = [[] for _ in limits]
    last = torch.full((count,), BOS, device=device)
    while len(searched):
        length = tokens.shape[2] + 1
        values, ids, parents = _candidates(steps.step(last), live, length > limit, settings.beam)
        values = values.masked_fill(torch.arange(settings.beam, device=device) >= places[:, None], -torch.inf)
        tokens = torch.cat([_take(tokens, parents), ids[:, :, None]], 2)
        ends = ids == EOS
        scores = (values / settings.penalty(length)).masked_fill(~ends, -torch.inf)
        finished = finished.add(scores, values, tokens)
        live = values.masked_fill(ends, -torch.inf)
        places = places - (scores > -torch.inf).sum(1)
        rows = parents + torch.arange(len(searched), device=device)[:, None] * (last.numel() // len(searched))
        done = finished.scores[:, settings.n_best - 1] >= _reach(live, length, limit, settings)
        done |= length > limit
        sentences = None
        if bool(done.any()):
            _collect(results, searched[done], finished.of(done), settings.n_best)
            sentences = (~done).nonzero()[:, 0]
            searched, limit, live = searched[sentences], limit[sentences], live[sentences]
            tokens, rows, finished, places = tokens[sentences], rows[sentences], finished.of(sentences), places[sentences]
        last = tokens[:, :, -1].flatten()
        steps.select(rows.flatten(), sentences)
    return results


def _candidates(logits: Tensor, live: Tensor, only_end: Tensor, beam: int) -> tuple[Tensor, Tensor, Tensor]:
    """The B best continuations of each sentence: log p, token and parent hypothesis, each [N, B], best first.

    The B best of a sentence are among the B best of its rows, so sums are taken over [R, B] and not over [R, V].
    """
    logits = logits.float()
    log_z = logits.logsumexp(-1, keepdim=True)
    logits[:, NEVER] = -torch.inf
    sentences, rows = live.shape
    if bool(only_end.any()):
        at_limit = only_end.repeat_interleave(rows)
        ends = logits[at_limit, EOS]
        logits[at_limit] = -torch.inf
        logits[at_limit, EOS] = ends
    count = min(beam, logits.shape[1])
    values, ids = logits.topk(count, dim=1)
    values = (values - log_z).view(sentences, rows, count) + live[:, :, None]
    best, where = _pad_to(values.flatten(1), beam).topk(beam, dim=1)
    where = where.clamp(max=rows * count - 1)
    return best, ids.view(sentences, -1).gather(1, where), where // count


def _reach(live: Tensor, length: int, limit: Tensor, settings: Settings) -> Tensor:
    """[N]: a bound on the score of whatever the living hypotheses [N, B] become.

    log p only falls and the penalty is monotone in the length, so the bound lies at the shortest or the longest output.
    """
    best = live.max(1).values
    shortest, longest = settings.penalty(length + 1), settings.penalty(limit + 1.0)
    return torch.maximum(best / shortest, best / longest)


def _collect(results: list[list[Hypothesis]], sentences: Tensor, finished: _Finished, n_best: int) -> None:
    """Writes the n best of these sentences into `results`, on the host."""
    table = (finished.tokens.tolist(), finished.log_p.tolist(), finished.scores.tolist())
    for sentence, tokens, log_ps, scores in zip(sentences.tolist(), *table, strict=True):
        for ids, log_p, score in list(zip(tokens, log_ps, scores, strict=True))[:n_best]:
            if score > -torch.inf:
                results[sentence].append(Hypothesis(ids[: ids.index(EOS)], log_p, score))


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Hypotheses [N, M, t] of x [N, B, t] by index [N, M]."""
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def _pad_to(x: Tensor, width: int) -> Tensor:
    """x [N, W] made at least `width` wide with -inf."""
    return torch.nn.functional.pad(x, (0, max(0, width - x.shape[1])), value=-torch.inf)
