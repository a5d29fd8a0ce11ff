"""What capfilt does on a GPU: stages of at most 8 minutes each, 25 minutes together; JSON lines.

    python scripts/benchmark_gpu.py --stage all
    python scripts/benchmark_gpu.py --stage arms --out runs/gpu

It needs a GPU that torch sees, and downloads nothing. Lines are in OUT/STAGE.jsonl as soon as they
are measured; a stage that is begun again does what has no line yet, or a line with an error. Where
there is no GPU, `--smoke --device cpu` does every case on next to nothing: its figures say nothing,
every line says so, and none stands for a measured one.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from scripts.bench.gpu.runner import GRACE_S, guarded, run_stage
from scripts.bench.gpu.stages import STAGES, Stage

DOOR = Path(__file__).resolve().parents[2] / "benchmark_gpu.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one stage here, or each in a process of its own: a lost GPU context ends with it."""
    o = _options(arguments)
    os.environ["HF_HUB_OFFLINE"] = "1"
    if (why := _why_not(o)) is not None:
        print(f"benchmark_gpu: {why}", file=sys.stderr)
        return 2
    if o.stage != "all":
        return run_one(next(stage for stage in STAGES if stage.name == o.stage), o)
    failed = False
    for stage in STAGES:
        call = [sys.executable, str(DOOR), f"--stage={stage.name}", f"--out={o.out}"]
        call += [f"--device={o.device}", *(["--smoke"] if o.smoke else [])]
        try:
            limit_s = stage.limit_s + 3 * GRACE_S
            failed |= bool(subprocess.run(call, timeout=limit_s, check=False).returncode)
        except subprocess.TimeoutExpired:
            print(f"{stage.name} did not end in {limit_s:.0f} s", file=sys.stderr)
            failed = True
    return int(failed)


def run_one(stage: Stage, o: argparse.Namespace) -> int:
    """Do a stage; 1 if a case failed."""
    from models.devices import choose_device
    from scripts.bench.gpu.setting import Setting

    o.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(choose_device(o.device), o.out.resolve(), o.smoke)
    cases = guarded(partial(stage.cases, setting), "preparing")
    counts = run_stage(stage.name, cases, o.out, stage.limit_s, setting.about)
    return int(counts["failed"] > 0)


def _why_not(o: argparse.Namespace) -> str | None:
    """Say why there is nothing to measure here."""
    from models.devices import DeviceError, choose_device

    try:
        device = choose_device(o.device)
    except DeviceError as error:
        return str(error)
    if device.type == "cuda" or o.smoke:
        return None
    return "torch sees no GPU here; every case on next to nothing: --smoke --device cpu"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=("all", *(s.name for s in STAGES)), default="all")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--smoke", action="store_true", help="everything on next to nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="lines and inputs")
    return parser.parse_args(arguments)
