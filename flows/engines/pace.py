"""How fast a worker works where the recipe leaves it open: by its device, and the CPUs it has."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.clean.prepare import ExecutionConfig

if TYPE_CHECKING:
    import torch

CPU_BATCH = 16
GPU_BATCH = 256
PICTURE_BYTES = 64 << 20  # of a GPU's memory, for a picture in a batch: keys, values, activations
GPU_SHARE = 0.5  # of what is free beside the weights; a batch that is too large is halved
OWN_CPUS = 2  # of a worker's, left to the thread that computes and the one that writes

Choice = int | Literal["auto"]


@dataclass(frozen=True, slots=True)
class Pace:
    """The recipe's keys; none of them changes the output."""

    batch_size: Choice
    decode_threads: Choice
    stall_timeout_s: float

    def on(self, device: "torch.device", cpus: int | None) -> ExecutionConfig:
        """Settle what is open; `cpus` None: all that this process may use."""
        batch, threads = self.batch_size, self.decode_threads
        if batch == "auto":
            batch = batch_size(_free_bytes(device))
        if threads == "auto":
            threads = decode_threads(cpus or len(os.sched_getaffinity(0)))
        return ExecutionConfig(batch, threads, self.stall_timeout_s)


def batch_size(gpu_bytes: int | None) -> int:
    """Choose a batch for a GPU with so much memory free, or for a CPU: a power of two."""
    if gpu_bytes is None:
        return CPU_BATCH
    most = max(1, int(GPU_SHARE * gpu_bytes) // PICTURE_BYTES)
    return int(min(GPU_BATCH, 1 << (most.bit_length() - 1)))


def decode_threads(cpus: int) -> int:
    """Choose how many threads decode."""
    return max(2, cpus - OWN_CPUS)


def assumed_batch(choice: Choice) -> int:
    """Say what a batch is before any worker has started: as this machine would have it."""
    if choice != "auto":
        return choice
    import torch

    return GPU_BATCH if torch.cuda.is_available() else CPU_BATCH


def _free_bytes(device: "torch.device") -> int | None:
    if device.type != "cuda":
        return None
    import torch

    return int(torch.cuda.mem_get_info(device)[0])
