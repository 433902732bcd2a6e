"""What the READMEs promise: commands run as printed, examples are legal, and the map names every room and file."""

import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from test_floors import FLOORS, NMT

from nmt import recipe as recipes
from nmt.cli import app
from nmt.errors import RecipeError
from nmt.recipe import Prefix, Recipe

ROOT = NMT.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = (NMT / "README.md").read_text(encoding="utf-8")

# What makes a recipe small enough to be followed in seconds; all else stays as README and recipes/ have it.
SMALL = [
    "tokenizer.vocab_size=500",
    "model={layers: 1, d_model: 32, heads: 2, d_ffn: 32}",
    "train={steps: 4, batch_tokens: 256, valid_every: 4, valid_bleu: 2, checkpoint_every: 2}",
    "average={last: 2}",
    "decode.max_extra=4",
]
LINES = {"train": 300, "valid": 10, "test": 10}

# What README takes for granted that its reader has: text of their own.
OF_THE_READER = {"your.txt": "test.en", "theirs.de": "test.de", "news.de": "test.de"}

# `make` is not made to run: it is asked whether it has such a target.
SCRIPTS = {
    "activate": 'PATH="$PWD/.venv/bin:$PATH"',
    "nmt": f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m nmt "$@"',
    "python": f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"',
    "make": '#!/bin/sh\nfor target; do grep -q "^$target:" Makefile || exit 2; done',
}


class Block(NamedTuple):
    """A fenced block of a page: its language, its text, and the line it begins on."""

    language: str
    text: str
    line: int


def blocks(*languages: str, page: str = README) -> Iterator[Block]:
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        if match[1] in languages:
            yield Block(match[1], match[2], page.count("\n", 0, match.start()) + 2)


def sample(name: str) -> str:
    """The first lines of a file of the sample in data/, such as train.en."""
    with gzip.open(ROOT / "data" / "libreoffice" / f"{name}.gz", "rt", encoding="utf-8") as file:
        return "".join(line for line, _ in zip(file, range(LINES[name.split(".")[0]]), strict=False))


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def put_recipe(path: Path, recipe: Recipe) -> None:
    """Writes a recipe, and the start of the sample for every corpus that it reads."""
    data = recipe.data
    corpora = [("train", train) for train in data.train] + [("valid", data.valid)]
    corpora += [("test", test) for test in data.test.values()]
    for split, corpus in corpora:
        for language, side in ((data.of(corpus).source, "en"), (data.of(corpus).target, "de")):
            name = f"{corpus.path if isinstance(corpus, Prefix) else corpus}.{language}"
            suffix = ".gz" if name.startswith("data/libreoffice/") else ""  # whatever else lies in data/ here
            put(path.parent.parent / f"{name}{suffix}", sample(f"{split}.{side}"))
    put(path, recipes.dump(recipe))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks as README's reader sees it, in which every recipe is small."""
    house = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / "Makefile", house)
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        put_recipe(house / "recipes" / path.name, recipes.load(path, SMALL))
    for block in blocks("yaml"):
        path = house / block.text.split("\n")[0].removeprefix("# ")
        try:
            put_recipe(path, recipes.loads(block.text, overrides=SMALL))
        except RecipeError:  # README shows one with mistakes
            put(path, block.text)
    for name, text in OF_THE_READER.items():
        put(house / name, sample(text))
    for name, script in SCRIPTS.items():
        put(house / ".venv" / "bin" / name, f"{script}\n")
        (house / ".venv" / "bin" / name).chmod(0o755)
    return house


