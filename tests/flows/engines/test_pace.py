"""What the recipe leaves open follows the device and the CPUs."""

import os

import pytest
import torch

from flows.engines.pace import Pace, assumed_batch, batch_size, decode_threads
from pipeline.clean.prepare import ExecutionConfig

CPU = torch.device("cpu")
GIB = 1 << 30


def test_what_is_said_stands() -> None:
    assert Pace(7, 3, 60).on(CPU, 16) == ExecutionConfig(7, 3, 60)
    assert assumed_batch(7) == 7


def test_a_cpu_keeps_small_batches_and_two_threads_at_least() -> None:
    assert Pace("auto", "auto", 60).on(CPU, 1) == ExecutionConfig(16, 2, 60)
    assert Pace("auto", "auto", 60).on(CPU, 16) == ExecutionConfig(16, 14, 60)
    own = len(os.sched_getaffinity(0))
    assert Pace("auto", "auto", 60).on(CPU, None).decode_threads == decode_threads(own)


@pytest.mark.parametrize(
    ("free", "pictures"),
    [(None, 16), (79 * GIB, 256), (32 * GIB, 256), (22 * GIB, 128), (6 * GIB, 32), (0, 1)],
)
def test_a_gpu_s_batch_is_bounded_by_its_memory(free: int | None, pictures: int) -> None:
    assert batch_size(free) == pictures
