"""The same pictures as tars, as a folder, as Parquet: equal texts, scores and decisions."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.training.source import SourceConfig
from shards.training.source_reader import open_source, read_part
from tests.support import object_store
from tests.support.driving import Command, InProcess, Models, committed, table, wait_until
from tests.support.object_store import BUCKET, put_folder, s3_server
from tests.support.tars import read_members

Flags = Callable[[Models, Path, Path], list[str]]
FORMS = ("tar", "folder", "parquet")
PER_SHARD, SHARDS = 12, 4


def as_folder(tars: list[Path], folder: Path) -> Path:
    """Unpack tars side by side into one folder."""
    folder.mkdir()
    for tar in tars:
        for name, data in read_members(tar):
            (folder / name).write_bytes(data)
    return folder


def as_parquet(tars: list[Path], folder: Path) -> Path:
    """Write each tar as a Parquet file of the same name, as Hugging Face has pictures."""
    folder.mkdir()
    for tar in tars:
        members = dict(read_members(tar))
        names = sorted(name for name in members if name.endswith((".png", ".jpg")))
        rows = {
            "image": [{"bytes": members[name], "path": name} for name in names],
            "text": [members[f"{name[:-4]}.txt"].decode() for name in names],
        }
        pq.write_table(pa.table(rows), folder / f"{tar.stem}.parquet", row_group_size=5)
    return folder


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One toy world in three forms."""
    home = tmp_path_factory.mktemp("forms")
    world = ToyWorldConfig(samples=PER_SHARD * SHARDS, samples_per_shard=PER_SHARD)
    write_toy_world(home / "tar", world)
    tars = sorted((home / "tar").glob("*.tar"))
    return {
        "tar": home / "tar",
        "folder": as_folder(tars, home / "folder"),
        "parquet": as_parquet(tars, home / "parquet"),
    }


