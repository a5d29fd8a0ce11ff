"""The real command with its input and its run on S3, and no local disk but for scratch."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shards.store import Store
from tests.support.driving import InProcess, Models, table
from tests.support.object_store import s3_server


@pytest.fixture
def bucket() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.mark.slow
def test_clean_verify_and_gc(
    capfilt: InProcess,
    flags: Callable[[Models, Path, Path], list[str]],
    toy_models: Models,
    toy_shards: Path,
    bucket: str,
) -> None:
    web, run = Store(f"{bucket}/web"), f"{bucket}/runs/first"
    names = ["00000.tar", "00001.tar"]
    for name in names:
        web.put(name, (toy_shards / name).read_bytes())
    local = capfilt.home / "local"
    where = ["--engine=local", "--direct", "--json"]
    command = flags(toy_models, Path("IN"), Path("OUT"))
    on_s3 = [f"--input={bucket}/web", f"--output={run}"]
    on_disk = [*(f"--input={toy_shards / name}" for name in names), f"--output={local}"]
    rest = [flag for flag in command if not flag.startswith(("--input", "--output"))]
    done = capfilt.run(*rest, *where, *on_s3)
    assert done.returncode == 0, done.stderr
    same = capfilt.run(*rest, *where, *on_disk)
    assert same.returncode == 0, same.stderr
    told, expected = json.loads(done.stdout), json.loads(same.stdout)
    assert told.pop("run") == run
    assert expected.pop("run") == str(local)
    (log,) = Store(f"{run}/logs").list()
    events = [json.loads(line)["event"] for line in Store(f"{run}/logs").read(log).splitlines()]
    assert events == ["begun", "worker_ready", "shard_done", "shard_done", "ended"]
    (worker,), (other,) = told.pop("workers"), expected.pop("workers")
    assert worker["samples"] == other["samples"]  # at rates of their own
    assert told == expected

    checked = capfilt.run("verify", run, "--json")
    assert checked.returncode == 0, checked.stdout
    assert json.loads(checked.stdout)["committed"] == 2
    assert capfilt.run("gc", run).stdout == "to remove: 0, 0 bytes\n"
    Store(run).fs.get(run.removeprefix("s3://"), str(capfilt.home / "copy"), recursive=True)
    for name in ("samples", "texts", "decisions"):
        ours, theirs = table(capfilt.home / "copy", name), table(local, name)
        assert [row[:6] for row in ours] == [row[:6] for row in theirs]
    urls = Store(run).read("clean.txt").decode().split()
    assert urls
    assert all(url.startswith(f"{run}/data/clean/") for url in urls)


def test_an_export_goes_to_s3(capfilt: InProcess, toy_run: Path, bucket: str) -> None:
    where = capfilt.home / "local"
    for to in (str(where), f"{bucket}/set"):
        done = capfilt.run("export", toy_run, "--to", to, "--form", "index", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["to"] == to
    store, local = Store(f"{bucket}/set"), Store(str(where))
    assert store.list() == local.list() == ["README.md", "data/train-00000.parquet", "export.json"]
    assert all(store.read(name) == local.read(name) for name in local.list())
    refused = capfilt.run("export", toy_run, "--to", f"{bucket}/other", "--push", "me/set")
    assert refused.returncode == 2
    assert "--push uploads a local folder" in refused.stderr
