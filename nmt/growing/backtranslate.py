"""Back-translation: text of the target language, with sources that a model of the other direction makes up.

Sennrich et al. 2016, "Improving Neural Machine Translation Models with Monolingual Data"; sampled instead of searched
for, Edunov et al. 2018; tagged, Caswell et al. 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nmt.errors import NmtError
from nmt.growing.job import Row
from nmt.growing.translating import Grown, How, grow, lines_of
from nmt.translation import Translation


@dataclass(frozen=True)
class _Tagged:
    """Pairs with the translation as source, after a tag if there is one, and the line as target."""

    tag: str

    def __call__(self, row: Row, translations: list[Translation]) -> list[Row]:
        before = f"{self.tag} " if self.tag else ""
        return [(before + one.text, row[0]) for one in translations]


def backtranslate(files: Sequence[str], prefix: str, how: How, tag: str = "") -> Grown:
    """Translates monolingual text into PREFIX.SOURCE, its copy PREFIX.TARGET beside it: pairs for the other direction.

    A model from German to English makes of German lines a corpus English to German. `tag` is put before each source.
    Blank lines, lines longer than what the model was trained on and lines without a translation are left out and
    counted. Raises `DataError`, `ModelError`, `OutputError`, and `NmtError` where what is there was made otherwise.
    """
    if tag and tag.split() != [tag]:
        raise NmtError(f"--tag: must be a word, without spaces, found {tag!r}")
    data = how.recipe.data
    copies, read = lines_of(files, how.shard.named(prefix))
    grown = grow(prefix, (data.target, data.source), read, _Tagged(tag), how, {"command": "backtranslate", "tag": tag})
    for copy in copies:
        Path(copy).unlink(missing_ok=True)
    return grown
