"""Translation units: what translation memories (TMX) and localisation files (XLIFF) hold, read as a stream."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.parsers import expat

from nmt.errors import DataError
from nmt.text.lines import LONGEST_LINE
from nmt.text.opening import called, opened

UNTRANSLATED = "untranslated"  # why a unit is passed over, as it is told and counted

_CHUNK = 1 << 16  # bytes handed to the parser at once
_LONGEST_ENTITY = 100  # characters; longer ones, and those made of others, are how a small file becomes a huge one
_DEEPEST = 1000  # elements inside one another
_LONGEST_CODE = 20  # characters of a language that are told
_MOST_LANGUAGES = 8  # that are named when there is no pair

# What these hold is the code of another format, such as <b>; but <sub> in them is text, as in the title of a picture.
_CODES = {"bpt", "ept", "it", "ph", "ut"}
_LINE_BREAKS = {"lb", "pb"}  # of codes whose type, ctype or subType says that a line or page ends there
# Said of a target that nobody has translated yet: a copy of the source, mostly.
_STATES_OF_UNTRANSLATED = {"new", "needs-translation", "initial"}

Attributes = dict[str, str]
Unit = list[tuple[str, str]]  # texts with their language; a text may be empty


def tmx_pairs(path: Path, source: str, target: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    """The pairs of a TMX file, one of each unit that has both languages; `skipped` counts the others.

    "en" takes en, EN, en-US and en_GB; where a unit has several, the one of just that code, or else the first.
    Inline codes are left out, the text of <hi> and <sub> stays.
    Raises `DataError`, naming the line, for what cannot be read; and where no unit has both languages.
    """
    return _pairs(path, _Tmx, source, target, skipped)


def xliff_pairs(path: Path, source: str, target: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    """The pairs of an XLIFF file, 1.2 or 2: of each trans-unit or segment; `skipped` counts the untranslated.

    Where the file says that it goes the other way, its sides are swapped. Otherwise as `tmx_pairs`.
    """
    return _pairs(path, _Xliff, source, target, skipped)


class _Reader:
    """Gathers units from the events of the parser. A kind says where units and segments begin and end."""

    root = ""

    def __init__(self, languages: tuple[str, str]) -> None:
        self.languages = languages
        self.units: list[Unit] = []
        self._unit: Unit = []
        self._above: list[str] = []  # the names of the open elements, outermost first
        self._text: list[str] | None = None  # of the segment that is open, if any
        self._length = 0  # of the texts of the unit so far
        self._kept: list[bool] = []  # whether text counts, in the segment and each element open inside it

    def start(self, name: str, attributes: Attributes) -> None:
        """An element begins."""
        name = name.rpartition(":")[2]
        if len(self._above) + len(self._kept) > _DEEPEST:
            raise ValueError(f"over {_DEEPEST:,} elements inside one another: mend or export it again")
        if self._text is None:
            if not self._above and name != self.root:
                raise ValueError(f"must be {self.root.upper()}, found the element <{name}>")
            self._above.append(name)
            self.begin(name, attributes)
            return
        kept = name == "sub" or (self._kept[-1] and name not in _CODES)
        kinds = (attributes.get(key, "").rpartition(":")[2] for key in ("type", "ctype", "subType"))
        if name in ("sub", "cp") or not _LINE_BREAKS.isdisjoint(kinds):
            self._text.append(" ")
        self._kept.append(kept)

    def end(self, name: str) -> None:
        """An element ends."""
        if self._text is not None and len(self._kept) > 1:
            self._kept.pop()
            if name.rpartition(":")[2] == "sub":
                self._text.append(" ")
            return
        text = "".join(self._text).replace("\n", " ") if self._text is not None else ""
        self._text, self._kept = None, []
        self.finish(self._above.pop(), text)

    def data(self, text: str) -> None:
        """Text between tags."""
        if self._text is not None and self._kept[-1]:
            self._text.append(text)
            self._length += len(text)
            if self._length > LONGEST_LINE:
                raise ValueError(f"a unit of over {LONGEST_LINE:,} characters: is this text?")

    def open_unit(self) -> None:
        """A unit begins."""
        self._unit, self._length = [], 0

    def open_segment(self) -> None:
        """From here to the end of this element there is text to keep."""
        self._text, self._kept = [], [True]

    def begin(self, name: str, attributes: Attributes) -> None:
        """An element outside of segments begins; it is the last of `_above`."""

    def finish(self, name: str, text: str) -> None:
        """An element outside of segments ends, or a segment with this text."""


class _Tmx(_Reader):
    root = "tmx"

    def begin(self, name: str, attributes: Attributes) -> None:
        if name == "tu":
            self.open_unit()
        elif name == "tuv":
            self._language = attributes.get("xml:lang") or attributes.get("lang") or ""
        elif name == "seg" and self._above[-2:-1] == ["tuv"]:
            self.open_segment()

    def finish(self, name: str, text: str) -> None:
        if name == "seg" and self._above[-1:] == ["tuv"]:
            self._unit.append((self._language, text))
        elif name == "tu":
            self.units.append(self._unit)


class _Xliff(_Reader):
    root = "xliff"
    _parents = ("trans-unit", "segment")  # not alt-trans, mtc:match: those hold suggestions

    def begin(self, name: str, attributes: Attributes) -> None:
        source, target = self.languages
        if name == "xliff":
            self._codes = {"source": attributes.get("srcLang", source), "target": attributes.get("trgLang", target)}
        elif name == "file":
            self._codes["source"] = attributes.get("source-language", self._codes["source"])
            self._codes["target"] = attributes.get("target-language", self._codes["target"])
        elif name in self._parents:
            self.open_unit()
            self._untranslated = attributes.get("state") in _STATES_OF_UNTRANSLATED
        elif name in ("source", "target") and self._above[-2] in self._parents:
            self._untranslated |= name == "target" and attributes.get("state") in _STATES_OF_UNTRANSLATED
            self.open_segment()

    def finish(self, name: str, text: str) -> None:
        if name in ("source", "target") and self._above[-1] in self._parents:
            self._unit.append((self._codes[name], text))
        elif name in self._parents:
            self.units.append([] if self._untranslated else self._unit)


def _pairs(
    path: Path, kind: Callable[[tuple[str, str]], _Reader], source: str, target: str, skipped: Counter[str]
) -> Iterator[tuple[str, str]]:
    pairs, passed_over, languages = 0, 0, dict[str, None]()
    for unit in _units(path, kind((source, target))):
        one, other = _text_in(source, unit), _text_in(target, unit)
        if one and other:
            pairs += 1
            yield one, other
        else:
            passed_over += 1
            skipped[UNTRANSLATED] += 1
            if len(languages) < _MOST_LANGUAGES:
                languages |= dict.fromkeys(said[:_LONGEST_CODE] for said, _ in unit if said.isprintable())
    if passed_over and not pairs:
        found = f"; the languages are {', '.join(languages)}" if languages else ""
        raise DataError(f"{called(path)}: no unit has both {source} and {target}, of {passed_over:,} in all{found}")


def _text_in(language: str, unit: Unit) -> str:
    """The text of a unit in a language: of just that code, or else the first of its regions; empty for none."""
    asked, near = _code(language), ""
    for said, text in unit:
        code = _code(said)
        if text.strip() and code == asked:
            return text
        if text.strip() and not near and code.startswith(f"{asked}-"):
            near = text
    return near


def _code(language: str) -> str:
    return language.lower().replace("_", "-")


def _units(path: Path, reader: _Reader) -> Iterator[Unit]:
    """The units that `reader` gathers from a file, with no more of it in memory than a unit or a chunk.

    Nothing is fetched from elsewhere, and entities are expanded only where they are plain and short.
    """
    name, parser, read = called(path), _parser(reader), 0
    try:
        with opened(path) as stream:
            while chunk := stream.read(_CHUNK):
                read += len(chunk)
                parser.Parse(chunk, False)
                if read - parser.CurrentByteIndex > LONGEST_LINE:
                    raise ValueError(f"a tag or comment of over {LONGEST_LINE:,} bytes: is this text?")
                yield from reader.units
                reader.units.clear()
            parser.Parse(b"", True)
            yield from reader.units
    except expat.ExpatError as error:
        reason = f"{expat.ErrorString(error.code)}, column {error.offset + 1}"
        if error.code == expat.errors.codes[expat.errors.XML_ERROR_INVALID_TOKEN]:
            reason += ": a character that XML forbids, or bytes of another encoding than the file says"
        raise DataError(f"{name}:{error.lineno}: not well-formed XML ({reason}): mend or export it again") from None
    except (ValueError, LookupError) as error:  # of a reader; of an encoding that Python does not know
        raise DataError(f"{name}:{parser.CurrentLineNumber}: {error}") from None


def _parser(reader: _Reader) -> expat.XMLParserType:
    def declared(name: str, of_the_dtd: bool, value: str | None, *_: str | None) -> None:
        if of_the_dtd or value is None or len(value) > _LONGEST_ENTITY or not {*"&<"}.isdisjoint(value):
            raise ValueError(f"entity {name} is declared by more than a few plain characters: write them out instead")

    def unknown(name: str, of_the_dtd: bool) -> None:
        raise ValueError(f"entity {name} is declared in another file, which is not read: write its characters instead")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.buffer_size = _CHUNK
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.data
    parser.EntityDeclHandler = declared
    parser.SkippedEntityHandler = unknown
    return parser
