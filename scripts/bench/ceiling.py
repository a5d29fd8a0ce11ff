"""The most that this machine computes: a matrix product of the vision tower's own shape."""

import time

import torch

from models.blip.config import TORCH_DTYPES, Dtype

ROWS_CPU, ROWS_GPU = 4 * 577, 256 * 577  # image states of a batch at 384 px
WIDTH, WIDER = 768, 3072


def ceiling(device: torch.device, dtype: Dtype, rounds: int = 3) -> float:
    """Return GFLOP/s of the fastest of some rounds: what is in the way only makes it slower."""
    rows = ROWS_GPU if device.type == "cuda" else ROWS_CPU
    left = torch.randn(rows, WIDTH, device=device, dtype=TORCH_DTYPES[dtype])
    right = torch.randn(WIDTH, WIDER, device=device, dtype=TORCH_DTYPES[dtype])
    best_s = min(_seconds(left, right) for _ in range(1 + rounds))
    return 2 * rows * WIDTH * WIDER / best_s / 1e9


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    repeats = 10 if left.is_cuda else 1
    wait(left.device)
    begin = time.perf_counter()
    for _ in range(repeats):
        left @ right
    wait(left.device)
    return (time.perf_counter() - begin) / repeats


def wait(device: torch.device) -> None:
    """Wait for what a device has been given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
