"""A walk sees all that is not hidden, follows links, and ends."""

import os
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from shards.files.walk import Entry, below, is_hidden, walk, walk_files

FILES = ["a.tar", "b/c.tar", "b/d/e.tar", ".hidden.tar", "._a.tar", ".cache/f.tar", "b/.g/h.tar"]
SEEN = {"a.tar", "b", "b/c.tar", "b/d", "b/d/e.tar"}
LOCAL = LocalFileSystem()


def names(entries: list[Entry], top: str) -> set[str]:
    assert len({entry.path for entry in entries}) == len(entries)
    return {below(top, entry.path) for entry in entries}


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[fsspec.AbstractFileSystem, str]:
    url = str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    fs, top = fsspec.core.url_to_fs(url)
    for name in FILES:
        fs.makedirs(f"{top}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{top}/{name}", b"x")
    return fs, top


@pytest.mark.parametrize("depth", [None, 1, 2, 3])
def test_hidden_names_are_left_out_at_any_depth(
    place: tuple[fsspec.AbstractFileSystem, str], depth: int | None
) -> None:
    fs, top = place
    found = list(walk(fs, top, depth))
    expected = {name for name in SEEN if depth is None or name.count("/") < depth}
    assert names(found, top) == expected
    assert {below(top, entry.path) for entry in found if entry.is_folder} == expected & {"b", "b/d"}


def test_a_hidden_folder_that_is_named_is_walked(
    place: tuple[fsspec.AbstractFileSystem, str],
) -> None:
    fs, top = place
    assert names(list(walk(fs, f"{top}/.cache")), f"{top}/.cache") == {"f.tar"}


def test_linked_folders_are_walked_once_and_circles_end(tmp_path: Path) -> None:
    web, other = tmp_path / "web", tmp_path / "other"
    (web / "z").mkdir(parents=True)
    other.mkdir()
    (web / "z" / "in.tar").write_bytes(b"x")
    (other / "out.tar").write_bytes(b"x")
    (web / "circle").symlink_to(web)
    (web / "again").symlink_to("z")  # stands before z, and is walked behind it
    (web / "linked").symlink_to(other)
    (web / "z" / "linked").symlink_to(other)
    found = names([e for e in walk(LOCAL, str(web)) if not e.is_folder], str(web))
    assert found == {"z/in.tar", "linked/out.tar"}


def test_linked_folders_count_as_levels(tmp_path: Path) -> None:
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "other" / "deep" / "a.tar").write_bytes(b"x")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "link").symlink_to(tmp_path / "other")
    top = str(tmp_path / "web")
    assert names(list(walk(LOCAL, top, 2)), top) == {"link", "link/deep"}
    assert names(list(walk(LOCAL, top, 3)), top) == {"link", "link/deep", "link/deep/a.tar"}


def test_a_folder_that_cannot_be_read_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read all")
    for name in ("open", "lost+found"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tar").write_bytes(b"x")
    (tmp_path / "lost+found").chmod(0)
    try:
        assert f"{tmp_path}/open/a.tar" in {e.path for e in walk(LOCAL, str(tmp_path))}
        assert "lost+found cannot be read, and is left out: Permission denied" in caplog.text
        with pytest.raises(PermissionError):
            list(walk(LOCAL, str(tmp_path / "lost+found")))
    finally:
        (tmp_path / "lost+found").chmod(0o700)


# Files alone

PICTURES = ["b.jpg", "a/c.jpg", "a/d/e.txt", "[x]/f 1.jpg", "Z.JPG"]
HIDDEN = ["._b.jpg", ".hidden/g.jpg", "a/.DS_Store", "__MACOSX/a/._c.jpg", "a/__MACOSX/h.jpg"]


def test_a_disk_and_a_store_are_walked_alike(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for name in (*PICTURES, *HIDDEN):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        store.pipe_file(f"/walked/{name}", b"x")
    found = [
        path.removeprefix(f"{tmp_path}/") for path in walk_files(LocalFileSystem(), str(tmp_path))
    ]
    assert sorted(found) == sorted(PICTURES)
    stored = [path.removeprefix("/walked/") for path in walk_files(store, "/walked")]
    assert sorted(stored) == sorted(PICTURES)


def test_files_behind_links_come_and_circles_end(tmp_path: Path) -> None:
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
    ("name", "hidden"),
    [(".a", True), ("._a.jpg", True), ("__MACOSX", True), ("@eaDir", True), ("a.jpg", False)],
)
def test_what_systems_keep_is_hidden(name: str, hidden: bool) -> None:
    assert is_hidden(name) is hidden
