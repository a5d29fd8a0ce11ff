"""Names say what they hold: none that fits anything lives longer than five lines."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_lengths import FILES, ROOT

EMPTY = {"found", "one", "own", "given", "told", "place", "places"}
LINES = 5
PROMISED = {"shards/run/commit.py: field given"}  # stands in the commits on disk


def lives(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, int]]:
    """Yield the names that a function assigns or takes, and over how many lines it uses them."""
    names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
    starts: dict[str, int] = {}
    for node in names:
        if isinstance(node.ctx, ast.Store):
            starts[node.id] = min(node.lineno, starts.get(node.id, node.lineno))
    for argument in (node for node in ast.walk(function) if isinstance(node, ast.arg)):
        starts[argument.arg] = argument.lineno
    for name, start in starts.items():
        uses = [node.lineno for node in names if node.id == name]
        yield name, max(uses, default=start) - start


def offences(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for name, lines in lives(node):
                if name in EMPTY and lines > LINES:
                    yield f"{name} lives {lines} lines in {node.name}"
        elif isinstance(node, ast.ClassDef):
            fields = [part.target for part in node.body if isinstance(part, ast.AnnAssign)]
            for field in fields:
                if isinstance(field, ast.Name) and field.id in EMPTY:
                    yield f"field {field.id}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if "tests" not in path.parts], ids=lambda path: path.name
)
def test_no_name_without_content_lives_long(path: Path) -> None:
    where = path.relative_to(ROOT)
    seen = {f"{where}: {offence}" for offence in offences(path.read_text(encoding="utf-8"))}
    assert seen <= PROMISED


def test_the_look_bites() -> None:
    body = "\n".join(f"    line = {number}" for number in range(LINES + 1))
    assert list(offences(f"def f():\n    found = 1\n{body}\n    return found")) != []
    assert list(offences("def f():\n    found = 1\n    return found")) == []
    assert list(offences("class A:\n    place: int")) == ["field place"]
