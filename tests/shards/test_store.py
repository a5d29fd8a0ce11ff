"""Files appear whole, under names below the root, once."""

import ctypes
import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from shards.store import Store


def test_write_read_list_delete(any_url: str) -> None:
    store = Store(any_url)
    assert store.list() == []
    store.put("b/two.json", b"2")
    store.put("one.json", b"1")
    store.put("one.json", b"1!")
    assert store.list() == ["b/two.json", "one.json"]
    assert store.list("b") == ["b/two.json"]
    assert store.list("none") == []
    assert store.read("one.json") == b"1!"
    assert store.size_bytes("one.json") == 2
    assert store.read_many(["one.json", "gone", "b/two.json"]) == {
        "one.json": b"1!",
        "b/two.json": b"2",
    }
    assert store.read_many(["one.json"]) == {"one.json": b"1!"}
    store.delete("one.json")
    store.delete("one.json")
    assert not store.exists("one.json")
    with pytest.raises(FileNotFoundError):
        store.read("one.json")


def test_create_only_if_absent(any_url: str) -> None:
    store = Store(any_url)
    assert store.create("commits/a.json", b"first")
    assert not store.create("commits/a.json", b"second")
    assert store.read("commits/a.json") == b"first"
    assert store.list() == ["commits/a.json"]


def test_publish(any_url: str, tmp_path: Path) -> None:
    store = Store(any_url)
    with store.staging(tmp_path) as folder:
        (folder / "x").write_bytes(b"data")
        assert store.list() == []
        store.publish(folder / "x", "data/x-1.bin")
    assert store.read("data/x-1.bin") == b"data"
    assert store.list() == ["data/x-1.bin"]
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//b", "", ".", "a/./b"])
def test_names_that_leave_the_root_are_refused(any_url: str, name: str) -> None:
    store = Store(any_url)
    for write in (store.put, store.create):
        with pytest.raises(ValueError, match="plain name"):
            write(name, b"x")


def test_urls_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store("run").url("a/b") == str(tmp_path / "run/a/b")
    assert Store("memory://r/run").url("a").startswith("memory://")


def race(url: str, barrier: Barrier, results: Any, number: int) -> None:
    store = Store(url)
    for turn in range(50):
        barrier.wait()
        if store.create(f"commits/{turn}.json", b"%d" % number * 1000):
            results.put((turn, number))


@pytest.mark.parametrize("without_link", [False, True])
def test_one_of_two_processes_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_link: bool
) -> None:
    if without_link:  # as on file systems without hard links; forked children see it too
        monkeypatch.setattr(os, "link", refuse)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    racers = [
        context.Process(target=race, args=(str(tmp_path), barrier, results, number))
        for number in range(2)
    ]
    for racer in racers:
        racer.start()
    won = [results.get(timeout=60) for _ in range(50)]
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    assert sorted(turn for turn, _ in won) == list(range(50))
    assert results.empty()
    store = Store(str(tmp_path))
    for turn, number in won:
        assert store.read(f"commits/{turn}.json") == b"%d" % number * 1000
    assert len(store.list()) == len(list((tmp_path / "commits").iterdir())) == 50


def refuse(*_: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


@pytest.mark.parametrize("known", [True, False])
def test_last_resort_keeps_an_existing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    class OldLibrary:
        def renameat2(self, *_: object) -> int:
            ctypes.set_errno(errno.ENOSYS)
            return -1

    class NoSuchCall:
        pass

    monkeypatch.setattr(os, "link", refuse)
    library = OldLibrary if known else NoSuchCall
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library())
    store = Store(str(tmp_path))
    assert not store.creates_once()
    assert store.create("a", b"1")
    assert not store.create("a", b"2")
    assert store.read("a") == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_probe_finds_a_store_that_creates_once(any_url: str) -> None:
    store = Store(any_url)
    assert store.creates_once()
    assert [file for file in store.survey() if not file.is_folder] == []


def test_the_probe_needs_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse)
    assert Store(str(tmp_path / "new")).creates_once()
    assert list((tmp_path / "new").iterdir()) == []


class LooksThenWrites(MemoryFileSystem):
    """A store with nothing but fsspec's own "create", like SFTP: two at once may both write."""

    protocol = "looksthenwrites"
    pipe_file = fsspec.AbstractFileSystem.pipe_file


class IgnoresCreate(MemoryFileSystem):
    """A store that takes the option and does not heed it."""

    protocol = "ignorescreate"

    def pipe_file(self, path: str, value: bytes, **_: object) -> None:
        super().pipe_file(path, value, mode="overwrite")


class KnowsNoCreate(MemoryFileSystem):
    """A store of an older fsspec, without the option."""

    protocol = "knowsnocreate"

    def pipe_file(self, path: str, value: bytes) -> None:
        super().pipe_file(path, value, mode="overwrite")


@pytest.mark.parametrize("kind", [LooksThenWrites, IgnoresCreate, KnowsNoCreate])
def test_the_probe_finds_out_stores_that_do_not(kind: type[MemoryFileSystem]) -> None:
    fsspec.register_implementation(kind.protocol, kind, clobber=True)
    store = Store(f"{kind.protocol}://{kind.__name__}")
    assert not store.creates_once()
    assert store.survey() == ()
    assert store.create("a", b"1")
    assert not store.create("a", b"2"), "one that comes later does see the first"
    assert store.read("a") == b"1"


def test_a_link_whose_answer_was_lost_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def twice(old: Path, new: Path) -> None:
        link(old, new)
        link(old, new)  # as NFS sends it again

    monkeypatch.setattr(os, "link", twice)
    store = Store(str(tmp_path))
    assert store.create("a", b"ours")
    assert not store.create("a", b"theirs")
    assert store.read("a") == b"ours"
    assert store.list() == ["a"]


def test_a_survey_shows_all_there_is(any_url: str, tmp_path: Path) -> None:
    store, before_s = Store(any_url), time.time() - 2
    store.put("b/two.bin", b"22")
    with store.staging(tmp_path) as folder:
        (folder / "half").write_bytes(b"abc")
        found = {file.name: file for file in store.survey()}
    staged = folder.name
    expected = {"b/two.bin": (2, None)}
    if store.is_local:
        expected |= {"b": (0, None), staged: (0, staged), f"{staged}/half": (3, staged)}
    assert {name: (file.size_bytes, file.temporary) for name, file in found.items()} == expected
    assert {name for name, file in found.items() if file.is_folder} == expected.keys() & {
        "b",
        staged,
    }
    for file in found.values():
        assert before_s < (file.modified_s or 0) < time.time() + 2


KILLED = """
import sys
from shards.store import Store
store = Store(sys.argv[1])
number = 0
while True:
    number += 1
    data = b"%08d" % number * 20_000
    store.create(f"create/{number}", data)
    store.put("put/one", data)
    with store.staging() as folder:
        (folder / "x").write_bytes(data)
        store.publish(folder / "x", f"publish/{number}")
    if number == 1:
        print("ready", flush=True)
"""


def test_a_killed_writer_leaves_whole_files_only(tmp_path: Path) -> None:
    for turn in range(8):
        root = tmp_path / str(turn)
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + 0.017 * turn)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = Store(str(root))
        names = store.list()
        assert names
        for name in names:
            data = store.read(name)
            assert len(data) == 160_000
            assert data == data[:8] * 20_000


def test_a_failed_write_surfaces_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    store = Store(str(tmp_path))
    try:
        for write in (store.create, store.put):
            with pytest.raises(OSError, match="File too large"):
                write("a/b", b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
