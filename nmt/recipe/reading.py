"""A recipe from a file, with overrides, and back to text."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nmt.errors import RecipeError
from nmt.recipe.mistakes import mistakes, shown
from nmt.recipe.schema import Decode, Recipe
from nmt.recipe.yaml12 import Key, Mistake, Place, Said, parse, write

_AFTER_THE_FILE = 10**9  # overrides are told of after every line


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file. An override is "section.key=value", its value read as YAML.

    Raises `RecipeError` with a line for each mistake: FILE:LINE: section.key: what must hold, what was found.
    """
    try:
        data = Path(path).read_bytes()
    except IsADirectoryError:
        raise RecipeError(f"{path}: must be a recipe file, found a folder") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path}:{line}: not UTF-8: save the file as UTF-8 text") from None
    return loads(text, str(path), overrides)


def loads(text: str, name: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a text, which errors call `name`. Otherwise as `load`."""
    said = parse(text, lambda line: Place(line, f"{name}:{line}"))
    if not isinstance(said.value, dict):
        found = shown(said.value)
        raise RecipeError(f"{name}:1: must have sections such as data and tokenizer, found {found}")
    said.mistakes.extend(_override(said, overrides))
    try:
        recipe = Recipe.model_validate(said.value)
    except ValidationError as error:
        raise _told([*said.mistakes, *mistakes(error, said.places)]) from None
    if said.mistakes:
        raise _told(said.mistakes)
    return recipe


def redecide(decode: Decode, **changes: Any) -> Decode:
    """The section `decode` with some keys changed. Raises `RecipeError` for what it may not hold."""
    try:
        return Decode.model_validate(decode.model_dump() | changes)
    except ValidationError as error:
        told = (mistake.text for mistake in mistakes(error, {(): Place(0, "")}, ("decode",)))
        raise RecipeError("; ".join(told)) from None


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, whole: every key with the value it has. `loads` gives the same recipe back."""
    return write(recipe.model_dump())


def _told(found: Iterable[Mistake]) -> RecipeError:
    in_order = sorted(found, key=lambda mistake: mistake.place.order)
    lines = (f"{mistake.place.text}: {mistake.text}" for mistake in in_order)
    return RecipeError("\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines))


def _override(said: Said, overrides: Sequence[str]) -> Iterator[Mistake]:
    """Says anew what each override says; gives the mistakes in their form."""
    for override in overrides:
        place = Place(_AFTER_THE_FILE, f"--set {override}")
        name, equals, text = override.partition("=")
        key: Key = tuple(name.strip().split("."))
        if not equals or not all(key):
            yield Mistake(place, "must be section.key=value, such as train.steps=1000")
            continue
        try:
            anew = parse(text, lambda line, place=place: place, key)  # type: ignore[misc]
        except RecipeError as error:
            yield Mistake(place, str(error).removeprefix(f"{place.text}: "))
            continue
        _put(said, key, anew, place)
        yield from anew.mistakes


def _put(said: Said, key: Key, anew: Said, place: Place) -> None:
    """Puts what was said anew in the place of what the recipe says at `key`, making sections on the way."""
    section: Any = said.value
    for depth, name in enumerate(key[:-1], start=1):
        if not isinstance(section.get(name), dict):
            section[name] = {}
            said.places[key[:depth]] = place
        section = section[name]
    section[key[-1]] = anew.value
    stale = [known for known in said.places if known[: len(key)] == key]
    for known in stale:
        del said.places[known]
    said.places.update(anew.places)
