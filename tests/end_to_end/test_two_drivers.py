"""Two drivers at once on one run: each shard is committed once, and nothing is left over."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shards.run.commit import read_commits
from shards.run.run import Run
from shards.run.verify.run import verify_run
from tests.support.driving import Command, Models, committed, table, wait_until


@pytest.mark.slow
@pytest.mark.parametrize(
    "apart",
    [False, pytest.param(True, marks=pytest.mark.nightly)],
    ids=["together", "joining"],
)
def test_two_drivers_make_one_run(
    apart: bool,
    flags: Callable[[Models, Path, Path], list[str]],
    toy_models: Models,
    toy_shards: Path,
    tmp_path: Path,
) -> None:
    folder, drivers = tmp_path / "run", []
    arguments = [*flags(toy_models, toy_shards, folder), "--engine=local", "--direct"]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        command = Command([], tmp_path / name)
        drivers.append((command, command.start(*arguments)))
        if apart:
            wait_until(lambda: len(committed(folder)) >= 1)
    for command, process in drivers:
        done = command.wait(process)
        assert done.returncode == 0, done.stderr
    run = Run.open(str(folder))
    assert verify_run(run).problems == ()
    places = [row[:2] for row in table(folder, "samples")]
    assert len(places) == len(set(places)) == 300
    commits = read_commits(run)
    assert len(commits) == 12
    named = {file.name for done in commits.values() for file in done.files}
    assert set(run.store.list("data")) == named, "a loser's files are left"
