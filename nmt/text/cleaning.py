"""Which pairs are not worth training on, and why."""

from nmt.recipe import Data

EMPTY, TOO_LONG, LENGTH_RATIO = "empty", "too long", "length ratio"


def reason_to_drop(source: int, target: int, data: Data | None) -> str | None:
    """Why a pair with so many `source` and `target` tokens is dropped, or None when it is kept.

    - "empty": a side has no token
    - "too long": a side has more than `data.max_length` tokens
    - "length ratio": the longer side has more than `data.max_ratio` times the tokens of the shorter

    Without `data`, only empty pairs are dropped.
    """
    longer, shorter = max(source, target), min(source, target)
    if shorter == 0:
        return EMPTY
    if data is None:
        return None
    if longer > data.max_length:
        return TOO_LONG
    if longer > data.max_ratio * shorter:
        return LENGTH_RATIO
    return None
