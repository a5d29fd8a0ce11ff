"""A run killed before any single change that it makes to the disk is finished by the next one.

Every step of the protocol is a fail-point: the steps are counted in an unbroken run, then a child
process dies by SIGKILL right before the first, the second, and so on to the last.
"""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.clean.config import identity
from shards.inputs.listing import list_inputs
from shards.run.attempt import read_attempts
from shards.run.commit import read_commits
from shards.run.run import Run
from shards.run.snapshot import open_snapshot, table_files, write_snapshot
from shards.run.verify.run import verify_run
from shards.store import Store
from tests.support.bench import Bench

CHANGES = ("os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
TABLES = ("samples", "texts", "decisions")


@pytest.fixture
def work(bench: Bench, noise: Any, encode: Any, tar_of: Any) -> Callable[[Path], Run]:
    """Do a whole run of two small shards, or what is left of it."""
    for shard in range(2):
        members = []
        for n in range(3):
            picture = encode(noise(48 + n, 40, seed=10 * shard + n), "JPEG") if n else b"none"
            members += [(f"k{n}.jpg", picture), (f"k{n}.txt", f"{n} grey cats".encode())]
        bench.put(f"{shard:05}", tar_of(members))
    inputs = list_inputs([str(bench.folder / "web")])
    config = bench.config.model_copy(
        update={
            "judge": bench.config.judge.model_copy(update={"threshold": dict(web=0, synthetic=0)})
        }
    )
    named = identity(config, [bench.captioner], [bench.scorer])

    def do(folder: Path) -> Run:
        run = Run.create(Store(str(folder)), "seed: 0\n", named, {}, inputs)
        cleaner = bench.cleaner(run, config)
        for shard, following in zip(run.inputs, [*run.inputs[1:], None], strict=True):
            if following is not None:
                cleaner.expect(following)
            cleaner.clean(shard, bench.ignore)
        write_snapshot(run)
        return run

    return do


def in_child(task: Callable[[], object], stop_before: int | None, log: Path) -> int:
    """Run a task in a process that dies before its n-th change to the disk; give its status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    steps = log.open("w", encoding="utf-8")
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        opens = event == "open" and isinstance(args[1], str) and args[1][0] in "wxa"
        if event not in CHANGES and not opens:
            return
        names = [os.fsdecode(arg) for arg in args[:2] if isinstance(arg, (str, bytes, os.PathLike))]
        if not any(str(log.parent / "run") in name for name in names):
            return
        if count == stop_before:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        steps.write(f"{event} {' '.join(names)}\n")
        steps.flush()

    sys.addaudithook(hook)
    try:
        task()
        os._exit(0)
    finally:
        os._exit(1)


def kinds(log: Path) -> list[str]:
    """Name the steps by what they do, without ids and folders."""
    kinds = []
    for line in log.read_text(encoding="utf-8").splitlines():
        event, *names = line.split()
        last = names[-1].split("/run/")[-1] if "/run/" in names[-1] else ""
        kinds.append(f"{event} {re.sub('[0-9a-f]{16,}', 'ID', last)}")
    return kinds


def rows(run: Run) -> dict[str, list[Any]]:
    """Read all tables by the snapshot."""
    snapshot = open_snapshot(run)
    return {
        table: [
            row
            for file in table_files(snapshot.shards, table)
            for row in pq.read_table(run.store.path(file.name)).to_pylist()
        ]
        for table in TABLES
    }


@pytest.mark.slow
def test_killed_before_every_single_change(work: Any, tmp_path: Path) -> None:
    whole = work(tmp_path / "whole")
    counted = tmp_path / "count" / "log"
    counted.parent.mkdir()
    assert in_child(lambda: work(counted.parent / "run"), None, counted) == 0
    steps = kinds(counted)
    for step in (
        "os.link run.json",
        "os.link input.parquet",
        "os.rename attempts/00000/ID.json",
        *(f"os.rename data/{table}/00001-ID.parquet" for table in TABLES),
        "os.rename data/clean/00001-ID.tar",
        "os.link commits/00000.json",
        "os.link snapshots/ID.parquet",
        "os.rename snapshot.json",
        "os.rename clean.txt",
    ):
        assert step in steps, steps

    for place, step in enumerate(steps):
        home = tmp_path / f"{place:03}"
        home.mkdir()
        folder = home / "run"
        status = in_child(lambda: work(folder), place, home / "log")  # noqa: B023 - called at once
        assert os.WTERMSIG(status) == signal.SIGKILL, step
        before = read_commits(Run.open(str(folder))) if (folder / "input.parquet").exists() else {}
        run = work(folder)
        assert {name: read_commits(run)[name] for name in before} == before, step
        assert verify_run(run).problems == (), step
        assert rows(run) == rows(whole), step
        assert open_snapshot(run).id == open_snapshot(whole).id, step
        tries = [len(read_attempts(run, shard)) for shard in run.shards]
        assert sum(tries) <= 4, step  # the shard at work, and the one begun ahead
