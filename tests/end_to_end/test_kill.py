"""Runs that are killed: nothing lost, nothing twice, nothing done again."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.driving import Command, InProcess, Models, children, committed, table, wait_until

TABLES = ("samples", "texts", "decisions")
Flags = Callable[[Models, Path, Path], list[str]]


@pytest.fixture(scope="module")
def whole(toy_run: Path) -> dict[str, list[tuple[object, ...]]]:
    """The tables of an unbroken run."""
    return {name: table(toy_run, name) for name in TABLES}


def attempts(run: Path) -> dict[str, int]:
    """Count the attempts on each shard."""
    return {path.name: len(list(path.iterdir())) for path in (run / "attempts").iterdir()}


def endings(run: Path) -> list[tuple[str, str | None]]:
    """Give every attempt's shard, and how it is said to have ended."""
    records = [json.loads(path.read_bytes()) for path in (run / "attempts").glob("*/*.json")]
    return [(record["shard"], record["ending"]) for record in records]


def close(ours: list[tuple[object, ...]], theirs: list[tuple[object, ...]]) -> None:
    """Assert two tables of texts equal but for the last digits of their scores."""
    assert [row[:6] for row in ours] == [row[:6] for row in theirs]
    for row, other in zip(ours, theirs, strict=True):
        assert row[6:9] == pytest.approx(other[6:9], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", ["--engine=local", pytest.param("--actors=2", marks=pytest.mark.nightly)]
)
def test_a_killed_driver_is_taken_up_where_it_was(
    engine: str,
    capfilt_ray: Command,
    flags: Flags,
    toy_models: Models,
    toy_shards: Path,
    whole: dict[str, list[tuple[object, ...]]],
) -> None:
    run = capfilt_ray.home / "run"
    command = [*flags(toy_models, toy_shards, run), engine, "--direct"]
    process = capfilt_ray.start(*command)
    wait_until(lambda: len(committed(run)) >= 3)
    process.send_signal(signal.SIGKILL)
    capfilt_ray.wait(process)
    (log,) = (run / "logs").iterdir()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    done_by_log = {line["shard"] for line in lines if line["event"] == "shard_done"}
    assert len(committed(run) - done_by_log) <= 1  # which was committed as the kill came
    assert lines[-1]["event"] != "ended"
    kept = {path: path.read_bytes() for path in (run / "commits").iterdir()}
    tries = attempts(run)
    assert 3 <= len(kept) < 12, "the run was over before it was killed"

    done = capfilt_ray.run(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in kept} == kept
    after = attempts(run)
    assert all(after[path.stem] == tries[path.stem] for path in kept)
    assert json.loads(done.stdout)["samples_in"] == len(whole["samples"])
    assert table(run, "samples") == whole["samples"]
    assert table(run, "decisions") == whole["decisions"]
    close(table(run, "texts"), whole["texts"])


@pytest.mark.nightly
def test_a_killed_actor_is_replaced(
    capfilt_ray: Command,
    flags: Flags,
    toy_models: Models,
    toy_shards: Path,
    whole: dict[str, list[tuple[object, ...]]],
) -> None:
    run = capfilt_ray.home / "run"
    command = flags(toy_models, toy_shards, run)
    process = capfilt_ray.start(*command, "--actors=2", "--direct", "--json")
    wait_until(lambda: len(committed(run)) >= 2)
    victim = next(children(process.pid, "ray::PoolActor"))
    # between two shards it would lose nothing: wait until both are at one
    wait_until(lambda: len({shard for shard, _ in endings(run)} - committed(run)) == 2)
    os.kill(victim, signal.SIGKILL)
    assert len(committed(run)) < 12, "the run was over before the actor was killed"
    done = capfilt_ray.wait(process)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shards"]["pending"] == 0
    ended = [ending for _, ending in endings(run) if ending]
    assert ended.count("died") == 1
    # a shard that two were at in the end is released by one
    assert set(ended) <= {"died", "released"}
    assert 13 <= sum(attempts(run).values()) <= 12 + len(ended)
    assert table(run, "decisions") == whole["decisions"]
    close(table(run, "texts"), whole["texts"])


