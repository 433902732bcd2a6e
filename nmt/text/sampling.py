"""A sample of a stream of unknown length, in one pass and in bounded memory."""

import random
from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def reservoir(items: Iterable[Item], most: int, seed: int) -> list[Item]:
    """`most` of the items, each with equal chance, in the order they were read as far as that is possible."""
    draw = random.Random(seed).random
    kept: list[Item] = []
    for number, item in enumerate(items):
        if number < most:
            kept.append(item)
        elif (place := int(draw() * (number + 1))) < most:
            kept[place] = item
    return kept
