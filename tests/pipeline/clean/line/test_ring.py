"""Buffers go round and keep their memory; what waits is bounded."""

import threading
from pathlib import Path

import pytest
import torch

import pipeline.clean.line.ring
from pipeline.clean.line.ring import BUFFERS, Buffer, Ring, Room

TASKS = Path("/proc/self/task")


def view(value: int) -> torch.Tensor:
    return torch.full((3, 4, 5), value, dtype=torch.uint8)


def test_views_stand_in_their_rows_and_the_memory_is_kept() -> None:
    buffer = Buffer(3, pinned=False)
    buffer.put(0, [view(1), view(2)])
    buffer.put(1, [view(3), view(4)])
    one, two = buffer.first(2)
    assert [row.unique().tolist() for row in one] == [[1], [3]]
    assert [row.unique().tolist() for row in two] == [[2], [4]]
    buffer.put(0, [view(5), view(6)])
    assert one[0].unique().tolist() == [5], "the same memory is filled again"
    assert one.is_contiguous()


def test_nothing_is_held_before_the_first_picture() -> None:
    assert Buffer(3, pinned=False).first(0) == ()


def test_a_ring_waits_for_a_buffer() -> None:
    ring = Ring(2)
    taken = [ring.take() for _ in range(BUFFERS)]
    assert len(set(map(id, taken))) == BUFFERS
    got: list[Buffer] = []
    thread = threading.Thread(target=lambda: got.append(ring.take()), daemon=True)
    thread.start()
    thread.join(0.05)
    assert got == []
    ring.give(taken[1])
    thread.join(10)
    assert got == [taken[1]]


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [([4], 6, True), ([4], 7, False), ([0, 0], 0, False), ([], 99, True)],
)
def test_room_is_bounded(
    monkeypatch: pytest.MonkeyPatch, first: list[int], second: int, fits: bool
) -> None:
    monkeypatch.setattr(pipeline.clean.line.ring, "MAX_WAITING_BYTES", 10)
    monkeypatch.setattr(pipeline.clean.line.ring, "MAX_WAITING_BATCHES", 2)
    room = Room()
    for size in first:
        room.take(size)
    thread = threading.Thread(target=room.take, args=(second,), daemon=True)
    thread.start()
    thread.join(10 if fits else 0.05)
    assert thread.is_alive() is not fits
    for size in first:
        room.give(size)
    thread.join(10)
    assert not thread.is_alive()


def test_a_copy_opens_no_team_of_threads() -> None:
    picture = torch.zeros(3, 384, 384, dtype=torch.uint8)
    threads, counts = torch.get_num_threads(), list[int]()

    def put() -> None:
        torch.set_num_threads(2)
        counts.append(len(list(TASKS.iterdir())))
        Buffer(1, pinned=False).put(0, [picture])
        counts.append(len(list(TASKS.iterdir())))

    thread = threading.Thread(target=put)
    thread.start()
    thread.join()
    torch.set_num_threads(threads)
    assert counts[0] == counts[1]
