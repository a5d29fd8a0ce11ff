"""A training that is killed once it has saved a state, and taken up again by the same command."""

import json
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from scripts.bench.gpu.runner import Facts
from scripts.bench.gpu.runs import MAIN
from scripts.bench.gpu.setting import Setting

STEPS, EVERY = 12, 4


def kill_and_resume(setting: Setting) -> Facts:
    """Train whole, and killed after the first state; compare the last losses."""
    folder = setting.out / f"restart-{secrets.token_hex(4)}"
    write_toy_world(folder / "web", ToyWorldConfig(samples=60, samples_per_shard=20, noise=0))
    whole = _command(setting, folder, "whole")
    done = subprocess.run(whole, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr[-400:]}
    command = _command(setting, folder, "killed")
    states = folder / "killed" / "states"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not list(states.glob("step-*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    if again.returncode:
        return {"error": again.stderr[-400:], "killed": process.returncode}
    losses = [_last_loss(folder / name) for name in ("whole", "killed")]
    facts = {"killed": process.returncode, "losses": losses, "apart": abs(losses[0] - losses[1])}
    near = facts["apart"] < 1e-2 * abs(losses[0])
    return facts if near else facts | {"error": "the resumed training ended elsewhere"}


def _command(setting: Setting, folder: Path, name: str) -> list[str]:
    settings = {
        "data.sources": f"[{{shards: [{folder / 'web'}]}}]",
        "data.lanes": 2,
        "data.max_tokens": 16,
        "model.size": "tiny",
        "model.image_size": 64,
        "model.words": 120,
        "loss.queue": 64,
        "step.epochs": "null",
        "step.steps": STEPS,
        "step.batch_size": 8,
        "save.every_steps": EVERY,
        "save.log_every": 1,
        "launch.kind": "local",
        "launch.device": setting.device.type,
        "trackers": "[]",
        "output": folder / name,
    }
    changed = [f"--set={key}={value}" for key, value in settings.items()]
    return [sys.executable, "-c", MAIN, "pretrain", "--direct", *changed]


def _last_loss(folder: Path) -> float:
    last = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    return float(json.loads(last)["loss"])
