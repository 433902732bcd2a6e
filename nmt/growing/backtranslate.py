"""Back-translation: text of the target language, with sources that a model of the other direction makes up.

Sennrich et al. 2016, "Improving Neural Machine Translation Models with Monolingual Data"; sampled instead of searched
for, Edunov et al. 2018. Tagged (Caswell et al. 2019) they become in the recipe that lists them.
"""

from collections.abc import Sequence
from pathlib import Path

from nmt.growing.job import Row
from nmt.growing.translating import Grown, How, grow, lines_of
from nmt.translation import Translation


def backtranslate(files: Sequence[str], prefix: str, how: How) -> Grown:
    """Translates monolingual text into PREFIX.SOURCE, its copy PREFIX.TARGET beside it: pairs for the other direction.

    A model from German to English makes of German lines a corpus English to German.
    Blank lines, lines longer than what the model was trained on and lines without a translation are left out and
    counted. Raises `DataError`, `ModelError`, `OutputError`, and `NmtError` where what is there was made otherwise.
    """
    data = how.recipe.data
    copies, read = lines_of(files, how.shard.named(prefix))
    grown = grow(prefix, (data.target, data.source), read, _turned, how, {"command": "backtranslate"})
    for copy in copies:
        Path(copy).unlink(missing_ok=True)
    return grown


def _turned(row: Row, translations: list[Translation]) -> list[Row]:
    """Pairs with the translation as source and the line as target."""
    return [(one.text, row[0]) for one in translations]
