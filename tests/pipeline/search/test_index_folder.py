"""The folder of an index: one build counts, whole, whatever is killed on the way to the next."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.roles.retrieval import Retriever
from pipeline.search import faiss_index as nearest
from pipeline.search.build import IndexConfig, IndexItem, build
from pipeline.search.index_folder import IndexFolderError
from pipeline.search.query import SearchIndex, search_text
from shards.files import durable
from tests.support.small_index import ABOUT, COUNT

# which call of a build it does not survive, and whether that call is done before
MOMENTS: dict[str, tuple[Any, str, bool]] = {
    "embedding": (Retriever, "encode_images", True),
    "faiss file": (nearest, "write", True),
    "record": (json, "dumps", False),
    "sync": (durable, "sync", False),
    "renamed": (Path, "rename", True),
    "pointer written": (Path, "replace", False),
    "pointer put": (Path, "replace", True),
}


def builds(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_build_that_is_killed_leaves_the_old_index_whole(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever, moment: str
) -> None:
    folder = tmp_path / "x"
    build(folder, items[:10], retriever, ABOUT, IndexConfig())
    before = search_text(SearchIndex(folder), retriever, "a red circle", 10)
    assert _killed(folder, items, retriever, moment) == -signal.SIGKILL
    opened = SearchIndex(folder)
    if moment == "pointer put":  # it counts already; only what is old was still to be removed
        assert opened.record["images"]["count"] == COUNT
    else:
        assert search_text(opened, retriever, "a red circle", 10) == before
    build(folder, items, retriever, ABOUT, IndexConfig())  # and the next one goes through
    assert SearchIndex(folder).record["images"]["count"] == COUNT
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"current"}
    assert len(builds(folder)) == 2


def _killed(folder: Path, items: list[IndexItem], retriever: Retriever, moment: str) -> int | None:
    """Build in a child that kills itself at a moment."""
    child = multiprocessing.get_context("fork").Process(
        target=_build_and_die, args=(folder, items, retriever, moment)
    )
    child.start()
    child.join(60)
    return child.exitcode


def _build_and_die(folder: Path, items: list[IndexItem], retriever: Retriever, moment: str) -> None:
    torch.set_num_threads(1)
    owner, name, done_before = MOMENTS[moment]
    call: Callable[..., Any] = getattr(owner, name)

    def last(*given: Any, **named: Any) -> None:
        if done_before:
            call(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, last)
    build(folder, items, retriever, ABOUT, IndexConfig())


def test_builds_killed_at_any_time_leave_a_whole_index(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    folder, counts = tmp_path / "x", set()
    build(folder, items[:10], retriever, ABOUT, IndexConfig())
    for number in range(12):
        child = multiprocessing.get_context("fork").Process(
            target=_build_alone, args=(folder, items, retriever)
        )
        child.start()
        child.join(0.02 * number)
        child.kill()
        child.join(60)
        found = search_text(SearchIndex(folder), retriever, "a red circle", COUNT, rerank=0)
        counts.add(len(found))
    assert counts <= {10, COUNT}
    build(folder, items, retriever, ABOUT, IndexConfig())
    assert not list(folder.glob("unfinished-*"))


def _build_alone(folder: Path, items: list[IndexItem], retriever: Retriever) -> None:
    torch.set_num_threads(1)
    build(folder, items, retriever, ABOUT, IndexConfig())


def test_who_reads_goes_on_while_new_builds_come(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    folder = tmp_path / "x"
    build(folder, items[:3], retriever, ABOUT, IndexConfig())
    reads = SearchIndex(folder)
    before = search_text(reads, retriever, "a red circle")
    for count in (4, 5, 6):
        build(folder, items[:count], retriever, ABOUT, IndexConfig())
    assert search_text(reads, retriever, "a red circle") == before
    assert len(search_text(SearchIndex(folder), retriever, "a red circle")) == 6
    assert len(builds(folder)) == 2  # the new one, and the one before it


@pytest.mark.parametrize("name", ["thesis", "unfinished-thesis", "current.txt", "currently"])
def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever, name: str
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(IndexFolderError, match=f"holds {name}, which belongs to no index"):
        build(tmp_path, items, retriever, ABOUT, IndexConfig())
    assert [path.name for path in tmp_path.iterdir()] == [name]


HEX = "0123456789abcdef"
STRANGERS = {
    f"{HEX}/precious": "a cache keyed by hashes",
    f"{HEX}/index.json": '{"version": 3}',
    f"unfinished-{HEX}/precious": "a draft",
    f".{HEX}.old.partial/precious": "a download",
    f"current.{HEX}": "amperes",
    "current": "amperes",
    "lock": "and key",
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_only_has_the_name_of_an_index_is_refused_and_stays(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever, name: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(STRANGERS[name])
    with pytest.raises(IndexFolderError, match="which belongs to no index"):
        build(tmp_path, items[:3], retriever, ABOUT, IndexConfig())
    assert path.read_text() == STRANGERS[name]
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]


def test_a_strangers_things_in_an_index_outlive_every_build(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever
) -> None:
    folder = tmp_path / "x"
    build(folder, items[:3], retriever, ABOUT, IndexConfig())
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "precious").write_text("mine")
    (folder / ("f" * 16)).symlink_to(elsewhere)
    note = next(path for path in builds(folder) if not path.is_symlink()) / "note.txt"
    note.write_text("why we built it")
    strangers = {name: text for name, text in STRANGERS.items() if name not in ("current", "lock")}
    for name, text in strangers.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for count in (4, 5, 6):
        build(folder, items[:count], retriever, ABOUT, IndexConfig())
    assert {name: (folder / name).read_text() for name in strangers} == strangers
    assert (note.read_text(), (elsewhere / "precious").read_text()) == ("why we built it", "mine")
    assert SearchIndex(folder).record["images"]["count"] == 6


@pytest.mark.parametrize("rotten", ["current", "index.json"])
def test_a_damaged_index_is_built_again(
    tmp_path: Path, items: list[IndexItem], retriever: Retriever, rotten: str
) -> None:
    build(tmp_path, items[:3], retriever, ABOUT, IndexConfig())
    (path,) = tmp_path.rglob(rotten)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(IndexFolderError, match="build the index again"):
        SearchIndex(tmp_path)
    build(tmp_path, items[:4], retriever, ABOUT, IndexConfig())
    assert SearchIndex(tmp_path).record["images"]["count"] == 4


def test_what_is_broken_is_told(tmp_path: Path, toy_index: Path) -> None:
    with pytest.raises(IndexFolderError, match="holds no index; make one with `capfilt index`"):
        SearchIndex(tmp_path / "none")
    folder = tmp_path / "x"
    shutil.copytree(toy_index, folder)
    (record,) = folder.glob("*/index.json")
    content = json.loads(record.read_text())

    def told(match: str) -> None:
        with pytest.raises(IndexFolderError, match=match):
            SearchIndex(folder)

    for broken, match in (
        (json.dumps(content | {"version": 99}), "of version 99, this capfilt reads up to 1"),
        (json.dumps(content | {"files": {}}), "lacks images.faiss; build the index again"),
        ("[]", "cannot be read .*build the index again"),
        ("{", "cannot be read .*build the index again"),
    ):
        record.write_text(broken)
        told(match)
    record.write_text(json.dumps(content))
    for name in ("images.faiss", "texts.parquet"):
        path = record.parent / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        told(rf"{name}: {len(whole):,} bytes expected, {len(whole) - 1:,} found; build the index")
        path.write_bytes(bytes(len(whole)))
        told(f"{name} cannot be read .*build the index again")
        path.unlink()
        told(f"{name}: .* it is gone")
        path.write_bytes(whole)
    SearchIndex(folder)
    (record.parent / "features.parquet").unlink()
    SearchIndex(folder)  # which needs no features
    (folder / "current").write_text("../../etc")
    told("names no build")