@pytest.fixture(scope="module")
def runs(
    forms: dict[str, Path],
    flags: Flags,
    toy_models: Models,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """An unbroken run of each form."""
    home = tmp_path_factory.mktemp("runs")
    for form in FORMS:
        done = InProcess(home, lambda: ("", "")).run(
            *command(flags, toy_models, forms[form], home / form)
        )
        assert done.returncode == 0, form
    return {form: home / form for form in FORMS}


def command(
    flags: Flags, models: Models, source: Path, run: Path, engine: str = "local"
) -> list[str]:
    few = [f"--set=input.samples_per_shard={PER_SHARD}", "--set=judge.threshold.web=0.4"]
    return [*flags(models, source, run), *few, f"--engine={engine}", "--direct"]


def judged(run: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return what a run wrote, but for what tells the forms apart: the sidecar's JSON."""
    return {name: table(run, name) for name in ("texts", "decisions")} | {
        "samples": [row[:15] for row in table(run, "samples")]
    }


@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_a_form_gives_what_tars_give(form: str, runs: dict[str, Path]) -> None:
    assert len(committed(runs[form])) == SHARDS
    assert judged(runs[form]) == judged(runs["tar"])


@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_an_object_store_gives_what_a_disk_gives(
    form: str,
    forms: dict[str, Path],
    flags: Flags,
    toy_models: Models,
    runs: dict[str, Path],
    capfilt: InProcess,
) -> None:
    run = capfilt.home / "run"
    with s3_server() as bucket:
        put_folder(forms[form], bucket)
        clean = stored(command(flags, toy_models, forms[form], run), forms[form], bucket)
        done = capfilt.run(*clean)
        assert done.returncode == 0, done.stderr
        assert len(committed(run)) == SHARDS
        assert judged(run) == judged(runs["tar"])
        assert capfilt.run("verify", run).returncode == 0
        assert capfilt.run("report", run).returncode == 0
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "the input shard" not in page
    assert "data:image" in page


def stored(clean: list[str], folder: Path, bucket: str) -> list[str]:
    """Take the input of a command from a bucket."""
    return [flag.replace(f"--input={folder}", f"--input={bucket}/{folder.name}") for flag in clean]


@pytest.mark.nightly
@pytest.mark.parametrize("where", ["disk", "store"])
@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_ray_gives_of_a_form_what_one_process_gives_of_tars(
    form: str,
    where: str,
    forms: dict[str, Path],
    flags: Flags,
    toy_models: Models,
    runs: dict[str, Path],
    capfilt_ray: Command,
    tmp_path: Path,
) -> None:
    source, run, there = forms[form], tmp_path / "run", capfilt_ray
    clean = [*command(flags, toy_models, source, run, engine="ray"), "--actors=2"]
    if where == "store":
        clean = stored(clean, source, f"s3://{BUCKET}")
        beside = [sys.executable, object_store.__file__, str(source)]
        there = replace(there, prefix=[*there.prefix, *beside])
    done = there.run(*clean)
    assert done.returncode == 0, done.stderr
    assert len(committed(run)) == SHARDS
    assert judged(run) == judged(runs["tar"])


@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_whatever_reads_a_run_again_finds_its_pictures(
    form: str, runs: dict[str, Path], capfilt: InProcess
) -> None:
    run = runs[form]
    assert capfilt.run("verify", run).returncode == 0
    first = f"{table(run, 'samples')[0][0]}/{table(run, 'samples')[0][2]}"
    told = capfilt.run("explain", run, first)
    assert told.returncode == 0, told.stderr
    report = capfilt.run("report", run)
    assert report.returncode == 0, report.stderr
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "the input shard" not in page
    assert "data:image" in page
    judge = ("judge", run, "--name=other", "--threshold=web=0.4", "--write-shards")
    again = capfilt.run(*judge)
    assert again.returncode == 0, again.stderr
    clean = sorted((run / "views" / "other" / "clean").glob("*.tar"))
    assert [read_members(path) for path in clean] == [
        read_members(path) for path in sorted((run / "data" / "clean").glob("*.tar"))
    ]
    source = open_source(SourceConfig(run=str(run), read="input"))
    through_clean = open_source(SourceConfig(run=str(run), read="clean"))
    keys = [sample.key for part in source.parts for sample in read_part(part)]
    assert keys == [sample.key for part in through_clean.parts for sample in read_part(part)]
    assert keys


@pytest.mark.nightly
@pytest.mark.parametrize("form", FORMS)
def test_each_form_goes_through_kill_and_resume(
    form: str,
    forms: dict[str, Path],
    runs: dict[str, Path],
    flags: Flags,
    toy_models: Models,
    tmp_path: Path,
) -> None:
    killed, run = Command([], tmp_path), tmp_path / "run"
    process = killed.start(*command(flags, toy_models, forms[form], run))
    wait_until(lambda: len(committed(run)) >= 1)
    process.send_signal(signal.SIGKILL)
    killed.wait(process)
    kept = {path: path.read_bytes() for path in (run / "commits").glob("*.json")}
    assert 1 <= len(kept) < SHARDS, "the run was over before it was killed"
    done = killed.run(*command(flags, toy_models, forms[form], run))
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in kept} == kept
    assert judged(run) == judged(runs["tar"])


def test_a_run_goes_on_with_what_it_was_created_with(
    forms: dict[str, Path],
    flags: Flags,
    toy_models: Models,
    capfilt: InProcess,
    tmp_path: Path,
) -> None:
    source = as_folder(sorted(forms["tar"].glob("*.tar")), tmp_path / "pictures")
    clean = command(flags, toy_models, source, tmp_path / "run")
    assert capfilt.run(*clean).returncode == 0
    os.utime(next(iter(sorted(source.glob("*.txt")))))  # touched, and the same
    assert capfilt.run(*clean).returncode == 0
    text = sorted(source.glob("*.txt"))[0]
    written = text.read_bytes()
    text.write_bytes(written[::-1])
    changed = capfilt.run(*clean)
    assert changed.returncode == 1
    assert "changed since the run was created" in changed.stderr
    text.write_bytes(written + b" more")
    assert "changed since the run was created" in capfilt.run(*clean).stderr
    text.write_bytes(written)
    (source / "zzz.png").write_bytes(b"another")
    other = capfilt.run(*clean)
    assert other.returncode == 2
    assert "1 new: 00004" in other.stderr
    files = pq.read_metadata(tmp_path / "run" / "files.parquet")
    assert (files.num_rows, files.num_row_groups) == (PER_SHARD * SHARDS, SHARDS)
