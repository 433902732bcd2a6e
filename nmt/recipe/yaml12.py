"""YAML text to values and back, each value with the line it was said on.

PyYAML follows YAML 1.1, in which `no` (Norwegian) is false, `1e-9` is text, `1:30` is ninety and of a key
given twice the last silently wins. Here scalars are those of YAML 1.2: only true and false are booleans, a
number is what looks like one, keys are always text, and a key given twice is a mistake.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from yaml import MappingNode, MarkedYAMLError, Node, SafeDumper, ScalarNode, SequenceNode, YAMLError
from yaml import dump as dump_yaml
from yaml.composer import Composer, ComposerError
from yaml.events import AliasEvent
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from nmt.errors import RecipeError

Key = tuple[str | int, ...]
"""The way to a value: ("data", "train", 0) is the first entry of data.train."""


class Place(NamedTuple):
    """Where something was said: a line of a file, or an override. Places sort as a reader meets them."""

    order: int
    text: str


class Mistake(NamedTuple):
    """What is wrong, and where."""

    place: Place
    text: str


@dataclass
class Said:
    """What a text says: its value, the place of each key in it, and what is wrong with its form."""

    value: Any = None
    places: dict[Key, Place] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)


def parse(text: str, place: Callable[[int], Place], root: Key = ()) -> Said:
    """What `text` says. `place` names a line (from 1); `root` is the key that the whole text is the value of.

    Raises `RecipeError` where the text is not YAML at all.
    """
    try:
        node = _Loader(text).get_single_node()
    except (YAMLError, RecursionError) as error:
        line, problem = _trouble(error, text)
        raise RecipeError(f"{place(line).text}: not YAML: {problem}") from None
    reader = _Reader(place, root)
    if node is not None:
        reader.said.value = reader.value(node, root)
    return reader.said


def write(value: Any) -> str:
    """`value` as YAML that `parse` reads back as the same, and YAML 1.1 readers too."""
    return dump_yaml(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


class _Reader:
    """Turns nodes into values, keeping the place of every key on the way."""

    def __init__(self, place: Callable[[int], Place], root: Key) -> None:
        self.place = place
        self.said = Said(places={root: place(1)})

    def value(self, node: Node, key: Key) -> Any:
        if isinstance(node, MappingNode):
            return {name: self.value(child, (*key, name)) for name, child in self.entries(node, key)}
        if isinstance(node, SequenceNode):
            return [self.entry(child, (*key, index)) for index, child in enumerate(node.value)]
        return _SCALARS[node.tag](node.value)

    def entry(self, node: Node, key: Key) -> Any:
        self.said.places[key] = self.here(node)
        return self.value(node, key)

    def entries(self, node: MappingNode, key: Key) -> Iterator[tuple[str, Node]]:
        """The names and values of a section. A name that comes again is a mistake, and passed over."""
        for name, child in node.value:
            full = (*key, name.value)
            if not isinstance(name, ScalarNode):
                self.mistake(name, f"{dotted(key) or 'a recipe'}: a key must be text, found more than that")
            elif full in self.said.places:
                first = self.said.places[full].text
                self.mistake(name, f"{dotted(full)}: must be given once, first given at {first}")
            else:
                self.said.places[full] = self.here(name)
                yield name.value, child

    def here(self, node: Node) -> Place:
        return self.place(node.start_mark.line + 1)

    def mistake(self, node: Node, text: str) -> None:
        self.said.mistakes.append(Mistake(self.here(node), text))


def dotted(key: Key) -> str:
    """A key as people write it: data.train[0]."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")


def _trouble(error: Exception, text: str) -> tuple[int, str]:
    """The line, from 1, and the words for what PyYAML could not read."""
    if isinstance(error, ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return line, f"a character that may not stand in a text, {chr(error.character)!r}"
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return error.problem_mark.line + 1, str(error.problem)
    return 1, str(error)


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML up to the tree of nodes, with the scalars given below and without references."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()
        if isinstance(event, AliasEvent) or event.anchor or event.tag:
            problem = "anchors, aliases and tags have no place in a recipe: write the value out"
            raise ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)


class _Dumper(SafeDumper):
    """Quotes what YAML 1.1 or 1.2 would not read as text; sets pairs of numbers on one line."""


_FORMS = {  # the first that matches tells what a scalar without quotes is; anything else is text
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]{1,18}",  # longer ones are read as floats, and so found out of every range
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
}
_SCALARS: dict[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:str": str,
}
for _form, _pattern in _FORMS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_form}", re.compile(f"^(?:{_pattern})$"), None)

_Dumper.add_representer(  # in double quotes what would be lost without: line ends of every alphabet
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    ),
)
_Dumper.add_representer(
    tuple,
    lambda dumper, values: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", values, flow_style=all(isinstance(value, float) for value in values)
    ),
)
