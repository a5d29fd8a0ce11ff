"""What a piece of work takes: time, processor time, memory at its most, bytes read and written."""

import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

_PROCESS = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one turn of an arm took; `peak_gib` is of the process, `gpu_gib` of torch's own."""

    images: int
    wall_s: float
    cpu_s: float
    peak_gib: float
    gpu_gib: float
    read_bytes: int
    written_bytes: int

    @property
    def images_per_s(self) -> float:
        """By the wall clock."""
        return self.images / self.wall_s

    def to_dict(self) -> dict[str, Any]:
        """Give all numbers by name."""
        return asdict(self)


def measure(work: Callable[[], int]) -> Cost:
    """Do the work, which returns how many images it did, and measure it and its children.

    Bytes count what the page cache gives and takes, too.
    """
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    _forget_peak()
    begin, cpu_begin, moved = time.perf_counter(), _cpu_s(), _moved()
    images = work()
    if on_gpu:
        torch.cuda.synchronize()
    wall_s, cpu_s = time.perf_counter() - begin, _cpu_s() - cpu_begin
    read, written = (after - before for after, before in zip(_moved(), moved, strict=True))
    gpu_bytes = torch.cuda.max_memory_allocated() if on_gpu else 0
    return Cost(images, wall_s, cpu_s, _peak_gib(), gpu_bytes / 2**30, read, written)


def peak_of_children_gib() -> float:
    """Return the memory that the largest child of this process took, of all that have ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _moved() -> tuple[int, int]:
    """Return the bytes that this process has read and written; zeros where nobody counts."""
    fields = _fields(_PROCESS / "io")
    return int(fields.get("rchar", 0)), int(fields.get("wchar", 0))


def _peak_gib() -> float:
    kib = _fields(_PROCESS / "status").get("VmHWM", "0 kB").split()[0]
    return int(kib) / 2**20


def _forget_peak() -> None:
    with suppress(OSError):  # of a kernel that cannot, the peak of all turns so far
        (_PROCESS / "clear_refs").write_text("5")


def _fields(path: Path) -> dict[str, str]:
    with suppress(OSError):
        lines = (line.partition(":") for line in path.read_text().splitlines())
        return {name: value.strip() for name, _, value in lines}
    return {}
