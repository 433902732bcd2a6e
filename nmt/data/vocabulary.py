"""The tokenizers of a recipe: learned from the training text, or taken from elsewhere."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

from nmt.errors import DataError
from nmt.recipe import Recipe
from nmt.text import Tokenizer, Tokenizers, tokenizer_files, train_tokenizer
from nmt.text.corpora import Pair

Report = Callable[[str], None]


def vocabulary(recipe: Recipe, pairs: Callable[[], Iterable[Pair]], report: Report) -> Tokenizers:
    """The tokenizers of a recipe; `pairs` gives the training text, if it is asked, perhaps twice.

    Raises `DataError` for text that has too little to learn, and `DataError` or `ModelError` for a tokenizer that
    cannot be reused.
    """
    if files := reused(recipe):
        return _reuse(recipe, files, report)
    data = recipe.data
    both = [data.of(corpus) for corpus in data.train]
    sources, targets = dict.fromkeys(one.source for one in both), dict.fromkeys(one.target for one in both)
    if recipe.tokenizer.shared:
        shared = _learn(recipe, " and ".join(sources | targets), chain.from_iterable(pairs()), report)
        return Tokenizers(shared, shared)
    return Tokenizers(
        _learn(recipe, " and ".join(sources), (source for source, _ in pairs()), report),
        _learn(recipe, " and ".join(targets), (target for _, target in pairs()), report),
    )


def reused(recipe: Recipe) -> tuple[Path, ...]:
    """The files of the tokenizer to be reused, if one is. Raises `ModelError`."""
    return tokenizer_files(recipe.tokenizer.reuse) if recipe.tokenizer.reuse is not None else ()


def _reuse(recipe: Recipe, files: Sequence[Path], report: Report) -> Tokenizers:
    """The tokenizers in these files. Raises `ModelError`, and `DataError` where the recipe says otherwise."""
    asked, one = recipe.tokenizer, len(files) == 1
    if one != asked.shared:
        many = "one vocabulary for both sides" if one else "a vocabulary for each side"
        raise DataError(f"tokenizer.shared: must be {str(one).lower()}, for {asked.reuse} has {many}")
    tokenizers = Tokenizers.fitted(files, recipe.symbols)
    size = tokenizers.target.vocab_size
    if asked.vocab_size not in (None, size):
        must = f"must be {size}, as {files[-1]} comes to here, or left out"
        raise DataError(f"tokenizer.vocab_size: {must}, found {asked.vocab_size}")
    report(f"taking {size:,} subwords from {' and '.join(map(str, files))}")
    for file, tokenizer in zip(files, tokenizers, strict=False):
        if added := tokenizer.added_to(file):
            report(f"{file}: added to it: {added}")
    return tokenizers


def _learn(recipe: Recipe, languages: str, lines: Iterable[str], report: Report) -> Tokenizer:
    asked = recipe.tokenizer
    size = asked.vocab_size or 0  # the schema asks for it where nothing is reused
    report(f"learning {size:,} subwords of {languages}")
    model = train_tokenizer(
        lines,
        size,
        character_coverage=asked.character_coverage,
        split_by_unicode_script=asked.split_by_unicode_script,
        sample=asked.sample,
        seed=recipe.seed,
        symbols=recipe.symbols,
    )
    return Tokenizer(model)
