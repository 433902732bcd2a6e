"""Minimum Bayes risk: of several samples the one that the others are most like (Eikema and Aziz 2020).

Samples stand for the model's distribution over translations. The best translation by it is the one whose expected
likeness to what may be said is greatest, and that is often not the most probable one. The likeness is chrF.

Axes: T texts, F features.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nmt.translation.translation import Translation

ORDERS = 6  # of the n-grams of characters, as chrF has it
BETA_SQUARED = 4  # recall counts twice as much as precision
BLOCK = 1 << 14  # features compared at once

Matrix = NDArray[np.float64]


def least_risk(samples: Sequence[Translation], count: int = 1) -> list[Translation]:
    """The samples of a line that the others are most like, at most so many, the best first, each text once.

    Their score is the mean of their chrF against each of the others as the reference, from 0 to 100.
    """
    if len(samples) < 2:
        return list(samples[:count])
    drawn = Counter(sample.text for sample in samples)
    texts = list(drawn)
    likeness = chrf_matrix(texts)
    alike = likeness @ np.array([drawn[text] for text in texts]) - likeness.diagonal()  # but not to itself
    first = {sample.text: sample for sample in reversed(samples)}
    order = np.argsort(-alike, kind="stable")[:count]
    return [first[texts[i]]._replace(score=float(alike[i]) / (len(samples) - 1)) for i in order]


def chrf_matrix(texts: Sequence[str]) -> Matrix:
    """[T, T]: sacreBLEU's chrF of each text against each as the reference, from 0 to 100."""
    letters = ["".join(text.split()) for text in texts]
    shape = len(texts), len(texts)
    precision, recall, orders = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for order in range(1, ORDERS + 1):
        counts = np.array([max(0, len(text) - order + 1) for text in letters])
        least = np.maximum(counts, 1)
        matches = _matches(letters, order, counts)  # none where either text is shorter than the order
        precision += matches / least[:, None]
        recall += matches / least
        orders += np.minimum.outer(counts, counts) > 0
    precision, recall = (mean / np.maximum(orders, 1) for mean in (precision, recall))
    below = BETA_SQUARED * precision + recall
    return np.divide(100 * (1 + BETA_SQUARED) * precision * recall, below, out=np.zeros(shape), where=below > 0)


def _matches(letters: Sequence[str], order: int, counts: NDArray[np.int64]) -> Matrix:
    """[T, T]: how many n-grams of this order two texts share, of which there are so many [T] in each.

    The first "th" of a text is one feature, its second another, so that what two texts share is a scalar product.
    """
    features: dict[tuple[str, int], int] = {}
    columns: list[int] = []
    for text in letters:
        times: dict[str, int] = {}
        for begin in range(len(text) - order + 1):
            gram = text[begin : begin + order]
            times[gram] = times.get(gram, 0) + 1
            columns.append(features.setdefault((gram, times[gram]), len(features)))
    column, row = np.array(columns, np.int64), np.repeat(np.arange(len(letters)), counts)
    shared = np.bincount(column, minlength=1) > 1  # most are of one text alone, which shares them with itself
    place = np.cumsum(shared) - 1
    here = shared[column]
    column, row = place[column[here]], row[here]
    matches = np.zeros((len(letters), len(letters)))
    for begin in range(0, int(shared.sum()), BLOCK):
        inside = (column >= begin) & (column < begin + BLOCK)
        has = np.zeros((len(letters), BLOCK), np.float32)
        has[row[inside], column[inside] - begin] = 1
        matches += has @ has.T
    np.fill_diagonal(matches, counts)
    return matches
