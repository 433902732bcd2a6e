"""The test sets of a recipe, translated."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from nmt.errors import DataError, RecipeError
from nmt.files import make_folder, whole_file
from nmt.recipe import Layout, Recipe, tag_of
from nmt.text import read_pairs
from nmt.translation.translator import Translator

Watch = Callable[[int, str], AbstractContextManager[Callable[[int], object]]]
"""Is given a number of lines and what is done with them; gives what is to be told how many more are done."""


class Translated(NamedTuple):
    """One test set: as many sources, references and translations."""

    name: str
    sources: list[str]
    references: list[str]
    translations: list[str]

    def samples(self, count: int) -> list[dict[str, str]]:
        """Some lines from all over the set: source, reference, translation."""
        total = len(self.sources)
        count = min(count, total)
        places = [total * i // count for i in range(count)]
        texts = {"source": self.sources, "reference": self.references, "translation": self.translations}
        return [{kind: lines[place] for kind, lines in texts.items()} for place in places]


def translate_test_sets(
    recipe: Recipe,
    translator: Translator,
    watch: Watch = lambda lines, what: nullcontext(lambda done: None),
    **how: Any,
) -> Iterator[Translated]:
    """Each of the recipe's test sets, translated; the translations are also written to RUN/translations.

    They are what the search holds best, for that is what is to be scored, whether it looks wrong or not. Keywords are
    those of `Translator.stream`, and override keys of the recipe's `decode` section. Raises `RecipeError` where the
    recipe names no test set, `DataError` for text that cannot be used, `OutputError` for a file that cannot be written.
    """
    data, folder = recipe.data, Layout.of(recipe).translations
    if not data.test:
        raise RecipeError("data.test: must name a test set to score, as in test: {newstest: PREFIX}")
    for name, corpus in data.test.items():
        pairs = list(read_pairs(corpus, data.source, data.target))
        if not pairs:
            raise DataError(f"data.test.{name}: the corpus is empty: there is nothing to score")
        sources, references = map(list, zip(*pairs, strict=True))
        with watch(len(sources), f"translating {name}") as done:
            choices = recipe.decode.model_dump() | {"tag": tag_of(corpus), "on_suspect": "off", "done": done} | how
            translations = translator.translate(sources, **choices)
        make_folder(folder)
        _write(folder / f"{name}.{data.of(corpus).target}", translations)
        yield Translated(name, sources, references, translations)


def _write(path: Path, lines: list[str]) -> None:
    with whole_file(path, "w") as file:
        file.writelines(line + "\n" for line in lines)
