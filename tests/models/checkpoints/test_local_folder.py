"""Folders as people name them lead to a checkpoint, or to a sentence that says what to give."""

from pathlib import Path

import pytest

from models.checkpoints.checkpoint import info
from models.checkpoints.folder import read_json
from models.checkpoints.local_folder import checkpoint_in, inner_checkpoints, near_to, path_of
from models.checkpoints.locate import SHIPPED, CheckpointError, pin, resolve

COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A model in the hub's cache: two commits, `main` names the second."""
    top = tmp_path / "hub" / "models--Owner--blip"
    for commit in COMMITS:
        (top / "snapshots" / commit).mkdir(parents=True)
        (top / "snapshots" / commit / "config.json").write_text("{}")
    (top / "refs").mkdir()
    (top / "refs" / "main").write_text(COMMITS[1] + "\n")
    (top / "refs" / "v1").write_text(COMMITS[0])
    return top


@pytest.mark.parametrize(
    ("revision", "commit"), [(None, 1), ("main", 1), ("v1", 0), (COMMITS[0], 0)]
)
def test_a_folder_of_the_hubs_cache_leads_to_its_snapshot(
    cached: Path, revision: str | None, commit: int
) -> None:
    expected = cached / "snapshots" / COMMITS[commit]
    for given in (cached, cached / "snapshots"):
        assert checkpoint_in(given, revision) == resolve(given, revision) == expected
    assert resolve(expected) == expected
    pinned = pin(cached, revision)
    assert (pinned.name, pinned.revision) == (str(expected), None)  # as it is now, for all workers


def test_a_cache_without_the_snapshot_is_named(cached: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"snapshot of 'v2'; there are .*{COMMITS[1]}"):
        resolve(cached, "v2")
    (cached / "refs" / "main").unlink()
    with pytest.raises(CheckpointError, match="without a snapshot of 'main'; there are"):
        resolve(cached)
    (cached / "snapshots" / COMMITS[0] / "config.json").unlink()
    (cached / "snapshots" / COMMITS[0]).rmdir()
    assert resolve(cached).name == COMMITS[1]  # the only one
    (cached / "snapshots" / COMMITS[1] / "config.json").unlink()
    (cached / "snapshots" / COMMITS[1]).rmdir()
    with pytest.raises(CheckpointError, match=r"there is none: the download was not finished"):
        resolve(cached)


def test_a_whole_cache_is_named_with_what_it_holds(cached: Path) -> None:
    for given in (cached.parent, cached.parents[1]):
        with pytest.raises(CheckpointError, match=r"is a cache of .* holds .*models--Owner--blip"):
            resolve(given)


def test_a_cache_that_was_copied_without_its_blobs(tmp_path: Path) -> None:
    folder = tmp_path / "models--o--n" / "snapshots" / COMMITS[0]
    folder.mkdir(parents=True)
    for path in SHIPPED["tiny-filter"].iterdir():
        (folder / path.name).symlink_to(path)
    assert info(resolve(tmp_path / "models--o--n")) == info(SHIPPED["tiny-filter"])
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/0")
    with pytest.raises(CheckpointError, match=r"links to \.\./\.\./blobs/0, and nothing is there"):
        info(resolve(tmp_path / "models--o--n"))


def test_home_folders_and_empty_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(SHIPPED["tiny-filter"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert path_of("~/mine") == resolve("~/mine") == tmp_path / "mine"
    assert resolve(".") == SHIPPED["tiny-filter"]
    with pytest.raises(CheckpointError, match="no checkpoint without a name"):
        resolve("")  # not the folder that one stands in
    with pytest.raises(CheckpointError, match=r"no checkpoint folder .*~nobody-here"):
        resolve("~nobody-here/mine")


def test_a_file_in_the_place_of_its_folder(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).touch()
        with pytest.raises(CheckpointError, match=f"Give its folder: {tmp_path}$"):
            resolve(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "near"),
    [("tiny-captionr", "tiny-captioner"), ("mine/filtr", "mine/filter"), ("tiny_filter", "tiny-f")],
)
def test_a_slip_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, near: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "mine" / "filter").mkdir(parents=True)
    assert f"Did you mean {near}" in near_to(name, SHIPPED)
    with pytest.raises(CheckpointError, match=f"Did you mean .*{near}"):
        resolve(f"./{name}")
    assert near_to("nothing-alike-at-all", SHIPPED) == ""


def test_a_training_holds_its_checkpoint_one_folder_down(tmp_path: Path) -> None:
    assert inner_checkpoints(tmp_path) == ""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=rf"no config\.json.*Did you mean {tmp_path}/model\?"):
        read_json(tmp_path, "config.json")
