"""A disk that fills up: what is committed stays whole, and more space is all that is needed."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from tests.support.driving import InProcess, Models, committed, table

TABLES = ("samples", "texts", "decisions")
SHARDS = 6
PAGE_BYTES = 4096
Flags = Callable[[Models, Path, Path], list[str]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards that are cleaned in no time."""
    folder = tmp_path_factory.mktemp("few")
    write_toy_world(folder, ToyWorldConfig(samples=6 * SHARDS, samples_per_shard=6))
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a disk of a given size; called again, it changes the size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size_bytes: int) -> Path:
        again = "remount," if os.path.ismount(folder) else ""
        options = f"{again}size={size_bytes}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"needs root, to mount a small disk: {done.stderr.decode().strip()}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", folder], check=True)


def size_on_disk(folder: Path) -> int:
    """Give the pages that a folder's files and folders take."""
    return sum(
        -(-max(path.stat().st_size, 1) // PAGE_BYTES) * PAGE_BYTES for path in folder.rglob("*")
    )


def test_a_full_disk(
    capfilt: InProcess,
    flags: Flags,
    toy_models: Models,
    shards: Path,
    small_disk: Callable[[int], Path],
) -> None:
    whole = capfilt.home / "whole"
    where = ["--engine=local", "--direct"]
    done = capfilt.run(*flags(toy_models, shards, whole), *where)
    assert done.returncode == 0, done.stderr

    disk = small_disk(size_on_disk(whole) // 2)
    run = disk / "run"
    command = [*flags(toy_models, shards, run), *where]
    done = capfilt.run(*command)
    assert done.returncode == 1, done.stderr
    assert "the disk is full" in done.stderr
    assert "free some space and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    before = {path: path.read_bytes() for path in (run / "commits").glob("*.json")}
    assert 1 <= len(before) < SHARDS

    checked = capfilt.run("verify", run, "--json")
    assert checked.returncode == 0, checked.stdout
    found = json.loads(checked.stdout)
    assert (found["problems"], found["committed"]) == ([], len(before))
    assert len(found["pending"]) == SHARDS - len(before)

    small_disk(4 * size_on_disk(whole))
    done = capfilt.run(*command)
    assert done.returncode == 0, done.stderr
    assert len(committed(run)) == SHARDS
    assert {path: path.read_bytes() for path in before} == before
    for name in TABLES:
        assert table(run, name) == table(whole, name)
    assert capfilt.run("verify", run).returncode == 0
    named = {
        file["name"]
        for path in (run / "commits").glob("*.json")
        for file in json.loads(path.read_bytes())["files"]
    }
    orphans = {str(path.relative_to(run)) for path in (run / "data").rglob("*-*.*")} - named
    found = json.loads(capfilt.run("gc", run, "--json").stdout)
    assert (found["count"], found["unknown"]) == (0, 0)
    assert found["young"]["count"] == len(orphans)
