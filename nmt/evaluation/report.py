"""Scores as they are shown: a table for the terminal, plain values for JSON."""

from dataclasses import asdict, dataclass
from typing import Any

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Row:
    """One score: a system, a metric, and everything needed to compare it with another.

    score      in points, 0 to 100 (TER may exceed 100); for TER less is better
    signature  sacreBLEU's, which says how the score was computed
    mean, ci   the 95 % bootstrap interval is mean ± ci, in points; None where it was not asked for
    p_value    paired bootstrap against the first system; None for that one itself
    anatomy    of BLEU: n-gram precisions in percent, brevity penalty, length ratio, both lengths in tokens
    """

    system: str
    metric: str
    score: float
    signature: str
    mean: float | None = None
    ci: float | None = None
    p_value: float | None = None
    anatomy: dict[str, Any] | None = None


@dataclass(frozen=True)
class Report:
    """The scores of one or several systems on one test set: system by system, metrics in the order asked.

    notes are sentences for the reader: what was asked for and is not there.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def systems(self) -> list[str]:
        """The names of the systems; p-values compare with the first."""
        return list(dict.fromkeys(row.system for row in self.rows))

    @property
    def metrics(self) -> list[str]:
        """The names that sacreBLEU gives the metrics: "BLEU", "chrF2++", "TER"."""
        return list(dict.fromkeys(row.metric for row in self.rows))

    def row(self, system: str, metric: str) -> Row:
        """The score of `system` by `metric`; KeyError when there is none."""
        for row in self.rows:
            if (row.system, row.metric) == (system, metric):
                return row
        raise KeyError((system, metric))

    def to_json(self) -> dict[str, Any]:
        """The report as values that `json` can write."""
        return {"rows": [asdict(row) for row in self.rows], "notes": list(self.notes)}

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> "Report":
        """The report that `to_json` gave these values of. Raises `TypeError` or `KeyError` for others."""
        return cls(tuple(Row(**row) for row in values["rows"]), tuple(values["notes"]))

    def lines(self) -> list[str]:
        """The report for a terminal: a table of systems by metrics, signatures, what the signs mean."""
        return [*self._table(), "", *self._signatures(), *self._legend()]

    def _table(self) -> list[str]:
        heads = ["", *(f"{metric} ↓" if metric == "TER" else metric for metric in self.metrics)]
        cells = [heads]
        for system in self.systems:
            rows = [self.row(system, metric) for metric in self.metrics]
            cells.append([system, *map(_score, rows)])
            if any(row.p_value is not None for row in rows):
                cells.append(["", *map(_p_value, rows)])
        return _aligned(cells)

    def _signatures(self) -> list[str]:
        first = self.systems[0]
        lines = _aligned([[metric, self.row(first, metric).signature] for metric in self.metrics])
        anatomies = [[row.system, _anatomy(row.anatomy)] for row in self.rows if row.anatomy]
        return [*lines, "", *_aligned(anatomies)] if anatomies else lines

    def _legend(self) -> list[str]:
        lines = []
        if any(row.ci is not None for row in self.rows):
            lines.append("±  half the width of the 95 % bootstrap interval")
        if any(row.p_value is not None for row in self.rows):
            lines.append(f"p  paired bootstrap against {self.systems[0]}; * below {SIGNIFICANT}")
        lines += self.notes
        return ["", *lines] if lines else []


def _score(row: Row) -> str:
    return f"{row.score:.2f}" if row.ci is None else f"{row.score:.2f} ± {row.ci:.2f}"


def _p_value(row: Row) -> str:
    if row.p_value is None:
        return ""
    return f"p = {row.p_value:.3f}{' *' if row.p_value < SIGNIFICANT else ''}"


def _anatomy(parts: dict[str, Any]) -> str:
    precisions = "/".join(f"{precision:.1f}" for precision in parts["precisions"])
    return (
        f"BLEU from precisions {precisions}, brevity penalty {parts['brevity_penalty']:.3f}, "
        f"length ratio {parts['length_ratio']:.3f} ({parts['tokens']} / {parts['reference_tokens']} tokens)"
    )


def _aligned(cells: list[list[str]]) -> list[str]:
    """Rows of equally many cells as lines, the columns under each other."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
