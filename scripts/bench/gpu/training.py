"""Stage `training`: the step of pre-training at base size, and a training that is killed."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scripts.bench.ceiling import wait
from scripts.bench.gpu import restart
from scripts.bench.gpu.runner import Case, Facts
from scripts.bench.gpu.setting import Setting
from scripts.bench.gpu.stepping import stepper_of, write_start

STEPS = 6  # that are timed, after two to warm up


def cases(setting: Setting) -> Iterator[Case]:
    """Time steps, look at what they wait for, and kill a training."""
    start, small = write_start(setting), setting.pick(64, 2)
    yield Case(f"step, {small}", partial(steps, setting, start, small))
    yield Case("killed and resumed", partial(restart.kill_and_resume, setting), 150)
    for size in setting.pick((256, 128), ()):
        yield Case(f"step, {size}", partial(steps, setting, start, size))
    again = partial(steps, setting, start, setting.pick(256, 2))
    yield Case("step, recomputed", partial(again, recompute=setting.pick(12, 1)))
    yield Case("what a step waits for", partial(waits, setting, start, small))
    yield Case("trace", partial(trace, setting, start, small))
    if not setting.smoke:  # minutes of compiling: last
        yield Case("step, compiled", partial(steps, setting, start, 128, compile=True), 150)


def steps(setting: Setting, start: Path, size: int, **towers: Any) -> Facts:  # noqa: ANN401 - keys of ModelConfig
    """Time steps, the first two apart."""
    stepper, batch = stepper_of(setting, start, size, **towers)
    begin = time.perf_counter()
    for number in range(2):
        numbers = stepper.take([batch], number, 0)
    facts: dict[str, Any] = {"loss": numbers["loss"].item()}
    facts["warm_up_s"] = time.perf_counter() - begin
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begin, count = time.perf_counter(), setting.pick(STEPS, 1)
    for number in range(count):
        stepper.take([batch], 2 + number, 0)
    enqueued = time.perf_counter() - begin
    wait(setting.device)
    took = (time.perf_counter() - begin) / count
    facts |= {"s_a_step": took, "samples_per_s": size / took, "host_share": enqueued / count / took}
    if setting.device.type == "cuda":
        facts["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return facts


def waits(setting: Setting, start: Path, size: int) -> Facts:
    """Take a step that may not wait for the device."""
    stepper, batch = stepper_of(setting, start, size)
    stepper.take([batch], 0, 0)
    if setting.device.type != "cuda":
        return {"skipped": "nobody waits for a CPU"}
    torch.cuda.set_sync_debug_mode("error")
    try:
        stepper.take([batch], 1, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"waits": 0}


def trace(setting: Setting, start: Path, size: int) -> Facts:
    """Save what two steps do, for Chrome's trace viewer."""
    stepper, batch = stepper_of(setting, start, size)
    stepper.take([batch], 0, 0)
    wait(setting.device)
    path = setting.out / "training-trace.json.gz"
    with torch.profiler.profile() as profile:
        for number in range(2):
            stepper.take([batch], 1 + number, 0)
        wait(setting.device)
    profile.export_chrome_trace(str(path))
    on_gpu = setting.device.type == "cuda"
    table = profile.key_averages().table(
        sort_by="self_device_time_total" if on_gpu else "self_cpu_time_total", row_limit=12
    )
    return {"file": str(path), "most": table.splitlines()[3:15]}
