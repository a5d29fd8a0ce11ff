"""Stage `ceilings`: the most that this machine computes, copies and decodes."""

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from models.blip.preprocess import Preprocess
from scripts.bench.ceiling import ceiling, wait
from scripts.bench.gpu.runner import Case, Facts
from scripts.bench.gpu.setting import Setting
from scripts.bench.inputs import made_up_pairs

REPEATS = 10


def cases(setting: Setting) -> Iterator[Case]:
    """Measure products, attention, copies, and pictures."""
    device = setting.device
    yield Case("gemm of the vision tower, bf16", partial(tower, device, "bf16"))
    yield Case("gemm of the vision tower, fp32", partial(tower, device, "fp32"))
    yield Case("gemm 8192^3, bf16", partial(square, device, setting.pick(8_192, 128)))
    yield Case("attention, bf16", partial(attention, device, setting.pick(256, 1)))
    for pinned in (False, True):
        name = f"copy to the device, {'pinned' if pinned else 'pageable'}"
        yield Case(name, partial(copy, device, pinned, setting.pick(256, 1)))
    for threads in setting.pick((1, 4, 8, 14, 16), (1, 2)):
        name = f"decode and resize, {threads} threads"
        yield Case(name, partial(decode, threads, setting.pick(800, 8), setting.px))


def tower(device: torch.device, dtype: str) -> Facts:
    """Measure the product that MFU is counted by."""
    return {"tflops": ceiling(device, dtype) / 1e3}  # type: ignore[arg-type]


def square(device: torch.device, side: int) -> Facts:
    """Measure a large product."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in "ab")
    return {"tflops": 2 * side**3 / seconds(lambda: left @ right, device) / 1e12}


def attention(device: torch.device, batch: int) -> Facts:
    """Measure the vision tower's attention, 12 heads of 577 places."""
    shape = (batch, 12, 577, 64)
    query, key, value = (torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in "qkv")
    took = seconds(lambda: F.scaled_dot_product_attention(query, key, value), device)
    return {"ms": 1e3 * took, "tflops": 4 * batch * 12 * 577 * 577 * 64 / took / 1e12}


def copy(device: torch.device, pinned: bool, batch: int) -> Facts:
    """Measure how fast a batch of pictures reaches the device."""
    pictures = torch.zeros(batch, 3, 384, 384, dtype=torch.uint8)
    if pinned and device.type == "cuda":
        pictures = pictures.pin_memory()
    took = seconds(lambda: pictures.to(device, non_blocking=pinned), device)
    return {"ms": 1e3 * took, "gb_per_s": pictures.numel() / took / 1e9}


def decode(threads: int, count: int, px: int) -> Facts:
    """Measure how many JPEGs of 480 px become the models' pictures in a second."""
    preprocess, files = Preprocess(px, px), [image for image, _ in made_up_pairs(min(count, 64))]

    def work(number: int) -> Tensor:
        with Image.open(io.BytesIO(files[number % len(files)])) as image:
            return preprocess.resize(image.convert("RGB"))

    with ThreadPoolExecutor(threads) as pool:
        begin = time.perf_counter()
        list(pool.map(work, range(count)))
        return {"images_per_s": count / (time.perf_counter() - begin)}


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the mean seconds of some rounds, after one to warm up."""
    work()
    wait(device)
    begin = time.perf_counter()
    for _ in range(REPEATS):
        work()
    wait(device)
    return (time.perf_counter() - begin) / REPEATS
