"""What metrics.jsonl says of a run: one JSON object a line."""

import json
from pathlib import Path
from typing import Any


def read(metrics: Path) -> list[dict[str, Any]]:
    """Its lines, in order, without one that was cut short; none where there is no such file."""
    if not metrics.exists():
        return []
    return [line for line in map(_values, metrics.read_bytes().splitlines()) if line]


def scores(lines: list[dict[str, Any]], by: str) -> dict[int, float]:
    """How good the valid corpus found the model after each update it was measured: more is better.

    `by` is bleu, chrf, or loss, of which the negative is taken. What was not finite is none.
    """
    measured = ((line["step"], line.get(by)) for line in lines if line["kind"] == "valid")
    return {step: -value if by == "loss" else value for step, value in measured if value is not None}


def _values(line: bytes) -> dict[str, Any] | None:
    """What a line says; None for one that was cut short."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) and {"kind", "step"} <= values.keys() else None
