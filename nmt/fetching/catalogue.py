"""The public corpora that can be fetched: a list in YAML, and what may stand in it.

The list is data: `corpora.yaml` beside this file, or one that a user writes. The text under each key is its
documentation.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, RootModel, StringConstraints, ValidationError, model_validator

from nmt.errors import DataError
from nmt.recipe.schema import Count, Name, Section, Text
from nmt.recipe.yaml12 import Place, parse

BUILT_IN = Path(__file__).with_name("corpora.yaml")

# Where something lies under a folder: no part of it may begin with a dot, so none leads out of the folder.
Inside = Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")]
Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]+$")]
Percent = Annotated[int, Field(ge=1, le=50)]
ALGORITHMS = ("sha256", "sha1", "md5")


class Download(Section):
    """A file to fetch, and what it must be."""

    url: Text | None = None
    """Where it is: https, or http with `http_only`."""
    sacrebleu: Text | None = None
    """Instead of `url`: the test set of sacreBLEU's list whose archive it is. URL and MD5 are sacreBLEU's."""
    bytes: Count | None = None
    """Its length."""
    sha256: Annotated[Hex, StringConstraints(min_length=64, max_length=64)] | None = None
    sha1: Annotated[Hex, StringConstraints(min_length=40, max_length=40)] | None = None
    md5: Annotated[Hex, StringConstraints(min_length=32, max_length=32)] | None = None
    checksum: Literal["none known"] | None = None
    """Must be said where there is no checksum."""
    http_only: Text | None = None
    """Why there is no https. It is shown to the user."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.url is None) == (self.sacrebleu is None):
            raise ValueError("must have a url, or sacrebleu, the name of a test set")
        schemes = ("https://", "http://") if self.http_only else ("https://",)
        if self.url is not None and not self.url.startswith(schemes):
            raise ValueError("url: must begin with https://, or with http:// and say why under http_only")
        if (self.checksum is None) != bool(self.digests or self.sacrebleu):
            raise ValueError("must have sha256, sha1 or md5; or say `checksum: none known`")
        return self

    @property
    def digests(self) -> dict[str, str]:
        """The checksums that stand in the list, by algorithm."""
        known = {name: getattr(self, name) for name in ALGORITHMS}
        return {name: digest for name, digest in known.items() if digest is not None}


class HoldOut(Section):
    """Lines that go to other prefixes: whole sentences of one language, with all that they translate to."""

    by: Name
    """The language whose sentences are told apart."""
    percent: dict[Inside, Percent]
    """Where they go, and how many in a hundred."""


class Part(Section):
    """A parallel text to write, named by its prefix; its sides are PREFIX.LANGUAGE."""

    sides: dict[
        Name,
        Annotated[
            list[Inside], Field(min_length=1), BeforeValidator(lambda one: [one] if isinstance(one, str) else one)
        ],
    ]
    """What each side is made of: downloads, or members of those that are archives, as DOWNLOAD/MEMBER."""
    read: Literal["lines", "segments", "talks"] = "lines"
    """lines as they are; the <seg>s of a test set in SGML; the transcripts of talks among lines of tags."""
    lines: Count | None = None
    """How many pairs there must be, where that is known."""
    hold_out: HoldOut | None = None

    @property
    def prefixes(self) -> list[str]:
        """The prefixes that are held out."""
        return [] if self.hold_out is None else list(self.hold_out.percent)


class Known(Section):
    """A corpus that can be fetched."""

    title: Text
    languages: list[Name]
    folder: Inside
    """Where it lands, under the folder for corpora."""
    pairs: Count | None = None
    """Training pairs, where somebody has counted them."""
    licence: Text
    """Its name, in a few words."""
    terms: Text | None = None
    """What else must be said of the licence."""
    citation: Text
    home: Text
    downloads: dict[Name, Download]
    parts: dict[Inside, Part]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        used = {made.split("/")[0] for part in self.parts.values() for side in part.sides.values() for made in side}
        if used != self.downloads.keys():
            odd = ", ".join(sorted(used ^ self.downloads.keys()))
            raise ValueError(f"each download must be a side of some part, and each side a download: {odd}")
        written = [prefix for name, part in self.parts.items() for prefix in (name, *part.prefixes)]
        if len(written) > len(set(written)):
            raise ValueError("parts: a prefix must be written once")
        for name, part in self.parts.items():
            if len(part.sides) < 2 or not part.sides.keys() <= set(self.languages):
                raise ValueError(f"parts.{name}.sides: must be two or more of the languages")
            if part.hold_out and part.hold_out.by not in part.sides:
                raise ValueError(f"parts.{name}.hold_out.by: must be a language of its sides")
        return self

    @property
    def licensed(self) -> str:
        """The licence with all that must be said of it."""
        return self.licence + (f": {self.terms}" if self.terms else "")

    @property
    def size(self) -> int | None:
        """Bytes to fetch; None where a length is not known, but for sacreBLEU's small test sets."""
        sizes = [download.bytes for download in self.downloads.values() if download.sacrebleu is None]
        return None if None in sizes else sum(size or 0 for size in sizes)


class Catalogue(RootModel[dict[Name, Known]]):
    """The list of corpora, by name."""

    @classmethod
    def read(cls, path: Path = BUILT_IN) -> Self:
        """The list in a file. Raises `DataError`, naming the place, for what may not stand there."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        said = parse(text, lambda line: Place(line, f"{path}:{line}"))
        for mistake in said.mistakes:
            raise DataError(f"{mistake.place.text}: {mistake.text}")
        try:
            return cls.model_validate(said.value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise DataError(f"{path}: {key or 'the list'}: {first['msg'].removeprefix('Value error, ')}") from None

    def __getitem__(self, name: str) -> Known:
        """The corpus of a name. Raises `DataError` where there is none, with the names that there are."""
        if name not in self.root:
            raise DataError(f"{name}: no corpus of this name is known; there are {', '.join(self.root)}")
        return self.root[name]

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The list as a table: name, languages, training pairs, size, licence, title."""
        yield ("name", "languages", "pairs", "size", "licence", "what it is")
        for name, known in self.root.items():
            pairs = "?" if known.pairs is None else f"{known.pairs:,}"
            yield (name, " ".join(known.languages), pairs, size_in_words(known.size), known.licence, known.title)


def size_in_words(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return "?"
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
