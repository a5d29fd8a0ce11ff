"""`capfilt dedup` as a user types it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

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
    assert "kept 1 of 2: 1 left out (1 near), in 1 group\n" in done.stdout
    assert "nothing is deleted" in done.stdout
    again = json.loads(capfilt.run("dedup", run.store.url(), "--json").stdout)
    assert (again["new"], again["kept"]) == (False, 1)
    exact = capfilt.run("dedup", run.store.url(), "--exact", "--name=exact", "--json")
    assert json.loads(exact.stdout)["excluded"] == 0


def test_an_index_finds_what_its_model_embeds_alike(
    capfilt: InProcess, toy_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(toy_run, tmp_path / "run")
    indexed = capfilt.run("index", "run", "--to=index", "--model=tiny-filter", "--features")
    assert indexed.returncode == 0, indexed.stderr
    command = ("dedup", "run", "--index=index", "--exact", "--similarity=0.9", "--name=unlike")
    done = capfilt.run(*command, "--json")
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    features = pq.read_table(next((tmp_path / "index").glob("*/features.parquet")))
    pictures = features.filter(pc.equal(features["kind"], "image"))
    vectors = dict(
        zip(pictures["key"].to_pylist(), np.array(pictures["vector"].to_pylist()), strict=True)
    )
    keeper, members = "", 0
    for row in pq.read_table(numbers["groups_file"].removeprefix("file://")).to_pylist():
        name = f"{row['shard']}/{row['key']}"
        if row["reason"] is None:
            keeper = name
        elif row["kind"] == "semantic":
            assert vectors[name] @ vectors[keeper] == pytest.approx(row["similarity"], abs=1e-4)
            assert row["similarity"] >= 0.9
            members += 1
    assert members == numbers["by_kind"]["semantic"] > 0
    left = {name for name in vectors if not _is_out(numbers, name)}
    between = np.array([[vectors[a] @ vectors[b] for a in left if a != b] for b in left])
    assert between.max() < 0.9
    tars = tmp_path / "run" / "clean.txt"
    tars.write_text(tars.read_text().replace(str(toy_run), str(tmp_path / "run")))
    verified = capfilt.run("verify", "run")
    assert verified.returncode == 0, verified.stdout
    again = json.loads(capfilt.run(*command, "--json").stdout)
    assert again == numbers | {"new": False}
    other = capfilt.run(*command[:-2], "--similarity=0.8", "--name=unlike")
    assert other.returncode == 2


def _is_out(numbers: dict[str, Any], name: str) -> bool:
    groups = pq.read_table(numbers["groups_file"].removeprefix("file://")).to_pylist()
    return name in {f"{row['shard']}/{row['key']}" for row in groups if row["reason"]}


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
    assert "kept 1 of 2: 1 sample left out" in done.stdout
    assert "Excluded, not erased" in done.stdout
    assert "1 name of no sample" in done.stderr
    (tmp_path / "list").write_text("000/absent\n")
    assert capfilt.run(*command).returncode == 2
