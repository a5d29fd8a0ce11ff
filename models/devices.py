"""Which device a model runs on: the GPU that torch sees, or the CPU, never one in place of another.

A machine with a GPU that torch cannot use (a build of torch without CUDA, a driver that is too old)
would compute on its CPU a hundred times slower, without a word.
"""

import ctypes
import logging
from contextlib import suppress
from typing import Any, ClassVar, Literal

import torch

from models.blip.config import DtypeChoice

DeviceChoice = Literal["auto", "cpu", "cuda"]

_log = logging.getLogger(__name__)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


class DeviceError(RuntimeError):
    """A GPU that was asked for, or is there, and that torch cannot use; and what to do."""

    exit_code: ClassVar[int] = 2


def choose_device(choice: DeviceChoice = "auto", *, granted: bool = False) -> torch.device:
    """Choose where models run; `auto` is a GPU if torch sees one, else the CPU.

    `granted`: a GPU was set aside for this process, which `auto` must not leave idle. Raises
    DeviceError where the GPU that is wanted is not seen; warns of one that `auto` cannot use.
    """
    if choice == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    driver = driver_cuda()
    if choice == "cuda" or granted:
        raise DeviceError(f"a GPU is wanted, and {_why_unseen(driver)}, or say `cpu` to go without")
    if driver is not None:
        _log.warning("computing on the CPU, though a GPU is here: %s", _why_unseen(driver))
    return torch.device("cpu")


def keep_freed_memory() -> None:
    """Let this process keep what it frees, so that one batch computes in the memory of the last.

    glibc gives large blocks back to the system, which clears each page of them anew: a quarter of a
    million faults a batch of six pictures, a tenth of the time. What is kept is never more than was
    in use at once. Nothing is changed where the C library is another.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def check_dtype(dtype: DtypeChoice, device: torch.device) -> None:
    """Refuse what a GPU cannot compute: int8, and bf16 that it only emulates; a CPU computes all.

    A CPU may be slow at it: fp16 is for GPUs that are too old for bf16, int8 for CPUs that are.
    """
    if device.type != "cuda":
        return
    if dtype == "int8":
        raise DeviceError(
            f"dtype: int8 is computed by CPUs alone, and {name_device(device)} was chosen. Begin "
            "another run with dtype: auto, or with device: cpu"
        )
    if dtype == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise DeviceError(
            f"{name_device(device)} does not compute bf16, the dtype of this run. Leave it out, or "
            "begin another run with dtype: fp32, or fp16, which is faster and less exact"
        )


def name_device(device: torch.device) -> str:
    """Return the name of a GPU as its maker gives it, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def describe_device(device: torch.device) -> dict[str, Any]:
    """Describe a device for a record: its name, and a GPU's memory in bytes."""
    if device.type != "cuda":
        return {"device": "cpu"}
    memory = torch.cuda.get_device_properties(device).total_memory
    return {"device": name_device(device), "gpu_memory_bytes": memory}


def check_memory(device: torch.device, needed_bytes: int) -> None:
    """Refuse a GPU on which less memory is free than the weights alone will take."""
    if device.type != "cuda":
        return
    free, whole = torch.cuda.mem_get_info(device)
    if free < needed_bytes:
        raise DeviceError(
            f"{name_device(device)} has {free / 1e9:.1f} of {whole / 1e9:.1f} GB free; the models "
            f"take {needed_bytes / 1e9:.1f} GB. End what else runs there, or give each worker more "
            "of a GPU"
        )


def driver_cuda() -> str | None:
    """Return the newest CUDA that the driver of this machine knows, as in 12.4; None for no GPU."""
    with suppress(OSError, AttributeError):
        driver = ctypes.CDLL("libcuda.so.1")
        count, version = ctypes.c_int(), ctypes.c_int()
        driver.cuInit(0)
        if driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
            return None  # none, or none that this process may see
        driver.cuDriverGetVersion(ctypes.byref(version))
        return f"{version.value // 1000}.{version.value % 1000 // 10}"
    return None


def _why_unseen(driver: str | None) -> str:
    built = torch.version.cuda
    has = f"torch {torch.__version__} is built for " + (f"CUDA {built}" if built else "CPUs alone")
    drives = f"the driver knows CUDA up to {driver}" if driver else "no driver of a GPU is here"
    if built and driver:
        mend = "Update the driver, or install a torch that is built for the driver's CUDA"
    elif driver:
        mend = "Install a torch that is built for CUDA"
    else:
        mend = "Install the driver, or take another machine"
    return f"torch sees none: {has}; {drives}. {mend}"
