"""Batches on their way to the device: where that is a CPU, they are there already."""

from typing import Any

import pytest
import torch

from pipeline.clean.line.batch import Batch
from pipeline.clean.line.ring import Buffer
from pipeline.clean.line.upload import Upload
from pipeline.clean.prepare import PreparedSample
from pipeline.clean.screen import ScreenedSample

NO_ATTEMPT: Any = None


def batch_of(values: range, pinned: bool) -> Batch:
    batch = Batch(NO_ATTEMPT, 0, buffer=Buffer(8, pinned))
    for value in values:
        view = torch.full((3, 32, 32), value, dtype=torch.uint8)
        facts: Any = {"status": "ok"}
        batch.add(PreparedSample(ScreenedSample(facts), (view,)), 0)
    return batch


def test_a_cpu_reads_the_buffer_itself() -> None:
    upload, batch = Upload(), batch_of(range(3), pinned=False)
    upload.begin(batch)
    (views,) = upload.take(batch)
    assert batch.buffer is not None
    assert views.data_ptr() == batch.buffer.first(1)[0].data_ptr()
    assert [int(row.unique()) for row in views] == [0, 1, 2]
    upload.forget(batch)


@pytest.mark.gpu
def test_a_gpu_gets_a_copy_ahead() -> None:
    upload = Upload(torch.device("cuda"))
    one, two = batch_of(range(4), pinned=True), batch_of(range(4, 8), pinned=True)
    for batch in (one, two):
        upload.begin(batch)
    for batch, expected in ((one, [0, 1, 2, 3]), (two, [4, 5, 6, 7])):
        (views,) = upload.take(batch)
        assert views.is_cuda
        found = views.float().amax((1, 2, 3)).int()
        upload.forget(batch)
        assert found.tolist() == expected
