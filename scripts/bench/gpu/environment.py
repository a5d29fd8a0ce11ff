"""Stage `environment`: what machine this is, what is installed, and the project's own GPU tests."""

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from models.devices import driver_cuda
from scripts.bench.gpu.runner import Case, Facts
from scripts.bench.gpu.setting import Setting

ROOT = Path(__file__).resolve().parents[3]
ASKED = "name,memory.total,memory.used,clocks.sm,clocks.mem,power.draw,driver_version"
PACKAGES = ("torch", "transformers", "triton", "numpy", "pillow", "pyarrow", "ray", "prefect")


def cases(setting: Setting) -> Iterator[Case]:
    """Describe the machine, then test."""
    yield Case("machine", lambda: machine(setting))
    yield Case("pytest -m gpu", lambda: gpu_tests(setting), limit_s=240)


def machine(setting: Setting) -> Facts:
    """Gather versions, cores and the GPU; nothing is missing that is not named."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "cuda": torch.version.cuda,
        "driver_cuda": driver_cuda(),
        "cudnn": torch.backends.cudnn.version(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    for name in PACKAGES:
        known = importlib.util.find_spec(name if name != "pillow" else "PIL")
        facts[name] = importlib.metadata.version(name) if known else None
    if setting.device.type == "cuda":
        about = torch.cuda.get_device_properties(setting.device)
        facts |= {"gpu": about.name, "gpu_memory_gib": round(about.total_memory / 2**30, 1)}
        facts |= {"capability": f"{about.major}.{about.minor}"}
        asked = ["nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader"]
        seen = subprocess.run(asked, capture_output=True, text=True, check=False)
        facts["nvidia_smi"] = seen.stdout.strip() or seen.stderr.strip()
    return facts


def gpu_tests(setting: Setting) -> Facts:
    """Run the files with GPU tests alone: others may import what is not installed here."""
    if importlib.util.find_spec("pytest") is None:
        return {"skipped": "pytest is not installed"}
    files = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    call = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    call += ["--collect-only"] if setting.smoke else ["-rs", "--timeout=120"]
    if importlib.util.find_spec("pytest_timeout") is None:
        call.remove("--timeout=120")
    done = subprocess.run([*call, *files], cwd=ROOT, capture_output=True, text=True, check=False)
    tail = done.stdout.splitlines()[-15:]
    facts = {"files": files, "exit_code": done.returncode, "tail": tail}
    return facts if done.returncode in (0, 5) else facts | {"error": "tests have failed"}
