"""The scores of a run's test sets in a file, as `nmt score` leaves them for whoever asks later."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nmt.errors import DataError
from nmt.evaluation.report import Report
from nmt.files import read_json, write_json


class Kept(NamedTuple):
    """A report, how it was asked for, and the SHA-256 of the translations that it is about."""

    report: Report
    tokenize: str | None
    lowercase: bool
    translations: str


def digest(translations: Sequence[str]) -> str:
    """The SHA-256 of translations as they lie in a file, a line each."""
    return hashlib.sha256("".join(line + "\n" for line in translations).encode()).hexdigest()


def keep(path: Path, scores: Mapping[str, Kept]) -> None:
    """Writes the scores of test sets, by name. Raises `OutputError`."""
    write_json(path, {name: one._asdict() | {"report": one.report.to_json()} for name, one in scores.items()})


def kept(path: Path) -> dict[str, Kept]:
    """What `keep` has written; nothing where there is no such file. Raises `DataError` for a damaged one."""
    if not path.exists():
        return {}
    stored = read_json(path)
    try:
        return {name: Kept(**one | {"report": Report.of_json(one["report"])}) for name, one in stored.items()}
    except (TypeError, KeyError, AttributeError):
        raise DataError(f"{path}: is not what nmt score writes: remove it, and score again") from None
