"""A run whose first shards are of schema version 2 is gone on with: their rows have no language."""

import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

from shards.schema import SCHEMA_VERSION
from tests.golden.world import write_input
from tests.support.driving import InProcess, table

BEGUN = Path(__file__).parent / "schema_version_2" / "unfinished"


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """What the run was begun with; its input stands where it stood then, wherever the test runs."""
    write_input(tmp_path / "input")
    for tar in (tmp_path / "input").iterdir():
        fsspec.filesystem("memory").pipe(f"/input/{tar.name}", tar.read_bytes())
    models = ["--captioner=tiny-captioner", "--filter=tiny-filter"]
    where = ["--engine=local", "--direct", "--set=dtype=fp32"]
    return ["clean", "--input=memory://input", *models, *where]


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def versions(run: Path) -> dict[str, int]:
    commits = {path.stem: json.loads(path.read_bytes()) for path in (run / "commits").iterdir()}
    return {name: commit["schema_version"] for name, commit in commits.items()}


def samples(run: Path) -> list[dict[str, Any]]:
    """Read all samples as they are stored, those of each version with its own columns."""
    tables = sorted((run / "data" / "samples").iterdir())
    return [row for path in tables for row in pq.ParquetFile(path).read().to_pylist()]


def stats(capfilt: InProcess, run: Path) -> Any:
    said = json.loads(capfilt.run("stats", run, "--json").stdout)
    return {name: value for name, value in said.items() if name not in ("run", "languages")}


def test_it_is_gone_on_with_and_nothing_done_is_done_again(
    capfilt: InProcess, command: list[str]
) -> None:
    run, today = capfilt.home / "run", capfilt.home / "today"
    shutil.copytree(BEGUN, run)
    before = versions(run)
    assert set(before.values()) == {2}
    done = capfilt.run(*command, f"--output={run}")
    assert done.returncode == 3, done.stderr  # one shard of the input is cut off
    assert capfilt.run(*command, f"--output={today}").returncode == 3
    assert versions(run) == dict.fromkeys(versions(today), SCHEMA_VERSION) | before
    assert files(BEGUN).items() <= files(run).items()

    assert all(table(run, name) == table(today, name) for name in ("texts", "decisions"))
    mixed, new = samples(run), samples(today)
    languages = [(row["shard"], row.pop("language", "no column")) for row in mixed]
    assert [(shard, said == "no column") for shard, said in languages] == [
        (row["shard"], row["shard"] in before) for row in new
    ]
    assert {said for _, said in languages} > {"no column"}
    assert mixed == [{k: v for k, v in row.items() if k != "language"} for row in new]

    assert stats(capfilt, run) == stats(capfilt, today)
    for again in ("verify", "report"):
        assert capfilt.run(again, run).returncode == 0
    asked = "SELECT shard, count(language) > 0 AS told FROM samples GROUP BY shard ORDER BY shard"
    told = capfilt.run("stats", run, f"--sql={asked}", "--json")
    assert told.returncode == 0, told.stderr
    assert {row["shard"]: row["told"] for row in json.loads(told.stdout)} == {
        shard: shard not in before for shard in versions(run)
    }
