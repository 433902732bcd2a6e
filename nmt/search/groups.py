"""Diverse beam search (Vijayakumar et al. 2016): the beam as groups, each kept from saying what others say.

At each step the groups choose one after the other. A token costs a group `diversity` for each hypothesis of the groups
before it that has just taken that token (Hamming diversity, section 5.1). That sways the choice alone: log p, and so
the score, stay the model's.

Axes: N sentences, G groups, B hypotheses of a group, R = N·G·B rows, V vocabulary, L length of the source.
"""

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from nmt.search.steps import Attentive, Change, Hypothesis, Steps


class Groups:
    """`Steps` of sentences as those of their groups: one sentence and its source for several searches."""

    def __init__(self, steps: Steps, groups: int) -> None:
        self._steps, self._groups = steps, groups
        self._begun = False

    def step(self, tokens: Tensor) -> Tensor:
        """The logits [R, V] of the steps for tokens [R]; at first, when all groups say the same, of N rows."""
        return self._steps.step(tokens) if self._begun else self._each(self._steps.step(tokens[:: self._groups]))

    def attention(self) -> Tensor:
        """What the rows have looked at, [R, L], by steps that are `Attentive`."""
        seen = cast(Attentive, self._steps).attention()
        return seen if self._begun else self._each(seen)

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
        """Goes on with these rows [R'], and, if given, with these groups [N'·G], of a sentence always all."""
        if not self._begun:
            rows = rows // self._groups
            self._begun = True
        self._steps.select(rows, None if sentences is None else sentences[:: self._groups] // self._groups)

    def _each(self, of_sentences: Tensor) -> Tensor:
        return of_sentences.repeat_interleave(self._groups, 0)


def unlike(cost: Tensor, then: Change | None) -> Change:
    """Takes from the logits of the R = N·B rows of a group what each token costs there, [N, V]; then does the other."""

    def change(logits: Tensor) -> None:
        logits.unflatten(0, (len(cost), -1)).sub_(cost[:, None])
        if then is not None:
            then(logits)

    return change


def best_of(groups: Sequence[Hypothesis], count: int) -> list[Hypothesis]:
    """The best of what all groups have found, best first, each output once."""
    ordered = sorted(groups, key=lambda found: -found.score)
    return list({tuple(found.ids): found for found in ordered}.values())[:count]
