"""`capfilt dedup` as a user types it."""

import json
from pathlib import Path

from flows.cli.judging import dedup
from pipeline.media.difference_hash import DISTANCE
from tests.support.driving import InProcess
from tests.support.hashed_run import Picture, altered, hashed_run, stranger


def test_it_says_what_is_left_out_and_where_it_is_listed(
    capfilt: InProcess, tmp_path: Path
) -> None:
    pictures = [Picture("a", "1", stranger(0), side=9), Picture("b", "2", altered(stranger(0), 4))]
    run = hashed_run(tmp_path / "run", pictures)
    done = capfilt.run("dedup", run.store.url())
    assert done.returncode == 0
    assert "kept 1 of 2: 1 left out (1 near), in 1 groups" in done.stdout
    assert "nothing is deleted" in done.stdout
    again = json.loads(capfilt.run("dedup", run.store.url(), "--json").stdout)
    assert (again["new"], again["kept"]) == (False, 1)
    exact = capfilt.run("dedup", run.store.url(), "--exact", "--name=exact", "--json")
    assert json.loads(exact.stdout)["excluded"] == 0


def test_the_distance_is_that_of_the_search() -> None:
    assert dedup.DISTANCE == DISTANCE


def test_what_is_listed_is_left_out_and_nothing_is_erased(
    capfilt: InProcess, tmp_path: Path
) -> None:
    run = hashed_run(
        tmp_path / "run", [Picture(key, key, stranger(n)) for n, key in enumerate("ab")]
    )
    (tmp_path / "list").write_text("000/a\n000/absent\n")
    command = ("exclude", run.store.url(), str(tmp_path / "list"), "--name=published")
    done = capfilt.run(*command)
    assert done.returncode == 0
    assert "kept 1 of 2: 1 samples left out" in done.stdout
    assert "Excluded, not erased" in done.stdout
    assert "1 names of the list are of no sample" in done.stderr
    (tmp_path / "list").write_text("000/absent\n")
    assert capfilt.run(*command).returncode == 2