def run(block: Block, house: Path) -> subprocess.CompletedProcess[str]:
    """Does what a block says, and stops at the first command that fails."""
    script = {
        "sh": f"set -euo pipefail\n{block.text}",
        "python": f"python - <<'END'\n{block.text}END",
        "console": block.text.partition("\n")[0].removeprefix("$ "),
    }[block.language]
    path = os.pathsep.join([str(house / ".venv" / "bin"), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", script],
        cwd=house,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_the_blocks_of_readme_run_as_printed_one_after_the_other(house: Path) -> None:
    for block in blocks("sh", "python", "console"):
        ran = run(block, house)
        told = f"README.md:{block.line}:\n{block.text}\nsays, with exit code {ran.returncode}:\n{ran.stdout}"
        if block.language == "console":
            assert ran.stdout == block.text.partition("\n")[2], told
            assert ran.returncode == (2 if "error:" in ran.stdout else 0), told
        else:
            assert ran.returncode == 0, told
    left = {path.name for path in (house / "runs" / "quickstart").iterdir()}
    drawn = re.findall(r"^[├└]── ([\w.]+)", README, re.MULTILINE)
    assert left == set(drawn)


CORPORA = (ROOT / "docs" / "corpora.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_commands_of_the_page_on_corpora_run_as_printed(house: Path) -> None:
    for block in blocks("sh", page=CORPORA):
        ran = run(block, house)
        assert ran.returncode == 0, f"docs/corpora.md:{block.line}:\n{block.text}\nsays:\n{ran.stdout}"


def test_the_recipes_that_the_page_on_corpora_shows_are_legal() -> None:
    whole = {
        "data": "data: {source: en, target: de, train: train, valid: valid}\n",
        "tokenizer": "tokenizer: {vocab_size: 8000}\n",
    }
    shown = [block.text for block in blocks("yaml", page=CORPORA)]
    assert shown
    for text in shown:
        recipes.loads("run: run\n" + "".join((whole | {text.partition(":")[0]: text}).values()))


def commands() -> dict[str, Any]:
    """The commands of `nmt`, by name."""
    found: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return found


def options(command: Any) -> set[str]:
    return {"--help", *(name for option in command.params for name in option.opts)}


def named_options(text: str) -> set[str]:
    """The options that a text names, but for those of torchrun."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"^torchrun .*? -m ", "", text, flags=re.MULTILINE)))


def section(heading: str) -> str:
    """The text under a heading of README, up to the next one."""
    return README.partition(f"{heading}\n")[2].partition("\n##")[0]


def test_every_command_has_its_section_and_no_other_is_named() -> None:
    assert re.findall(r"^### `nmt (\w+)`", README, re.MULTILINE) == list(commands())
    assert set(re.findall(r"(?:`|^|[|] |[$] )nmt ([a-z]\w*)", README, re.MULTILINE)) <= commands().keys()


@pytest.mark.parametrize("name", commands())
def test_every_option_in_the_section_of_a_command_is_one_of_its_options(name: str) -> None:
    named = named_options(section(f"### `nmt {name}`"))
    assert named
    assert named <= options(commands()[name])


def test_every_option_that_readme_names_is_an_option_of_some_command() -> None:
    ours = set().union(*map(options, commands().values()))
    assert named_options(README) <= ours


def test_every_change_of_a_recipe_that_readme_shows_is_legal() -> None:
    shown = [change for change in re.findall(r"--set (\S+?)[`\s]", README) if change != "KEY=VALUE"]
    assert shown
    for change in shown:
        recipes.load(ROOT / "recipes" / "quickstart.yaml", [change])


def test_every_key_that_readme_names_is_a_key_of_the_recipe() -> None:
    whole = recipes.load(ROOT / "recipes" / "quickstart.yaml").model_dump()
    named = set(re.findall(rf"`((?:{'|'.join(whole)})\.\w+)`", README)) - {"tokenizer.model", "model.safetensors"}
    assert named
    assert {key for key in named if key.split(".")[1] not in whole[key.split(".")[0]]} == set()


def test_make_is_told_nothing_it_does_not_know() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE)) <= targets


def test_the_table_of_recipes_names_each_with_its_size() -> None:
    import torch

    from nmt.model.transformer import Transformer

    table = dict(re.findall(r"^\| \[`([\w-]+)`\]\(recipes/\1\.yaml\) \|[^|]+\| ([\d.]+) M \|", README, re.MULTILINE))
    assert table.keys() == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    for name, millions in table.items():
        recipe = recipes.load(ROOT / "recipes" / f"{name}.yaml")
        with torch.device("meta"):
            model = Transformer(recipe.model, *[recipe.tokenizer.vocab_size] * 2)
        assert f"{model.parameter_count() / 1e6:.1f}" == millions


PAGES = [ROOT / "README.md", NMT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(path: Path) -> set[str]:
    """What the headings of a page are called in links."""
    titles = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\((?!https:)([^)]+)\)", path.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), link


def test_every_page_of_docs_is_linked_to_from_readme() -> None:
    reached = set(re.findall(r"\]\((docs/[\w-]+\.md)", README)) | {
        f"docs/{name}" for name in re.findall(r"\]\(([\w-]+\.md)", (ROOT / "docs" / "paper.md").read_text("utf-8"))
    }
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")} <= reached


def test_every_key_that_the_page_on_the_paper_names_is_a_key_of_the_recipe() -> None:
    whole = recipes.load(ROOT / "recipes" / "quickstart.yaml").model_dump()
    named = re.findall(r"`(\w+)\.(\w+)(?:`|:)", (ROOT / "docs" / "paper.md").read_text("utf-8"))
    assert {f"{section}.{key}" for section, key in named if section in whole and key not in whole[section]} == set()


def in_the_map(pattern: str) -> set[str]:
    """What stands in backticks in the map and looks like this."""
    return set(re.findall(rf"`({pattern})`", MAP))


def test_the_map_names_every_file_and_test_and_none_that_is_not_there() -> None:
    there = {path.relative_to(NMT).as_posix() for path in NMT.rglob("*.py") if path.stat().st_size}
    there |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("test_*.py")}
    files = in_the_map(r"[\w/]+\.py")
    assert there - files == set()
    assert files - there == set()


def test_the_map_gives_each_room_the_floor_that_it_stands_on() -> None:
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", MAP, re.MULTILINE)
    drawn = {room: int(floor) for floor, cell in rows for room in re.findall(r"`(\w+)(?:/|\.py)`", cell)}
    assert drawn == FLOORS
