"""A batch is full by pictures, by rows or by bytes; rejected samples ride along."""

from typing import Any

import pytest
import torch

import pipeline.clean.line.batch
from pipeline.clean.line.batch import Batch
from pipeline.clean.line.ring import Buffer
from pipeline.clean.prepare import PreparedSample
from pipeline.clean.screen import ScreenedSample

NO_ATTEMPT: Any = None


def sample(index: int, ok: bool = True, image: bytes = b"") -> PreparedSample:
    views = (torch.full((3, 2, 2), index, dtype=torch.uint8),) if ok else ()
    facts: Any = {"index": index, "status": "ok" if ok else "rejected"}
    return PreparedSample(ScreenedSample(facts), views, image)


def test_pictures_move_into_the_buffer_and_keep_their_order() -> None:
    batch = Batch(NO_ATTEMPT, 0, buffer=Buffer(4, pinned=False))
    for index, ok in enumerate([True, False, True]):
        batch.add(sample(index, ok), 100 * index)
    assert [one.screened.facts["index"] for one in batch.samples] == [0, 1, 2]
    assert [one.screened.facts["index"] for one in batch.pictures] == [0, 2]
    assert all(one.views == () for one in batch.samples)
    assert batch.buffer is not None
    (views,) = batch.buffer.first(2)
    assert [int(row.unique()) for row in views] == [0, 2]
    assert (batch.offset, batch.is_full(2), batch.is_full(3)) == (200, True, False)


def test_a_batch_is_bounded_in_rows_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.clean.line.batch, "MAX_BATCH_ROWS", 3)
    monkeypatch.setattr(pipeline.clean.line.batch, "MAX_BATCH_BYTES", 1000)
    rows = Batch(NO_ATTEMPT, 0)
    for index in range(3):
        assert not rows.is_full(9)
        rows.add(sample(index, ok=False), 10)
    assert rows.is_full(9)
    read = Batch(NO_ATTEMPT, 500)
    read.add(sample(0, ok=False), 1500)
    assert not read.is_full(9)
    read.add(sample(1, ok=False), 1501)
    assert read.is_full(9)
    packed = Batch(NO_ATTEMPT, 0, buffer=Buffer(9, pinned=False))
    packed.add(sample(0, image=bytes(1001)), 10)
    assert packed.is_full(9)
    assert packed.size_bytes == 1001
