"""Resident memory does not grow with the number of shards."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from tests.support.driving import CAPFILT, Models

Flags = Callable[[Models, Path, Path], list[str]]


def peak_bytes(command: list[str]) -> int:
    """Run a command; give the most memory that it had resident."""
    process = subprocess.Popen(
        [CAPFILT, *command, "--engine=local", "--direct"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return usage.ru_maxrss * 1024


@pytest.mark.nightly
def test_ten_and_a_hundred_shards_take_the_same_memory(
    tmp_path: Path, flags: Flags, toy_models: Models
) -> None:
    peaks = []
    for shards in (10, 100):
        folder = tmp_path / f"in{shards}"
        write_toy_world(folder, ToyWorldConfig(samples=20 * shards, samples_per_shard=20))
        peaks.append(peak_bytes(flags(toy_models, folder, tmp_path / f"run{shards}")))
    few, many = peaks
    # the promise is 10%; a leak of nothing but the resized pictures would be 7%
    assert abs(many - few) < 0.05 * few, f"{few >> 20} and {many >> 20} MiB"
