"""The house stands: a room imports only from floors below its own. `nmt/README.md` draws the map."""

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NMT = Path(__file__).parent.parent / "nmt"

FLOORS = {
    "errors": 0, "files": 0, "ids": 0, "processes": 0,
    "recipe": 1, "kernels": 1,
    "text": 2,
    "model": 3, "data": 3, "fetching": 3,
    "search": 4, "diagnosis": 4,
    "translation": 5, "evaluation": 5, "parsing": 5,
    "training": 6, "growing": 6,
    "interop": 7, "report": 7, "server": 7,
    "cli": 8, "__init__": 8,
    "__main__": 9,
}  # fmt: skip

# Every room may raise its errors, its neighbour `files` too.
GROUND = "errors"

# What a room must not know although it lies further down, or comes from outside.
STRANGERS = {
    "errors": {"torch"},
    "files": {"torch"},
    "processes": {"torch"},
    "recipe": {"torch"},
    "text": {"torch"},
    "fetching": {"torch", "nmt.model", "nmt.data"},
    "evaluation": {"torch", "nmt.model", "nmt.data", "nmt.search"},
    "diagnosis": {"torch", "nmt.model"},
    "parsing": {"torch", "nmt.model", "nmt.data", "nmt.search"},
    "search": {"nmt.text", "nmt.files", "nmt.data"},
}


def package_of(path: Path, root: Path) -> list[str]:
    """The package a file's relative imports start from, as its parts."""
    return ["nmt", *path.relative_to(root).parent.parts]


def imports(path: Path, root: Path) -> Iterator[str]:
    """Every module that a file names in an import, at its top or inside a function, as an absolute name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = package_of(path, root)
            above = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            # `from nmt import text` names the room only after the import.
            yield from (f"{start}.{alias.name}" for alias in node.names)


def room(module: str) -> str | None:
    """The room that an imported name belongs to; None for what is not ours."""
    parts = module.split(".")
    if parts[0] != "nmt":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "__init__"


def is_or_is_in(module: str, stranger: str) -> bool:
    return module == stranger or module.startswith(stranger + ".")


def objections(root: Path) -> list[str]:
    """What the house has against the imports of the files under `root`, one sentence each."""
    found = []
    for path in sorted(root.rglob("*.py")):
        here = path.relative_to(root).with_suffix("").parts[0]
        if here not in FLOORS:
            found.append(f"{path}: {here} has no floor")
            continue
        for module in imports(path, root):
            there = room(module)
            if there not in (None, here, GROUND) and FLOORS[there] >= FLOORS[here]:
                floors = f"floor {FLOORS[here]} from floor {FLOORS[there]}"
                found.append(f"{path}: {here} imports {module}, {floors}")
            if any(is_or_is_in(module, stranger) for stranger in STRANGERS.get(here, ())):
                found.append(f"{path}: {here} must not know {module}")
    return found


HELP = """
import sys
from nmt.cli import main
sys.argv = ["nmt", "--help"]
try:
    main()
except SystemExit:
    pass
"""


def run(code: str) -> str:
    """What a fresh interpreter prints while running `code`."""
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return ran.stdout


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after running `code`."""
    return set(run(f"{code}\nimport sys\nprint('MODULES', *sys.modules)").rpartition("MODULES ")[2].split())


def seconds_of_help() -> float:
    """CPU seconds that `nmt --help` takes: unlike the clock, they do not count what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(HELP)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_every_room_imports_only_from_floors_below_its_own() -> None:
    assert objections(NMT) == []


def test_an_import_from_above_or_across_is_seen(tmp_path: Path) -> None:
    for name, line in {
        "recipe/schema.py": "from ..text import lines",
        "data/shards.py": "import nmt.model.layers",
        "text/lines.py": "def f():\n    import torch.nn",
        "files.py": "from nmt import cli, errors",
        "model/cache.py": "from .layers import Layer\nfrom nmt.errors import ModelError",
        "attic/old.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(line)
    told = [sentence.removeprefix(f"{tmp_path}/") for sentence in objections(tmp_path)]
    assert told == [
        "attic/old.py: attic has no floor",
        "data/shards.py: data imports nmt.model.layers, floor 3 from floor 3",
        "files.py: files imports nmt.cli, floor 0 from floor 8",
        "recipe/schema.py: recipe imports nmt.text.lines, floor 1 from floor 2",
        "text/lines.py: text must not know torch.nn",
    ]


def test_preparing_and_scoring_never_load_torch() -> None:
    rooms = "nmt, nmt.recipe, nmt.text, nmt.data.prepare, nmt.evaluation, nmt.parsing"
    assert "torch" not in loaded_after(f"import {rooms}")


def test_help_is_answered_without_torch() -> None:
    assert "torch" not in loaded_after(HELP)


def test_help_is_answered_in_under_a_third_of_a_second() -> None:
    assert min(seconds_of_help() for _ in range(5)) < 0.3
