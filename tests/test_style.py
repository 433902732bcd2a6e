"""No function needs scrolling twice."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONGEST = 45


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from `def` to its end, its docstring left out."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def functions(folder: Path) -> Iterator[tuple[str, int]]:
    """Where each function under `folder` stands, and its length."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", length(node)


def test_no_function_is_longer_than_a_screen() -> None:
    ours = [found for folder in ("nmt", "tests", "data", "benchmarks") for found in functions(ROOT / folder)]
    assert [f"{where}: {lines} lines" for where, lines in ours if lines > LONGEST] == []


def test_a_docstring_does_not_count_as_length() -> None:
    tree = ast.parse('def f():\n    """Says\n    what\n    it gives."""\n    return 1\n')
    assert isinstance(tree.body[0], ast.FunctionDef)
    assert length(tree.body[0]) == 2
