"""Work ahead: in order, bounded in number and in bytes, and over when nobody takes any more."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from pipeline.media import ahead as module
from pipeline.media.ahead import Stalled, load_batches, read_ahead


def test_results_stand_with_their_items_in_order() -> None:
    def work(n: int) -> int:
        time.sleep(0.002 * (n % 3))
        return n * n

    assert list(read_ahead(range(40), work, lambda _: 1, 5)) == [(n, n * n) for n in range(40)]
    assert list(read_ahead([], work, lambda _: 1, 5)) == []
    assert list(read_ahead([3], work, lambda _: 1, 0)) == [(3, 9)]


def test_as_many_wait_as_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 100)
    for size_bytes, most in ((1, 6), (30, 4), (1000, 1)):
        drawn: list[int] = []

        def items(drawn: list[int] = drawn) -> Iterator[int]:
            for n in range(20):
                drawn.append(n)
                yield n

        sizes = dict.fromkeys(range(20), size_bytes)
        for taken, (item, _) in enumerate(read_ahead(items(), lambda n: n, sizes.__getitem__, 5)):
            assert item == taken
            assert len(drawn) - taken <= most


def test_work_goes_on_while_a_result_is_used() -> None:
    begun = threading.Semaphore(0)

    def work(n: int) -> int:
        begun.release()
        return n

    results = read_ahead(range(10), work, lambda _: 1, 4)
    assert next(results) == (0, 0)
    for _ in range(5):  # the first, and four that nobody has asked for
        assert begun.acquire(timeout=10)


def test_an_error_is_raised_in_its_turn() -> None:
    def work(n: int) -> int:
        if n == 3:
            raise MemoryError("too large")
        return n

    results = read_ahead(range(10), work, lambda _: 1, 8)
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(MemoryError, match="too large"):
        next(results)


def threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith("read_ahead")}


def test_whoever_stops_early_leaves_no_thread() -> None:
    before = threads()  # those that other tests left behind
    results = read_ahead(range(1000), lambda n: n, lambda _: 1, 50)
    next(results)
    assert threads() - before
    results.close()
    assert threads() <= before


def test_as_many_threads_work_as_were_asked_for() -> None:
    together = threading.Barrier(3)  # broken unless three come
    results = read_ahead(range(9), lambda _: together.wait(20), lambda _: 1, 9, threads=3)
    assert len(list(results)) == 9


def test_work_that_does_not_end_is_left_and_named() -> None:
    """Those before it come first; nobody waits for its thread, which ends when its work does."""
    gate, before = threading.Event(), threads()

    def work(n: int) -> int:
        assert n != 2 or gate.wait(60)
        return n

    results = read_ahead(range(9), work, lambda _: 1, 4, threads=2, timeout_s=0.2)
    assert [next(results)[0] for _ in range(2)] == [0, 1]
    began = time.monotonic()
    with pytest.raises(Stalled) as stalled:
        next(results)
    assert stalled.value.item == 2
    assert time.monotonic() - began < 20
    gate.set()
    end = time.monotonic() + 20
    while threads() - before and time.monotonic() < end:
        time.sleep(0.01)
    assert threads() <= before


def test_who_leaves_waits_for_no_work_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt in the taker's own code closes the generator, whatever hangs in a thread."""
    monkeypatch.setattr(module, "LEAVE_S", 0.2)
    gate = threading.Event()
    results = read_ahead(range(9), lambda n: n == 0 or gate.wait(60), lambda _: 1, 4, timeout_s=60)
    next(results)
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 20
    gate.set()


def test_a_timeout_of_the_work_itself_is_no_stall() -> None:
    def work(_: int) -> int:
        raise TimeoutError("the store does not answer")

    with pytest.raises(TimeoutError, match="the store"):
        next(read_ahead([1], work, lambda _: 1, 4, timeout_s=60))


def test_what_comes_to_a_reason_is_counted_and_batches_are_full() -> None:
    left_out: Counter[str] = Counter()
    batches = load_batches(range(11), lambda n: "odd" if n % 2 else -n, 4, left_out)
    assert list(batches) == [([0, 2, 4, 6], [0, -2, -4, -6]), ([8, 10], [-8, -10])]
    assert left_out == {"odd": 5}


def test_threads_that_cannot_be_limited_work_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # whose import fails
    assert [square for _, square in read_ahead(range(3), lambda n: n * n, lambda _: 1, 2)] == [
        0,
        1,
        4,
    ]
    assert "may open others of OpenMP" in caplog.text


def test_each_thread_computes_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)  # that new threads would open for themselves
    try:
        taken = read_ahead(range(4), lambda _: torch.get_num_threads(), lambda _: 1, 4, threads=2)
        assert [threads for _, threads in taken] == [1] * 4
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
