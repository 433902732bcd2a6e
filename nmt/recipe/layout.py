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
    model: Path
    """The model folder, made by `nmt average`."""

    translations: Path
    """Translations of the test sets, made by `nmt score`; a file each."""

    @classmethod
    def of(cls, recipe: Recipe) -> "Layout":
        """The places of this recipe's run."""
        run = Path(recipe.run)
        names = ("data", "checkpoints", "metrics.jsonl", "skipped.jsonl", "model", "translations")
        return cls(run, *(run / name for name in names))
