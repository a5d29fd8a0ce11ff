"""A damaged run, mended by `verify --repair` and `clean`; its leftovers, removed by `gc`."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from tests.support.driving import InProcess, Models, table

TABLES = ("samples", "texts", "decisions")
Flags = Callable[[Models, Path, Path], list[str]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    write_toy_world(folder, ToyWorldConfig(samples=18, samples_per_shard=6))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def command(flags: Flags, toy_models: Models, shards: Path, place: Path) -> list[str]:
    thresholds = ["--set=judge.threshold.web=0", "--set=judge.threshold.synthetic=0.5"]
    return [*flags(toy_models, shards, place / "run"), *thresholds, "--engine=local", "--direct"]


@pytest.fixture
def run(capfilt: InProcess, command: list[str], place: Path) -> Path:
    """A finished run, with a view that has clean tars of its own; made once, and put back."""
    run, pristine = place / "run", place / "pristine"
    if pristine.exists():
        shutil.rmtree(run)
        shutil.copytree(pristine, run)
        return run
    assert capfilt.run(*command).returncode == 0
    judging = ["judge", str(run), "--name=most", "--threshold=synthetic=0", "--write-shards"]
    done = capfilt.run(*judging)
    assert done.returncode == 0, done.stderr
    shutil.copytree(run, pristine)
    return run


def data_of(run: Path, table: str) -> Path:
    return sorted((run / "data" / table).iterdir())[1]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path, size_bytes: int) -> None:
    os.truncate(path, size_bytes)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated commit": lambda run: cut(run / "commits" / "00001.json", 200),
    "empty commit": lambda run: cut(run / "commits" / "00001.json", 0),
    "garbage commit": lambda run: (run / "commits" / "00001.json").write_bytes(b"\x1b[2J\xff\0"),
    "deleted data file": lambda run: data_of(run, "decisions").unlink(),
    "flipped byte": lambda run: flip(data_of(run, "texts")),
    "truncated clean tar": lambda run: cut(data_of(run, "clean"), 2_000),
    "torn snapshot.json": lambda run: cut(run / "snapshot.json", 20),
    "torn snapshot": lambda run: cut(next((run / "snapshots").iterdir()), 500),
    "missing clean.txt": lambda run: (run / "clean.txt").unlink(),
    "missing clean.txt of a view": lambda run: (run / "views" / "most" / "clean.txt").unlink(),
}
REDONE = tuple(DAMAGES)[:6]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_mended(capfilt: InProcess, command: list[str], run: Path, damage: str) -> None:
    before = {name: table(run, name) for name in TABLES}
    snapshot = json.loads((run / "snapshot.json").read_bytes())["id"]
    assert capfilt.run("verify", run).returncode == 0
    DAMAGES[damage](run)
    broken = capfilt.run("verify", run)
    assert broken.returncode == 1
    assert "--repair" in broken.stdout
    assert "\x1b" not in broken.stdout

    mended = capfilt.run("verify", run, "--repair")
    assert "\x1b" not in mended.stdout
    assert mended.returncode == (1 if damage in REDONE else 0), mended.stdout
    if damage in REDONE:
        assert "1 shard must be done again: run `capfilt clean` as before" in mended.stdout
        assert capfilt.run(*command).returncode == 0
    whole = capfilt.run("verify", run)
    assert whole.returncode == 0, whole.stdout
    assert "0 problems in 3 committed shards, 1 view, 0 shards pending" in whole.stdout
    assert {name: table(run, name) for name in TABLES} == before
    assert json.loads((run / "snapshot.json").read_bytes())["id"] == snapshot
    again = capfilt.run("verify", run, "--repair")
    assert (again.returncode, again.stdout) == (0, "all is whole; there was nothing to mend\n")


def test_a_view_of_other_files_is_judged_again(capfilt: InProcess, run: Path) -> None:
    flip(next((run / "views" / "most" / "clean").iterdir()))
    assert capfilt.run("verify", run).returncode == 1
    mended = capfilt.run("verify", run, "--repair", "--json")
    assert mended.returncode == 1
    assert json.loads(mended.stdout)["judge_again"] == ["most"]
    assert capfilt.run("verify", run).returncode == 0


def test_gc_removes_what_redone_work_left(
    capfilt: InProcess, command: list[str], run: Path
) -> None:
    first = set((run / "data").rglob("*-*.*"))
    data_of(run, "texts").write_bytes(b"")
    capfilt.run("verify", run, "--repair")
    assert capfilt.run(*command).returncode == 0
    orphans = {path for path in first if path.name.startswith("00001-")}
    (run / "a note\x1b[31m.txt").write_text("mine")

    young = json.loads(capfilt.run("gc", run, "--json").stdout)
    assert (young["count"], young["young"]["count"]) == (0, len(orphans))
    long_ago = time.time() - 30 * 3600
    for path in run.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    dry = capfilt.run("gc", run)
    assert dry.returncode == 0
    assert f"to remove: {len(orphans)}, " in dry.stdout
    assert "1 file unknown, and left alone" in dry.stdout
    assert "this was a dry run" in dry.stdout
    assert "\x1b" not in dry.stdout
    assert all(path.exists() for path in orphans)

    told = json.loads(capfilt.run("gc", run, "--delete", "--json").stdout)
    assert set(told["names"]) == {str(path.relative_to(run)) for path in orphans}
    assert told["deleted"] is True
    assert not any(path.exists() for path in orphans)
    assert capfilt.run("verify", run).returncode == 0
    assert capfilt.run("gc", run).stdout.startswith("to remove: 0, 0 bytes\n")


def test_gc_refuses_what_it_cannot_know(capfilt: InProcess, run: Path) -> None:
    cut(run / "commits" / "00001.json", 100)
    done = capfilt.run("gc", run, "--delete")
    assert done.returncode == 1
    assert "nothing is removed" in done.stderr
    assert "capfilt verify RUN --repair" in done.stderr
    assert capfilt.run("gc", run, "--older-than-hours=0.5").returncode == 2


def test_verify_of_a_damaged_run_that_is_lawful(
    capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path, tmp_path: Path
) -> None:
    web = tmp_path / "web"
    shutil.copytree(shards, web)
    cut(web / "00001.tar", (web / "00001.tar").stat().st_size // 2)
    command = [*flags(toy_models, web, tmp_path / "run"), "--engine=local", "--direct"]
    assert capfilt.run(*command).returncode == 3
    checked = capfilt.run("verify", tmp_path / "run", "--json")
    assert checked.returncode == 0
    assert json.loads(checked.stdout) == {
        "problems": [],
        "committed": 3,
        "pending": [],
        "quarantined": [],
        "views": [],
        "scores": [],
        "run": str(tmp_path / "run"),
    }
