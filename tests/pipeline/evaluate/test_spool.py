"""Image states of a whole set: all there, and not in memory."""

import psutil
import pytest
import torch

from models.roles.retrieval import EncodedImages
from pipeline.evaluate.spool import StateSpool


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_added_is_there(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    parts = [
        EncodedImages(torch.randn(rows, 5, 7).to(dtype), torch.randn(rows, 3))
        for rows in (2, 1, 3, 1)
    ]
    with StateSpool() as spool:
        for part in parts:
            spool.add(part)
        whole = spool.whole()
    assert whole is not None
    assert whole.states.dtype is dtype
    assert torch.equal(whole.states, torch.cat([part.states for part in parts]))
    assert torch.equal(whole.unit, torch.cat([part.unit for part in parts]))


def test_states_that_lie_apart_in_memory_are_kept_in_order() -> None:
    states = torch.arange(24.0).view(2, 4, 3).transpose(1, 2)
    with StateSpool() as spool:
        spool.add(EncodedImages(states, torch.zeros(2, 1)))
        whole = spool.whole()
    assert whole is not None
    assert torch.equal(whole.states, states)


def test_nothing_is_none() -> None:
    with StateSpool() as spool:
        assert spool.whole() is None


def test_states_take_no_memory() -> None:
    process, states = psutil.Process(), torch.ones(1, 1024, 1024)
    with StateSpool() as spool:
        spool.add(EncodedImages(states, torch.zeros(1, 1)))
        before = process.memory_info().rss
        for _ in range(64):  # 256 MiB
            spool.add(EncodedImages(states, torch.zeros(1, 1)))
        whole = spool.whole()
        assert process.memory_info().rss - before < 64 << 20
    assert whole is not None
    assert whole.states[64].sum() == 1024 * 1024
