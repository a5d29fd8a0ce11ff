"""One of several writers gets a free name on local disk, with and without hard links."""

import ctypes
import errno
import multiprocessing
import os
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from shards.store import Store, creates_once


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
    assert not creates_once(store)
    assert store.create("a", b"1")
    assert not store.create("a", b"2")
    assert store.read("a") == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_probe_needs_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse)
    assert creates_once(Store(str(tmp_path / "new")))
    assert list((tmp_path / "new").iterdir()) == []


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
