"""Where files stand: few side by side, and each file's test at the same place."""

from pathlib import Path

import pytest

from tests.test_lengths import ROOT

PACKAGES = ("shards", "models", "pipeline", "flows")
MOST = 16
FILES = [
    path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "__init__.py"
]
FOLDERS = [
    path
    for package in PACKAGES
    for path in [ROOT / package, *sorted((ROOT / package).rglob("*"))]
    if path.is_dir() and path.name != "__pycache__"
]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_can_be_taken_in_at_a_glance(folder: Path) -> None:
    entries = [path.name for path in folder.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_has_its_test_at_the_same_place(path: Path) -> None:
    test = ROOT / "tests" / path.parent.relative_to(ROOT) / f"test_{path.name}"
    assert test.is_file(), f"no {test.relative_to(ROOT)}"
