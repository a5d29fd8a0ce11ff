"""A shard that was put aside does not hold up the run; it shows in numbers and exit code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from shards.run.attempt import SAFE_FROM, Ending, end_attempt, start_attempt
from shards.run.run import Run
from tests.support.driving import InProcess, Models, committed


def test_a_run_ends_without_a_shard_put_aside(
    capfilt: InProcess,
    flags: Callable[[Models, Path, Path], list[str]],
    toy_models: Models,
    toy_shards: Path,
    toy_run: Path,
) -> None:
    folder = shutil.copytree(toy_run, capfilt.home / "run")
    command = [*flags(toy_models, toy_shards, folder), "--engine=local", "--direct", "--json"]
    victim = sorted(committed(folder))[5]
    (folder / "commits" / f"{victim}.json").unlink()
    (folder / "snapshot.json").unlink()
    shutil.rmtree(folder / "snapshots")
    run = Run.open(str(folder))
    for safe in [False] * SAFE_FROM + [True] * 2:
        end_attempt(run, victim, start_attempt(run, victim, safe), Ending.DIED, "killed by SIGKILL")

    done = capfilt.run(*command)
    assert done.returncode == 3
    assert victim in done.stderr
    assert "SIGKILL" in done.stderr
    shards = json.loads(done.stdout)["shards"]
    assert shards == {
        "total": 12,
        "committed": 11,
        "damaged": 0,
        "quarantined": 1,
        "pending": 0,
    }
    assert json.loads((folder / "snapshot.json").read_bytes())["partial"] is True
    again = capfilt.run(*command)
    assert again.returncode == 3
    assert json.loads(again.stdout)["shards"] == shards
    assert capfilt.run("verify", folder).returncode == 0

    (folder / "quarantine" / f"{victim}.json").unlink()
    shutil.rmtree(folder / "attempts" / victim)
    done = capfilt.run(*command)
    assert done.returncode == 0
    assert json.loads(done.stdout)["shards"]["committed"] == 12
