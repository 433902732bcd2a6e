"""Where the things that a recipe makes lie in its run folder."""

from pathlib import Path
from typing import NamedTuple

from nmt.recipe.schema import Recipe


class Layout(NamedTuple):
    """The places in a run folder."""

    folder: Path
    """The run folder itself."""
    data: Path
    """Tokenizer and shards, made by `nmt prepare`."""
    checkpoints: Path
    """Checkpoints, made by `nmt train`; a folder each."""
    metrics: Path
    """metrics.jsonl, what training measured: one JSON object a line."""
    skipped: Path
    """skipped.jsonl, the updates that training left out because they were not finite; there if there are any."""
    samples: Path
    """samples.jsonl, how training translated some sentences of the valid corpus by and by."""
    sessions: Path
    """sessions.jsonl, when training began, rewound and ended, and on what; a line each, never taken out."""
    tensorboard: Path
    """What training measured, for TensorBoard; there if the recipe asks for it."""
    model: Path
    """The model folder, made by `nmt average`."""
    translations: Path
    """Translations of the test sets, made by `nmt score`; a file each."""
    scores: Path
    """scores.json, what `nmt score` said of them."""
    report: Path
    """report.html, the page that `nmt report` writes."""

    @classmethod
    def of(cls, recipe: Recipe) -> "Layout":
        """The places of this recipe's run."""
        return cls.at(Path(recipe.run))

    @classmethod
    def at(cls, run: Path) -> "Layout":
        """The places in this folder."""
        logs = ("metrics.jsonl", "skipped.jsonl", "samples.jsonl", "sessions.jsonl", "tensorboard")
        names = ("data", "checkpoints", *logs, "model", "translations", "scores.json", "report.html")
        return cls(run, *(run / name for name in names))
