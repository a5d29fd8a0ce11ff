"""What a killed process leaves among the temporary files is removed, and nothing else is."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shards.files.scratch import remove_abandoned, remove_held, scratch_folder

HOLDS = """
import os, sys, time
from shards.files.scratch import scratch_folder
with scratch_folder("test") as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("x")
    if sys.argv[1] == "fork" and not os.fork():
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(60)
        os._exit(0)
    os.write(1, os.fsencode(folder) + b"\\n")
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@contextmanager
def holder(how: str = "alone") -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", HOLDS, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process
        process.kill()


def test_a_folder_is_empty_and_goes_at_the_end(temporary: Path) -> None:
    with scratch_folder("one") as first, scratch_folder("one") as second:
        assert first != second
        assert list(first.iterdir()) == list(second.iterdir()) == []
        assert first.parent.parent == temporary
        assert first.parent.name.startswith("capfilt-one-")
        assert first.parent.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(temporary: Path) -> None:
    with holder() as killed, holder() as living:
        left, used = (Path(process.stdout.readline().strip()) for process in (killed, living))  # type: ignore[union-attr]
        remove_abandoned()
        assert (left / "deep" / "file").exists()
        killed.kill()
        killed.wait()
        with scratch_folder("next"):
            assert not left.parent.exists()
            assert (used / "deep" / "file").exists()
    remove_abandoned()
    assert list(temporary.iterdir()) == []


def test_a_fork_that_outlives_its_parent_holds_the_folder(temporary: Path) -> None:
    with holder("fork") as parent:
        assert parent.stdout is not None
        lines = [parent.stdout.readline().strip() for _ in range(2)]
        (child,) = (int(line) for line in lines if line.isdecimal())
        (folder,) = (Path(line) for line in lines if not line.isdecimal())
        parent.kill()
        parent.wait()
        remove_abandoned()
        assert folder.exists()
        os.kill(child, signal.SIGKILL)
        while folder.exists():  # until the kernel has let go
            remove_abandoned()
    assert list(temporary.iterdir()) == []


def test_a_fork_that_ends_takes_nothing_along() -> None:
    with scratch_folder("one") as folder:
        child = os.fork()
        if not child:
            try:
                raise SystemExit
            finally:
                remove_abandoned()
                os._exit(0)
        os.waitpid(child, 0)
        assert folder.exists()


def test_who_leaves_at_once_removes_what_it_holds_and_a_fork_does_not(temporary: Path) -> None:
    with scratch_folder("one") as first, scratch_folder("two") as second:
        child = os.fork()
        if not child:
            remove_held()
            os._exit(0)
        os.waitpid(child, 0)
        assert first.exists()
        assert second.exists()
        remove_held()
        assert list(temporary.iterdir()) == []


def test_what_is_not_known_as_ours_stays(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    for folder in (elsewhere, temporary / "capfilt-mine", temporary / "capfilt-linked-owner"):
        folder.mkdir()
        (folder / "precious").write_text("mine")
    (elsewhere / "owner").touch()
    for name, owner in (("capfilt-results", ""), ("capfilt-book", "a name")):
        (temporary / name / "content").mkdir(parents=True)
        (temporary / name / "owner").write_text(owner)
    (temporary / "capfilt-results" / "precious").write_text("mine")
    (temporary / "capfilt-link").symlink_to(elsewhere)
    (temporary / "capfilt-linked-owner" / "owner").symlink_to(elsewhere / "owner")
    (temporary / "capfilt-file").write_text("mine")
    (temporary / "other-x").mkdir()
    (temporary / "other-x" / "owner").touch()
    before = sorted(temporary.rglob("*"))
    remove_abandoned()
    assert sorted(temporary.rglob("*")) == before


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a folder away")
@pytest.mark.parametrize("whose", ["folder", "owner"])
def test_another_users_folder_stays(temporary: Path, whose: str) -> None:
    folder = temporary / "capfilt-theirs-x"
    folder.mkdir()
    (folder / "owner").touch()
    os.chown(folder if whose == "folder" else folder / "owner", 12345, 12345)
    remove_abandoned()
    assert (folder / "owner").exists()


def _comes_and_goes(count: int) -> None:
    for _ in range(count):
        with scratch_folder("race") as folder:
            (folder / "x").write_text("x")
            assert (folder / "x").read_text() == "x"


def test_many_that_come_and_go_leave_each_other_alone(temporary: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_comes_and_goes, args=(150,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert list(temporary.iterdir()) == []
