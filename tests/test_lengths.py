"""The lengths that keep a file readable in one sitting: functions, classes and files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("shards", "models", "pipeline", "flows", "examples", "scripts", "tests")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
LONGEST = {"examples": 60, "scripts": 120}
LONGEST_CLASS, LONGEST_FUNCTION = 150, 60


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lengths(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST.get(path.relative_to(ROOT).parts[0], 400)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            longest = LONGEST_CLASS if isinstance(node, ast.ClassDef) else LONGEST_FUNCTION
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < longest, node.name
