"""A driver that is frozen around its commit, while `gc` runs with a clock that is days ahead.

It is stopped by a SIGSTOP to itself at an exact step, and woken after the end of the others.
"""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import pipeline.clean.line.attempt
from flows.cli import main
from shards.store import Store
from tests.support.driving import InProcess, Models, committed, table, wait_until

TABLES = ("samples", "texts", "decisions")
STEPS = {"published": (pipeline.clean.line.attempt, "commit"), "looked": (Store, "create")}


def drive(arguments: list[str], step: str) -> None:
    """Run the command, frozen once: when its files are published, or looked at, too."""
    owner, function = STEPS[step]
    original = getattr(owner, function)
    stopped: list[bool] = []

    def freeze_first(*given: Any) -> Any:
        is_commit = function == "commit" or given[1].startswith("commits/")
        if is_commit and not stopped:
            stopped.append(True)
            # the signal to the process might stop another thread first, and this one go on
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return original(*given)

    setattr(owner, function, freeze_first)
    sys.argv = ["capfilt", *arguments]
    main()


def age(root: Path) -> None:
    """Make all that is there look two days old: as if `gc` were two days ahead."""
    stamp = time.time() - 48 * 3600
    for path in [root, *root.rglob("*")]:
        os.utime(path, (stamp, stamp))


@pytest.fixture
def command(flags: Callable[..., list[str]], toy_models: Models, one_shard: Path) -> list[str]:
    return [*flags(toy_models, one_shard, Path("run")), "--engine=local", "--direct"]


@pytest.fixture
def freeze(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], tuple[Any, list[Path]]]]:
    """Start a driver, and wait until it is frozen; give it and the files that it has published."""
    monkeypatch.chdir(tmp_path)
    drivers: list[Any] = []

    def start(step: str) -> tuple[Any, list[Path]]:
        fork = multiprocessing.get_context("fork")
        driver = fork.Process(target=drive, args=(command, step))
        driver.start()
        drivers.append(driver)
        process = psutil.Process(driver.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, timeout_s=60)
        assert committed(tmp_path / "run") == set()
        age(tmp_path / "run")
        return driver, sorted((tmp_path / "run" / "data").rglob("*.*"))

    yield start
    for driver in drivers:  # a stopped child would be reaped by nobody
        driver.kill()
        driver.join()


def wake(driver: Any) -> int:
    os.kill(driver.pid, signal.SIGCONT)
    driver.join(100)
    code: int = driver.exitcode
    return code


def is_whole(capfilt: InProcess, run: Path) -> bool:
    assert len(table(run, "samples")) == 6
    assert capfilt.run("stats", run).returncode == 0
    checked = capfilt.run("verify", run)
    assert checked.returncode == 0, checked.stdout
    return True


@pytest.mark.parametrize("step", STEPS)
def test_gc_spares_an_attempt_that_may_live(
    freeze: Callable[[str], tuple[Any, list[Path]]], capfilt: InProcess, tmp_path: Path, step: str
) -> None:
    driver, published = freeze(step)
    done = capfilt.run("gc", tmp_path / "run", "--delete")
    assert f"not done yet, and left alone: {len(published)}" in done.stdout
    assert all(path.exists() for path in published)
    assert wake(driver) == 0
    assert sorted((tmp_path / "run" / "data").rglob("*.*")) == published, "nothing was done twice"
    assert is_whole(capfilt, tmp_path / "run")


@pytest.mark.parametrize("step", STEPS)
def test_what_went_all_the_same_is_done_again(
    freeze: Callable[[str], tuple[Any, list[Path]]], capfilt: InProcess, tmp_path: Path, step: str
) -> None:
    driver, published = freeze(step)
    assert capfilt.run("gc", tmp_path / "run", "--delete", "--abandoned").returncode == 0
    assert not any(path.exists() for path in published)
    assert wake(driver) == 0
    assert is_whole(capfilt, tmp_path / "run")
    records = [json.loads(p.read_bytes()) for p in (tmp_path / "run" / "attempts").rglob("*.json")]
    details = {str(record["ending"]): str(record["detail"]) for record in records}
    assert details.keys() == {"None", "failed"}
    assert "did a `capfilt gc` run meanwhile" in details["failed"]


@pytest.mark.parametrize("step", STEPS)
def test_one_that_wakes_after_another_s_commit_leaves_it_alone(
    freeze: Callable[[str], tuple[Any, list[Path]]],
    capfilt: InProcess,
    command: list[str],
    tmp_path: Path,
    step: str,
) -> None:
    driver, published = freeze(step)
    assert capfilt.run(*command).returncode == 0
    age(tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run" / "commits").iterdir()}
    assert capfilt.run("gc", tmp_path / "run", "--delete").returncode == 0
    assert not any(path.exists() for path in published), "its shard is done: it is garbage"
    assert wake(driver) == 0
    assert {p: p.read_bytes() for p in before} == before
    assert is_whole(capfilt, tmp_path / "run")


def test_one_whose_staging_folder_went_does_its_work_again(
    freeze: Callable[[str], tuple[Any, list[Path]]], capfilt: InProcess, tmp_path: Path
) -> None:
    driver, published = freeze("published")
    for path in published:
        path.unlink()
    for folder in (tmp_path / "run").glob(".tmp-*"):
        shutil.rmtree(folder)
    assert wake(driver) == 0
    assert is_whole(capfilt, tmp_path / "run")
