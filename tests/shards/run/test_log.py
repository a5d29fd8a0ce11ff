"""A run's own log: every line at once, within bounds, and never in the way of the work."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shards.run import log
from shards.run.log import FOLDER, KEPT_FILES, LogFile, new_name, remove_old
from shards.store import Store
from tests.support.driving import wait_until

DAY_S = 24 * 3600


def no_failure(error: Exception) -> None:
    raise AssertionError(error)


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


class Slow(Store):
    """An object store that keeps what it is given, and may be down, or answer nothing."""

    def __init__(self) -> None:
        super().__init__(f"memory://{uuid.uuid4().hex}/run")
        self.puts: list[float] = []
        self.is_down, self.answers = False, threading.Event()
        self.answers.set()

    def put(self, name: str, data: bytes) -> None:
        self.puts.append(time.monotonic())
        self.answers.wait()
        if self.is_down:
            raise PermissionError("403 Forbidden")
        super().put(name, data)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an object store be given a log after tenths of a second, not tens of seconds."""
    monkeypatch.setattr(log, "PUT_EVERY_S", 1.0)
    monkeypatch.setattr(log, "PUT_SOON_S", 0.3)
    monkeypatch.setattr(log, "CLOSE_WITHIN_S", 0.5)


def read(store: Store, name: str) -> bytes:
    return store.read(name) if store.exists(name) else b""


def test_a_local_line_is_there_as_soon_as_it_is_said(local: Store) -> None:
    file = LogFile(local, new_name(), no_failure)
    assert local.list() == []
    for number in range(3):
        file.append(b"%d\n" % number)
        assert local.read(file.name).splitlines()[-1] == b"%d" % number
    file.close()
    file.append(b"again\n")
    assert local.read(file.name) == b"0\n1\n2\nagain\n"


KILLED = """
import os, signal, sys
from shards.run.log import LogFile
from shards.store import Store
file = LogFile(Store(sys.argv[1]), sys.argv[2], print)
for number in range(1000):
    file.append(b"%d\\n" % number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_no_local_line(local: Store) -> None:
    name = new_name()
    ended = subprocess.run([sys.executable, "-c", KILLED, local.url(), name])
    assert ended.returncode == -signal.SIGKILL
    assert local.read(name).split() == [b"%d" % number for number in range(1000)]


def test_a_full_log_takes_warnings_then_only_the_end(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MOST_BYTES", 100)
    monkeypatch.setattr(log, "MOST_WITH_WARNINGS_BYTES", 140)
    file = LogFile(local, new_name(), no_failure)
    for _ in range(20):
        file.append(b"i" * 9 + b"\n")
    for _ in range(20):
        file.append(b"w" * 9 + b"\n", soon=True)
    file.append(b"the end\n", soon=True, last=True)
    assert local.read(file.name).split() == [b"i" * 9] * 10 + [b"w" * 9] * 4 + [b"the", b"end"]
    assert file.dropped == 10 + 16


@pytest.fixture
def most_bytes() -> Iterator[Callable[[int], None]]:
    """Let this process write no file longer than so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_has_no_room_is_counted_and_leaves_no_half_line(
    local: Store, most_bytes: Callable[[int], None]
) -> None:
    failures: list[Exception] = []
    file = LogFile(local, new_name(), failures.append)
    most_bytes(100)
    for line in (b"a" * 59 + b"\n", b"b" * 59 + b"\n", b"c" * 29 + b"\n"):
        file.append(line)
    assert local.read(file.name) == b"a" * 59 + b"\n" + b"c" * 29 + b"\n"
    assert (file.lost, len(failures)) == (1, 1)


def test_a_folder_that_cannot_be_made_fails_each_line_and_no_more(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file in the folder's place")
    failures: list[Exception] = []
    file = LogFile(Store(str(tmp_path)), new_name(), failures.append)
    file.append(b"one\n")
    file.append(b"two\n")
    file.close()
    assert (file.lost, [type(error) for error in failures]) == (2, [FileExistsError] * 2)


@pytest.mark.usefixtures("quick")
def test_an_object_store_is_given_all_lines_now_and_then() -> None:
    store = Slow()
    file = LogFile(store, new_name(), no_failure)
    file.append(b"0\n")
    wait_until(lambda: read(store, file.name) == b"0\n", 5)
    begun = time.monotonic()
    for number in range(1, 5):
        file.append(b"%d\n" % number)
    time.sleep(0.6)
    assert read(store, file.name) == b"0\n"
    wait_until(lambda: read(store, file.name) == b"0\n1\n2\n3\n4\n", 5)
    assert time.monotonic() - begun >= 0.9
    file.append(b"calm\n")
    file.append(b"warning\n", soon=True)
    begun = time.monotonic()
    wait_until(lambda: read(store, file.name).endswith(b"warning\n"), 5)
    assert 0.2 < time.monotonic() - begun < 0.9
    file.append(b"end\n")
    file.close()
    assert read(store, file.name).endswith(b"calm\nwarning\nend\n")
    file.append(b"after\n")
    file.close()
    assert read(store, file.name).startswith(b"0\n1\n")
    assert read(store, file.name).endswith(b"end\nafter\n")
    assert len(store.puts) <= 5
    assert [thread for thread in threading.enumerate() if thread.name == "log"] == []


@pytest.mark.usefixtures("quick")
def test_a_store_that_is_down_is_given_all_lines_once_it_is_up() -> None:
    store, failures = Slow(), list[Exception]()
    store.is_down = True
    file = LogFile(store, new_name(), failures.append)
    file.append(b"0\n")
    wait_until(lambda: bool(failures), 5)
    store.is_down = False
    file.append(b"1\n")
    wait_until(lambda: read(store, file.name) == b"0\n1\n", 5)
    assert len(failures) == 1
    store.is_down = True
    file.append(b"2\n")
    file.close()
    assert len(failures) == 2


@pytest.mark.usefixtures("quick")
def test_a_store_that_does_not_answer_is_not_waited_for() -> None:
    store = Slow()
    store.answers.clear()
    begun = time.monotonic()
    file = LogFile(store, new_name(), no_failure)
    for _ in range(100):
        file.append(b"line\n", soon=True)
    assert time.monotonic() - begun < 0.2
    file.close()
    assert time.monotonic() - begun < 1.5
    store.answers.set()
    wait_until(lambda: read(store, file.name) == b"line\n" * 100, 5)


def test_the_newest_logs_stay_and_older_ones_for_a_day(local: Store) -> None:
    def name(number: int) -> str:
        return f"{FOLDER}/2026-01-01T00-00-{number:02}Z-{number:08x}.jsonl"

    others = ["logs/notes.txt", "logs/2026-01-01.jsonl", "data/texts/a.parquet"]
    for place in [*map(name, range(60)), *others]:
        local.put(place, json.dumps(place).encode())
        stamp = time.time() - 2 * DAY_S
        os.utime(local.path(place), (stamp, stamp))
    os.utime(local.path(name(4)))  # which somebody writes to
    remove_old(local)
    stay = {4, *range(60 - KEPT_FILES, 60)}
    assert local.list() == sorted([*map(name, stay), *others])


def test_names_sort_by_time_and_are_known_again(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "KEPT_FILES", 1)
    monkeypatch.setattr(log, "KEPT_S", 0)
    first = new_name()
    time.sleep(1.1)
    second = new_name()
    for place in (second, first):
        local.put(place, b"line\n")
    remove_old(local)
    assert local.list() == [second]


def test_where_there_are_no_logs_none_are_removed(local: Store) -> None:
    remove_old(local)
    assert local.list() == []
