"""Where files stand: few side by side, and each file's test at the same place."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_lengths import ROOT

PACKAGES = ("shards", "models", "pipeline", "flows")
ROOMS = {*PACKAGES, "docs", "examples", "scripts", "tests", ".ci", ".github"}
MOST = 16
FILES = [
    path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "__init__.py"
]
FOLDERS = [
    path
    for package in (*PACKAGES, "scripts")
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


@pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a git checkout"
)
def test_nothing_a_run_left_behind_is_tracked() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    tracked = [line.split(maxsplit=3) for line in listing.splitlines()]
    folders = {path.split("/")[0] for *_, path in tracked if "/" in path}
    links = [path for mode, *_, path in tracked if mode == "120000"]
    assert folders - ROOMS == set()
    assert links == []
