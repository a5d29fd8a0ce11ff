"""The files below a folder: all of them, each once, and none that a system keeps for itself."""

from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from shards.files.walk import is_hidden, walk_files

NAMES = ["b.jpg", "a/c.jpg", "a/d/e.txt", "[x]/f 1.jpg", "Z.JPG"]
HIDDEN = ["._b.jpg", ".hidden/g.jpg", "a/.DS_Store", "__MACOSX/a/._c.jpg", "a/__MACOSX/h.jpg"]


def test_a_disk_and_a_store_are_walked_alike(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for name in (*NAMES, *HIDDEN):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        store.pipe_file(f"/walked/{name}", b"x")
    found = [
        path.removeprefix(f"{tmp_path}/") for path in walk_files(LocalFileSystem(), str(tmp_path))
    ]
    assert sorted(found) == sorted(NAMES)
    stored = [path.removeprefix("/walked/") for path in walk_files(store, "/walked")]
    assert sorted(stored) == sorted(NAMES)


def test_links_are_followed_and_never_in_a_circle(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"x")
    (inside / "link").symlink_to(outside)
    (inside / "again").symlink_to(outside)
    (outside / "back").symlink_to(inside)
    (inside / "gone").symlink_to(tmp_path / "nowhere")
    found = [path.removeprefix(f"{inside}/") for path in walk_files(LocalFileSystem(), str(inside))]
    assert set(found) - {"gone"} == {"a.jpg", "again/a.jpg"}


def test_where_no_folder_is_nothing_comes(tmp_path: Path) -> None:
    assert list(walk_files(LocalFileSystem(), str(tmp_path / "none"))) == []


@pytest.mark.parametrize(
    ("name", "hidden"), [(".a", True), ("._a.jpg", True), ("__MACOSX", True), ("a.jpg", False)]
)
def test_hidden_names(name: str, hidden: bool) -> None:
    assert is_hidden(name) is hidden
