"""A GPU that is there and cannot be used is told, never replaced by the CPU without a word."""

import ctypes
import os
import subprocess
import sys
from typing import get_args

import pytest
import torch

from models import devices
from models.blip.config import DtypeChoice
from models.devices import (
    DeviceChoice,
    DeviceError,
    check_dtype,
    check_memory,
    choose_device,
    describe_device,
)

CPU = torch.device("cpu")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")


_FAULTS = """
import resource, sys
from models.devices import keep_freed_memory
import torch
if sys.argv[1:]:
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    before = faults()
    for _ in range(5):
        torch.ones(16_000_000)  # 64 MB
print(faults() - before)  # once each has found its place
"""


@pytest.mark.slow
def test_memory_that_is_kept_is_not_cleared_anew() -> None:
    def faults(*arguments: str) -> int:
        command = [sys.executable, "-c", _FAULTS, *arguments]
        environment = os.environ | {"THP_MEM_ALLOC_ENABLE": ""}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return int(done.stdout)

    if not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        pytest.skip("another C library than glibc")
    assert faults() > 50_000
    assert faults("keep") < 5_000


def test_the_cpu_is_taken_where_it_is_asked_for() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("cpu", granted=True) == CPU
    assert describe_device(CPU) == {"device": "cpu"}


@no_gpu
def test_auto_takes_the_cpu_where_there_is_no_gpu(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_device() == CPU
    assert caplog.text == ""


@no_gpu
def test_a_gpu_that_was_set_aside_or_asked_for_is_never_replaced() -> None:
    asked: list[tuple[DeviceChoice, bool]] = [("auto", True), ("cuda", False)]
    for choice, granted in asked:
        with pytest.raises(DeviceError, match=r"a GPU is wanted, and torch sees none") as caught:
            choose_device(choice, granted=granted)
        assert f"torch {torch.__version__} is built for" in str(caught.value)
        assert "say `cpu`" in str(caught.value)


@no_gpu
def test_the_driver_of_a_gpu_that_torch_cannot_use_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "driver_cuda", lambda: "12.4")
    assert choose_device() == CPU
    assert "computing on the CPU, though a GPU is here" in caplog.text
    assert "the driver knows CUDA up to 12.4" in caplog.text
    with pytest.raises(DeviceError, match=r"CUDA up to 12\.4"):
        choose_device("auto", granted=True)


def test_int8_is_refused_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(DeviceError, match="computed by CPUs alone, and Tesla T4 was chosen"):
        check_dtype("int8", torch.device("cuda"))


def test_bf16_is_refused_where_it_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(DeviceError, match=r"does not compute bf16.* fp16"):
        check_dtype("bf16", torch.device("cuda"))
    check_dtype("fp16", torch.device("cuda"))


def test_a_cpu_computes_any_dtype_and_has_memory() -> None:
    for dtype in get_args(DtypeChoice):
        check_dtype(dtype, CPU)
    check_memory(CPU, 10**18)


@pytest.mark.gpu
def test_a_gpu_tells_its_name_and_memory() -> None:
    device = choose_device()
    about = describe_device(device)
    assert about["device"] == torch.cuda.get_device_name()
    assert about["gpu_memory_bytes"] > 10**9
    with pytest.raises(DeviceError, match="GB free; the models take"):
        check_memory(device, 10**15)
