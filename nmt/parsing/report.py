"""The figures of parses against gold trees: a table for the terminal, plain values for JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.errors import DataError
from nmt.parsing.evalb import COLLINS, CUTOFF, Rules, Summary, scores
from nmt.parsing.trees import many


@dataclass(frozen=True)
class Report:
    """The summary of all sentences, and that of the shorter ones, up to 40 words."""

    everything: Summary
    short: Summary

    @property
    def summaries(self) -> dict[str, Summary]:
        """Each under its name."""
        return {"all": self.everything, f"up to {CUTOFF} words": self.short}

    def to_json(self) -> dict[str, Any]:
        """The figures as values that `json` can write."""
        return {name: summary.to_json() for name, summary in self.summaries.items()}

    def lines(self) -> list[str]:
        """The summaries side by side, each under its name."""
        columns = [_cells(summary) for summary in self.summaries.values()]
        rows = {"": list(self.summaries)} | {head: [cells[head] for cells in columns] for head in columns[0]}
        return [f"{head:<18}" + "".join(f"  {cell:>14}" for cell in cells) for head, cells in rows.items()]

    @property
    def note(self) -> str:
        """What is to be said of sentences that are not in the figures; empty where all are."""
        if not (why := _invalid(self.everything)):
            return ""
        return f"not in the figures, as in EVALB: {why}, of {many(self.everything.sentences, 'sentence')}"


def judge(gold: str | Path, parsed: str | Path, rules: Rules = COLLINS, *, own_tags: bool = False) -> Report:
    """The report on the parses in a file, one a line, against the gold trees in another, as `scores` compares them.

    Raises `DataError` for what `scores` does, and where no sentence is left to judge.
    """
    sentences = scores(gold, parsed, rules, own_tags=own_tags)
    report = Report(Summary.of(sentences), Summary.of([s for s in sentences if s.length <= CUTOFF]))
    if not report.everything.valid:
        raise DataError(
            f"{parsed}: no sentence to judge by {gold}: {_invalid(report.everything)}: "
            "name the parses of the same sentences, in the same order"
            + (", with tags; or let the gold tags decide, without --own-tags" if own_tags else "")
        )
    return report


def _invalid(summary: Summary) -> str:
    kinds = {"with other words": summary.errors, "without a tree": summary.skipped}
    return ", ".join(f"{number:,} {kind}" for kind, number in kinds.items() if number)


def _cells(s: Summary) -> dict[str, str]:
    counts = {"sentences": s.sentences, "valid": s.valid, "with other words": s.errors, "without a tree": s.skipped}
    figures = {
        "recall": s.recall,
        "precision": s.precision,
        "F1": s.f1,
        "exact match": s.exact,
        "average crossing": s.crossing,
        "no crossing": s.no_crossing,
        "2 or less crossing": s.at_most_two_crossing,
    }
    shown = {name: f"{number:,}" for name, number in counts.items()}
    shown |= {name: f"{figure:.2f}" if s.valid else "—" for name, figure in figures.items()}
    tagging = "no tags" if s.tagging is None else f"{s.tagging:.2f}"
    return shown | {"tagging accuracy": tagging if s.valid else "—"}