@pytest.mark.nightly
def test_a_dead_prefect_server_delays_nothing(
    capfilt_ray: Command,
    flags: Flags,
    toy_models: Models,
    toy_shards: Path,
    whole: dict[str, list[tuple[object, ...]]],
) -> None:
    run = capfilt_ray.home / "run"
    command = flags(toy_models, toy_shards, run)
    process = capfilt_ray.start(*command, "--actors=1", "--json")
    wait_until(lambda: len(committed(run)) >= 1)
    (server,) = children(process.pid, "flows.following.server")
    os.kill(server, signal.SIGKILL)
    assert len(committed(run)) < 12, "the run was over before the server was killed"
    process.wait(120)
    ended = time.time()
    done = capfilt_ray.wait(process)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shards"]["pending"] == 0
    last = max(path.stat().st_mtime for path in (run / "commits").iterdir())
    assert ended - last < 15
    assert table(run, "decisions") == whole["decisions"]


@pytest.mark.nightly
def test_a_prefect_server_that_cannot_start_is_done_without(
    capfilt_ray: Command,
    flags: Flags,
    toy_models: Models,
    toy_shards: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "prefect").write_text("a file where Prefect wants its folder")
    done = capfilt_ray.run(
        *flags(toy_models, toy_shards / "00000.tar", tmp_path / "run"), "--engine=local", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shards"]["pending"] == 0
    assert "without it" in done.stderr


@pytest.mark.nightly
def test_sigterm_ends_a_run_that_can_be_taken_up(
    capfilt_ray: Command, flags: Flags, toy_models: Models, toy_shards: Path
) -> None:
    run = capfilt_ray.home / "run"
    command = [*flags(toy_models, toy_shards, run), "--actors=1"]
    process = capfilt_ray.start(*command)
    wait_until(lambda: len(committed(run)) >= 1)
    process.terminate()
    done = capfilt_ray.wait(process)
    assert done.returncode == 143, done.stderr
    assert "Traceback" not in done.stderr
    before = committed(run)
    assert 1 <= len(before) < 12
    assert {ending for shard, ending in endings(run) if shard not in before} <= {"released"}
    done = capfilt_ray.run(*command, "--direct")
    assert done.returncode == 0, done.stderr
    assert len(committed(run)) == 12


def test_a_torn_commit_counts_as_none(
    capfilt: InProcess,
    flags: Flags,
    toy_models: Models,
    toy_shards: Path,
    toy_run: Path,
    whole: dict[str, list[tuple[object, ...]]],
) -> None:
    run = shutil.copytree(toy_run, capfilt.home / "run")
    command = [*flags(toy_models, toy_shards, run), "--engine=local", "--direct"]
    torn = sorted((run / "commits").iterdir())[4]
    torn.write_bytes(torn.read_bytes()[:200])
    (run / "snapshot.json").unlink()
    shutil.rmtree(run / "snapshots")
    assert re.search(rf"1 .*pending|pending.*{torn.stem}", capfilt.run("verify", run).stdout)
    assert capfilt.run(*command).returncode == 0
    assert table(run, "decisions") == whole["decisions"]
    assert capfilt.run("verify", run).returncode == 0


@pytest.mark.slow
def test_sigterm_releases_what_the_local_engine_was_at(
    flags: Flags, toy_models: Models, toy_shards: Path, tmp_path: Path
) -> None:
    run, command = tmp_path / "run", Command([], tmp_path)
    process = command.start(
        *flags(toy_models, toy_shards, run), "--engine=local", "--direct", "--set=caption.beams=3",
        "--set=caption.method=beam",
    )  # fmt: skip
    wait_until(lambda: len(committed(run)) >= 1)
    # between two shards there is nothing to release: wait until one is just begun
    begun = {shard for shard, _ in endings(run)}
    wait_until(lambda: bool({shard for shard, _ in endings(run)} - begun))
    time.sleep(0.1)  # past the writing of its record, and well within its pictures
    process.terminate()
    assert command.wait(process).returncode == 143
    left = [ending for shard, ending in endings(run) if shard not in committed(run)]
    assert 1 <= len(left) <= 2, "the shard at work, and the one begun ahead"
    assert set(left) == {"released"}
    (log,) = (run / "logs").iterdir()
    last = json.loads(log.read_text().splitlines()[-1])
    assert (last["event"], last["exit_code"], last["signal"]) == ("ended", 143, "SIGTERM")
    assert not list((run / "data").glob("*/.tmp*"))
