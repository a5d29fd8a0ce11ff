"""A folder is held by one process, as long as that lives, and no longer."""

import errno
import fcntl
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.lock import LOCK, FolderInUse, lock_folder

HOLD = """
import subprocess, sys, time
from pathlib import Path
from flows.lock import lock_folder

with lock_folder(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> "Iterator[subprocess.Popen[str]]":
    """Another process, which holds the folder and has a child."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        yield process
        process.kill()
        subprocess.run(["kill", "-9", str(child)], check=True)  # it was alive all the time


def test_a_folder_that_is_held_is_refused_and_its_holder_named(
    tmp_path: Path, other: "subprocess.Popen[str]"
) -> None:
    named = rf"{tmp_path} is in use by process {other.pid} on {platform.node()}; wait"
    for _ in range(2):
        with pytest.raises(FolderInUse, match=named), lock_folder(tmp_path):
            pass
    with lock_folder(tmp_path / "below"):
        pass


def test_a_killed_holder_holds_nothing_whatever_its_children_do(
    tmp_path: Path, other: "subprocess.Popen[str]"
) -> None:
    other.kill()
    other.wait()
    with lock_folder(tmp_path), pytest.raises(FolderInUse), lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):
        pass


def test_a_holder_that_has_not_said_who_it_is(tmp_path: Path) -> None:
    for content in ("", "{", "[]", '{"pid": 3}'):
        with lock_folder(tmp_path):
            (tmp_path / LOCK).write_text(content)
            with (
                pytest.raises(FolderInUse, match="in use by another process"),
                lock_folder(tmp_path),
            ):
                pass


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(_file: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_folder(tmp_path):
        (tmp_path / "work").touch()
    (warning,) = caplog.messages
    assert warning.startswith(f"{tmp_path} cannot be locked (No locks available)")
