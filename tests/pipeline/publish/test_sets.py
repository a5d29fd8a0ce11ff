"""Exported sets: all that is kept and nothing else, whole or not there at all."""

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from pipeline.publish import sets
from pipeline.publish.destination import ExportError
from pipeline.publish.files import TarFiles
from pipeline.publish.sets import ExportConfig, Form, export
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.files import durable
from shards.run.run import Run
from shards.run.snapshot import open_snapshot
from tests.support.tars import read_members
from tests.support.toy_run import clean_world

FORMS: tuple[Form, ...] = ("webdataset", "parquet", "index")


@pytest.fixture(scope="module")
def kept(run: Run) -> dict[str, dict[str, Any]]:
    """What is kept, read straight out of the run's clean tars."""
    found: dict[str, dict[str, Any]] = {}
    for url in (Path(run.store.url().removeprefix("file://")) / "clean.txt").read_text().split():
        for name, content in read_members(url.removeprefix("file://")):
            key, _, extension = name.rpartition(".")
            found.setdefault(key, {})[extension] = content
    return found


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def test_a_webdataset_is_read_by_datasets_and_mixed_pictures_become_jpeg(
    run: Run, kept: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    record = export(run, tmp_path / "out", ExportConfig())
    assert record["images"] == "encoded again as JPEG, for they were jpg, png"
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "c"))
    assert len(rows) == record["rows"] == len(kept)
    for row in rows:
        own = kept[row["__key__"]]
        assert row["txt"] == own["txt"].decode()
        theirs = json.loads(own["json"])["texts"]
        assert [text["text"] for text in row["json"]["texts"]] == [t["text"] for t in theirs]
        assert row["jpg"].size == (64, 64)
        if "jpg" in own:
            members = dict(read_members(row["__url__"]))
            assert members[f"{row['__key__']}.jpg"] == own["jpg"]  # it stays what it was


def test_parquet_has_the_pictures_in_it(
    run: Run, kept: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    record = export(run, tmp_path / "out", ExportConfig(form="parquet", file_bytes=20_000))
    assert record["images"] == "as they came in"
    assert len(list((tmp_path / "out" / "data").iterdir())) > 1
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "c"))
    assert len(rows) == len(kept)
    by_key = {(key.rpartition("/")[0], own["txt"].decode()): own for key, own in kept.items()}
    for row in rows:
        assert isinstance(row["image"], Image.Image)
        assert (row["shard"], row["text"]) in by_key
        assert row["texts"][0].keys() == {"text", "origin", "itm", "itc"}
    raw = pq.read_table(tmp_path / "out" / "data").to_pylist()
    pictures = {own.get("png", own.get("jpg")) for own in kept.values()}
    assert {row["image"]["bytes"] for row in raw} == pictures


def test_a_view_is_exported_as_it_decides(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    own = Run.open(str(tmp_path / "run"))
    rejudge(
        own,
        ViewRequest("strict", {"web": 0.9, "synthetic": 0.9}),
        open_snapshot(own),
        lambda _: None,
    )
    rows = {}
    for name in (None, "strict"):
        export(own, tmp_path / f"out-{name}", ExportConfig(form="parquet"), name)
        rows[name] = pq.read_table(tmp_path / f"out-{name}" / "data").to_pylist()
    assert 0 < len(rows["strict"]) < len(rows[None])
    assert all(text["itm"] >= 0.9 for row in rows["strict"] for text in row["texts"])


def test_the_same_export_twice_is_left_as_it_is(run: Run, tmp_path: Path) -> None:
    config = ExportConfig(form="parquet")
    first = export(run, tmp_path / "out", config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert export(run, tmp_path / "out", config) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    with pytest.raises(ExportError, match="holds another export"):
        export(run, tmp_path / "out", ExportConfig(form="index"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft").write_text("x")
    with pytest.raises(ExportError, match="holds no export"):
        export(run, tmp_path / "thesis", config)


@pytest.mark.parametrize("moment", ["add", "close", "card", "sync"])
def test_a_kill_leaves_nothing_that_looks_whole(run: Run, tmp_path: Path, moment: str) -> None:
    out = tmp_path / "out"
    child = multiprocessing.get_context("fork").Process(target=_die, args=(run, out, moment))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert not out.exists()
    record = export(run, out, ExportConfig())
    assert record["rows"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def _die(run: Run, out: Path, moment: str) -> None:
    count = 0

    def die(*_: Any) -> Any:
        nonlocal count
        count += 1
        if moment != "add" or count > 3:
            os.kill(os.getpid(), signal.SIGKILL)

    patch = pytest.MonkeyPatch()  # of a process that ends here
    if moment in ("add", "close"):
        patch.setattr(TarFiles, moment, die)
    elif moment == "card":
        patch.setattr(sets, "dataset_card", die)
    else:
        patch.setattr(durable, "sync", die)
    export(run, out, ExportConfig())


def test_nothing_kept_is_an_empty_set(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    own = Run.open(str(tmp_path / "run"))
    wish = ViewRequest("none", {"web": 1.1, "synthetic": 1.1})
    rejudge(own, wish, open_snapshot(own), lambda _: None)
    for form in FORMS:
        record = export(own, tmp_path / form, ExportConfig(form=form), "none")
        assert record["rows"] == 0
        assert (tmp_path / form / "README.md").is_file()


def test_a_run_without_clean_tars_is_exported_from_its_input(place: Path, tmp_path: Path) -> None:
    clean_world(place / "world", tmp_path / "run", clean="none")
    export(Run.open(str(tmp_path / "run")), tmp_path / "out", ExportConfig(form="parquet"))
    export(Run.open(str(place / "run")), tmp_path / "other", ExportConfig(form="parquet"))
    one, other = (pq.read_table(tmp_path / name / "data").to_pylist() for name in ("out", "other"))
    assert one == other
