"""A child process: what it gets, how long it may take, and how its end is told."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.media.child import Child, ChildDied, ChildHung, GuardError, Watchdog

COMMAND = ("pipeline.media.guard", "60")  # which waits for a task, once it has said that it runs


@pytest.fixture
def child() -> Iterator[Child]:
    started = Child(*COMMAND)
    yield started
    started.kill()


def process() -> psutil.Process:
    (running,) = psutil.Process().children()
    return running


def test_one_that_is_late_is_killed(child: Child) -> None:
    running = process()
    with pytest.raises(ChildHung), child.within(0.2):
        child.receive()  # nobody asked it for anything
    assert child.death() == "was killed by SIGKILL"
    assert not running.is_running()


def test_time_that_is_over_counts_no_more(child: Child) -> None:
    with child.within(0.2):
        pass
    with pytest.raises(psutil.TimeoutExpired):
        process().wait(0.5)


def test_one_that_died_is_told_from_one_that_is_late(child: Child) -> None:
    process().kill()
    with pytest.raises(ChildDied), child.within(60):
        child.receive()
    with pytest.raises(ChildDied):
        child.send(b"again")


def test_a_message_that_is_too_long_is_not_read(child: Child) -> None:
    child.send(b'{"min_side": 8, "max_pixels": 100, "max_aspect": 10}')
    child.send(b"no picture")
    with pytest.raises(ChildDied):
        child.receive(most_bytes=10)  # a refusal is longer


def test_credentials_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with Watchdog(*COMMAND) as watchdog:
        watchdog.child()
        assert "AWS_SECRET_ACCESS_KEY" not in process().environ()


def test_one_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(GuardError, match="left with code 7"):
        Child(*COMMAND)
    assert psutil.Process().children() == []


def test_a_watchdog_has_one_child_at_a_time() -> None:
    with Watchdog(*COMMAND) as watchdog:
        assert psutil.Process().children() == []  # none before one is asked for
        first = watchdog.child()
        assert watchdog.child() is first
        before = process().pid
        watchdog.end()
        assert psutil.Process().children() == []
        assert watchdog.child() is not first
        assert process().pid != before
    assert psutil.Process().children() == []
