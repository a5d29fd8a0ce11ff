"""The most that this machine computes: a matrix product of the vision tower's own shape.

On a CPU by torch's own product, or with a packed weight, whichever is faster there.
"""

import time
from collections.abc import Callable

import torch

from models.blip.config import TORCH_DTYPES, Dtype
from models.blip.products.packed import PackedLinear, can_pack

ROWS_CPU, ROWS_GPU = 4 * 577, 256 * 577  # image states of a batch at 384 px
WIDTH, WIDER = 768, 3072

Product = Callable[[], torch.Tensor]


@torch.inference_mode()
def ceiling(device: torch.device, dtype: Dtype, rounds: int = 3) -> float:
    """Return GFLOP/s of the fastest of some rounds: what is in the way only makes it slower."""
    rows = ROWS_GPU if device.type == "cuda" else ROWS_CPU
    left = torch.randn(rows, WIDTH, device=device, dtype=TORCH_DTYPES[dtype])
    right = torch.randn(WIDTH, WIDER, device=device, dtype=TORCH_DTYPES[dtype])
    products: list[Product] = [lambda: left @ right]
    if can_pack(right.T):
        packed = PackedLinear(right.T.contiguous(), right.new_zeros(WIDER))
        products.append(lambda: packed(left))
    best_s = min(_seconds(product, device) for product in products for _ in range(1 + rounds))
    return 2 * rows * WIDTH * WIDER / best_s / 1e9


def _seconds(product: Product, device: torch.device) -> float:
    repeats = 10 if device.type == "cuda" else 1
    wait(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        product()
    wait(device)
    return (time.perf_counter() - begin) / repeats


def wait(device: torch.device) -> None:
    """Wait for what a device has been given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
