"""What is wrong with a recipe, in its own words: what must hold, what was found, what may be meant."""

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nmt.recipe.schema import Recipe, Section
from nmt.recipe.yaml12 import Key, Mistake, Place, dotted

_MUST = {
    "bool_type": "must be true or false",
    "clash": "{must}",
    "dict_type": "must be a section of keys",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "model_type": "must be a section of keys",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_pattern_mismatch": "must be a name of letters, digits and . _ -, a letter or digit first",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "too_short": "must have at least {min_length} entry",
}
_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def mistakes(error: ValidationError, places: dict[Key, Place], section: Key = ()) -> Iterator[Mistake]:
    """Each thing that the schema found wrong with a section (the whole recipe), at the place where it was said."""
    for details in error.errors(include_url=False):
        said = (*section, *details["loc"])
        key = tuple(part for part in said if not str(part).startswith(("<", "[key]")))
        context = details.get("ctx", {})
        if details["type"] == "clash":  # between two keys: told where one of them is written
            key, other = (tuple(context[name].split(".")) for name in ("key", "other"))
            place = places.get(key) or places.get(other) or _place(key, places)
        else:
            place = _place(key, places)
        yield Mistake(place, f"{dotted(key)}: {_words(details, key, _fields(said[:-1]))}")


def _place(key: Key, places: dict[Key, Place]) -> Place:
    """The place of a key, or of the innermost section around it that was said."""
    while key not in places:
        key = key[:-1]
    return places[key]


def _words(details: ErrorDetails, key: Key, beside: dict[str, Any]) -> str:
    """What is wrong at a key; `beside` are the keys of its section."""
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return f"must be given: {_documentation(beside[str(key[-1])])}"
    if kind == "extra_forbidden":
        section = dotted(key[:-1]) or "a recipe"
        keys = f"; the keys of {section} are {', '.join(beside)}"
        return "unknown key" + (_ask(_key_meant(key, beside)) or keys)
    found = context.get("found", details["input"])
    bounds = {name: _plain(value) for name, value in context.items()}
    must = _MUST[kind].format(**bounds) if kind in _MUST else details["msg"]
    return f"{must}, found {shown(found)}" + _ask(_value_meant(kind, found, must))


def _ask(meant: str | None) -> str:
    return f"; did you mean {meant}?" if meant else ""


def _plain(value: Any) -> Any:
    """A bound or a choice as it would be written in the recipe: 1 for 1.0, post for 'post'."""
    if isinstance(value, float):
        return f"{value:.15g}"
    return value.replace("'", "") if isinstance(value, str) else value


def shown(value: Any) -> str:
    """A value as it is told of, on one line."""
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _value_meant(kind: str, found: Any, must: str) -> str | None:
    if kind == "string_type" and isinstance(found, bool | int | float):
        return f'"{shown(found)}"'
    if kind == "bool_type" and isinstance(found, str):
        return _BOOLEANS.get(found.lower())
    if kind == "literal_error" and isinstance(found, str):
        return next(iter(get_close_matches(found, must.split()[2:])), None)
    if (
        kind == "either"
        and isinstance(found, dict)
        and not found.keys() & (kinds := re.findall(r"\{(\w+): FILE", must))
    ):
        return next((near for key in found for near in get_close_matches(str(key), kinds)), None)
    if kind in ("int_type", "float_type") and isinstance(found, str | float):
        return _number_meant(str(found), whole=kind == "int_type")
    return None


def _number_meant(text: str, whole: bool) -> str | None:
    """The number in a text such as "0.1", 100_000 or 1e5, if there is one."""
    try:
        number = float(re.sub(r"[_,' ]", "", text))
    except ValueError:
        return None
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    return None if whole else f"{number:.15g}"


def _key_meant(key: Key, beside: dict[str, Any]) -> str | None:
    """The key most like an unknown one: of its own section, or else of any other."""
    section, name = key[:-1], str(key[-1])
    near = get_close_matches(name, beside, n=1)
    if near:
        return dotted((*section, near[0]))
    # Of several keys of one name the first in the schema is meant: data.source, not that of a JSON corpus.
    elsewhere = {full.rsplit(".", 1)[-1]: full for full in reversed(list(_all_keys(Recipe)))}
    far = get_close_matches(name, elsewhere, n=1, cutoff=0.8)
    return elsewhere[far[0]] if far else None


def _documentation(field: Any) -> str:
    section = next(_sections(field.annotation), None)
    text = " ".join((field.description or (section and section.__doc__) or "").split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _fields(key: Key) -> dict[str, Any]:
    """The keys that the section at `key` has. Entries of lists and named entries have those of their kind.

    Where a key takes several kinds of section, a tag in `key`, as in <tsv>, says which: that with a key of this name.
    """
    sections: list[type[Section]] = [Recipe]
    for part in key:
        fields = {name: field for section in sections for name, field in section.model_fields.items()}
        if part in fields:
            sections = list(_sections(fields[str(part)].annotation))
        elif chosen := [section for section in sections if str(part)[1:-1] in section.model_fields]:
            sections = chosen
    return {name: field for section in sections for name, field in section.model_fields.items()}


def _all_keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        for inner in _sections(field.annotation):
            yield from _all_keys(inner, f"{prefix}{name}.")


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """The sections that a type is or holds."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)
