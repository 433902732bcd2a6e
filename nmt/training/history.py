"""What the logs of a run say: one JSON object a line, with its kind and the update that it is about."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read(log: Path) -> list[dict[str, Any]]:
    """Its lines, in order, without one that was cut short; none where there is no such file."""
    if not log.exists():
        return []
    return [line for line in map(_values, log.read_bytes().splitlines()) if line]


def settled(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines without those of updates that were done again further down: what training goes on from."""
    least = float("inf")
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in reversed(lines):
        if line["step"] <= least:
            kept.setdefault((line["step"], line.get("kind"), line.get("sentence")), line)
        least = min(least, line["step"])
    return [*kept.values()][::-1]


def scores(lines: list[dict[str, Any]], by: str) -> dict[int, float]:
    """How good the valid corpus found the model after each update it was measured: more is better.

    `by` is bleu, chrf, or loss, of which the negative is taken. What was not finite is none.
    """
    measured = ((line["step"], line.get(by)) for line in lines if line.get("kind") == "valid")
    return {step: -value if by == "loss" else value for step, value in measured if value is not None}


def _values(line: bytes) -> dict[str, Any] | None:
    """What a line says; None for one that was cut short."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) and "step" in values else None
