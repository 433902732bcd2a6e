"""Whether prepared text is still what the recipe asks for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nmt.data.shards import MEND, InputRecord, Manifest, sha256
from nmt.errors import DataError
from nmt.recipe import Recipe


def reason_to_prepare(folder: Path, recipe: Recipe, files: Sequence[Path]) -> str | None:
    """Why `folder` must be prepared from `files`, or None when it holds just what that would give."""
    if not folder.exists():
        return "for the first time"
    try:
        manifest = Manifest.load(folder)
    except DataError as error:
        return f"again: {str(error).removesuffix(MEND).rstrip(' :')}"
    changed = difference(manifest.choices, manifest.inputs, recipe, files)
    return f"again: {changed}" if changed else None


def difference(
    said: dict[str, Any], inputs: Mapping[str, InputRecord], recipe: Recipe, files: Sequence[Path]
) -> str | None:
    """What has changed since the choices of a recipe were `said` and its files `inputs`, or None."""
    if changed := _changed(said, recipe):
        return f"the recipe has changed in {', '.join(changed)}"
    for path in files:
        record = inputs.get(str(path))
        if record is None or not is_same(path, record):
            return f"{path} has changed"
    return None


def check_prepared(folder: Path, recipe: Recipe) -> None:
    """Raises `DataError` where `folder` holds nothing, or what another recipe asked for."""
    if changed := _changed(Manifest.load(folder).choices, recipe):
        raise DataError(f"{folder}: the recipe has since changed in {', '.join(changed)}: {MEND}")


def choices(recipe: Recipe) -> dict[str, Any]:
    """The keys of the recipe that decide what is prepared; not those that decide how much is seen of it."""
    unread = {"temperature", "test"} if recipe.data.clean.overlap == "warn" else {"temperature"}
    data = recipe.data.model_dump(mode="json", exclude=unread)
    data["train"] = [_as_read(corpus) for corpus in data["train"]]
    tokenizer = recipe.tokenizer.model_dump(mode="json") | {"symbols": list(recipe.symbols)}
    return {"seed": recipe.seed, "data": data, "tokenizer": tokenizer}


def _as_read(corpus: Any) -> Any:
    """A corpus without its weight; a prefix of which nothing else is said is itself."""
    if isinstance(corpus, str):
        return corpus
    said = {key: value for key, value in corpus.items() if key != "weight"}
    return said["path"] if said.keys() == {"path"} else said


def _completed(stored: dict[str, Any]) -> dict[str, Any]:
    """Stored choices with the defaults of those keys that did not exist when they were stored."""
    try:
        # What is not stored is as it need not be asked about: two vocabularies want embeddings that are not shared.
        return choices(Recipe.model_validate({"run": "-", "model": {"embeddings": "separate"}, **stored}))
    except ValidationError:
        return stored


def _changed(then: dict[str, Any], recipe: Recipe) -> list[str]:
    """The keys that have changed; a step of cleaning that did not exist at the time has not."""
    now = choices(recipe)
    data = then.get("data", {})
    clean = now["data"]["clean"] | data.get("clean", {})
    return _differences(_completed(then | {"data": data | {"clean": clean}}), now)


def record_input(path: Path) -> InputRecord:
    """What a raw file is known by. Raises `DataError` for what cannot be read, or not twice (a pipe)."""
    if path.exists() and not path.is_file():
        mend = "" if path.is_dir() else ": copy it to one, or pipe it in, as {tsv: -} or of what kind it is"
        raise DataError(f"{path}: must be a regular file, for its text is read more than once{mend}")
    try:
        status = path.stat()
        return InputRecord(bytes=status.st_size, modified=status.st_mtime_ns, sha256=sha256(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def is_same(path: Path, record: InputRecord) -> bool:
    """By size and time, which is cheap, or else by content: copying a corpus does not make it another one."""
    try:
        status = path.stat()
    except OSError:  # removed meanwhile
        return False
    if status.st_size != record.bytes:
        return False
    return status.st_mtime_ns == record.modified or record_input(path).sha256 == record.sha256


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """The keys, as section.key, whose values differ."""
    differing = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            differing += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            differing.append(f"{prefix}{key}")
    return differing
