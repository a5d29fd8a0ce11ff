"""Whole or not there: wherever a process is killed, and for whoever looks meanwhile."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.files.durable import make_folder, remove_folder, whole_folder, write_whole

FILES = {"a.txt": "a" * 5000, "deep/b.txt": "b"}


def fill(folder: Path, text: str = "") -> None:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content + text)


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def audited(task: Callable[[], object], kill_at: int | None, log: Path) -> int:
    """Do a task in a child that logs each change of the disk, and may die before one of them."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    count = 0
    lines = log.open("w")

    def hook(event: str, _: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "open"):
            return
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        lines.write(f"{event}\n")
        lines.flush()

    sys.addaudithook(hook)
    try:
        task()
    finally:
        os._exit(0)


def steps_of(task: Callable[[], object], log: Path) -> int:
    assert audited(task, None, log) == 0
    return len(log.read_text().splitlines())


def test_nothing_has_the_name_before_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with whole_folder(out) as aside:
        assert aside == out.with_name(".out.partial")
        fill(aside)
        assert not out.exists()
    assert contents(out) == FILES
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> None:
        with whole_folder(tmp_path / "out") as aside:
            fill(aside)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert list(tmp_path.iterdir()) == []


def leave_half(out: Path, aside: Path | None) -> None:
    """Be killed in the middle of making a folder."""
    child = os.fork()
    if not child:
        with whole_folder(out, aside) as folder:
            (folder / "deep").mkdir()
            (folder / "stray").write_text("half")
            os._exit(1)
    os.waitpid(child, 0)


def test_what_a_kill_left_is_no_part_of_the_next(tmp_path: Path) -> None:
    for aside in (None, tmp_path / "unfinished"):
        half = aside or tmp_path / ".out.partial"
        leave_half(tmp_path / "out", aside)
        assert (half / "stray").exists()
        with whole_folder(tmp_path / "out", aside, replace=True) as folder:
            assert folder == half
            fill(folder)
        assert contents(tmp_path / "out") == FILES
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", [".out.partial", ".out.old.partial"])
@pytest.mark.parametrize("linked", [False, True])
def test_what_a_stranger_put_under_such_a_name_stays(
    tmp_path: Path, name: str, linked: bool
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere if linked else tmp_path / name).mkdir()
    if linked:
        (tmp_path / name).symlink_to(elsewhere)
        leave_half(tmp_path / "other", elsewhere)
    (tmp_path / name / "precious").write_text("mine")
    for text in ("old", "new"):
        with whole_folder(tmp_path / "out", replace=True) as folder:
            fill(folder, text)
    remove_folder(tmp_path / "out")
    assert (tmp_path / name / "precious").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {name, "elsewhere"}


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path: Path) -> None:
    fill(tmp_path / "out")

    def overwrite() -> None:
        with whole_folder(tmp_path / "out") as aside:
            fill(aside, "another")

    (tmp_path / "out").mkdir(exist_ok=True)
    with pytest.raises(OSError, match="not empty"):
        overwrite()
    assert contents(tmp_path / "out") == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_anywhere_a_replaced_folder_is_old_or_new_or_gone(tmp_path: Path) -> None:
    new = {name: content + "new" for name, content in FILES.items()}

    def replace(folder: Path) -> None:
        with whole_folder(folder / "out", replace=True) as aside:
            fill(aside, "new")

    def prepared(name: str) -> Path:
        (tmp_path / name / "out").mkdir(parents=True)
        fill(tmp_path / name / "out")
        return tmp_path / name

    whole = prepared("whole")
    count = steps_of(lambda: replace(whole), tmp_path / "log")
    seen, unmarked = set(), 0
    for step in range(count):
        folder = prepared(str(step))
        status = audited(lambda: replace(folder), step, tmp_path / "log")  # noqa: B023 - called at once
        assert os.WTERMSIG(status) == signal.SIGKILL
        out = folder / "out"
        seen.add("gone" if not out.exists() else "old" if contents(out) == FILES else "new")
        assert not out.exists() or contents(out) in (FILES, new)
        replace(folder)
        assert contents(out) == new
        left = [path.name for path in folder.iterdir() if ".old." not in path.name]
        unmarked += ".out.partial" in left
        assert set(left) <= {"out", ".out.partial"}
    assert seen == {"old", "gone", "new"}
    assert unmarked <= 1  # between the last two calls


def test_a_removed_folder_is_gone_or_hidden(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    (tmp_path / ".out.old.partial").mkdir()  # empty: nobody's loss
    remove_folder(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_over_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "card.md"
    write_whole(path, "old")

    def write() -> None:
        write_whole(path, "new" * 9999)

    count = steps_of(write, tmp_path / "log")
    for step in range(count):
        write_whole(path, "old")
        audited(write, step, tmp_path / "log")
        assert path.read_text() == "old"
    write()
    assert path.read_text() == "new" * 9999


def test_folders_are_made_with_their_parents_and_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
