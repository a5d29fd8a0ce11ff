"""Whole runs on a GPU: by the commands, and with less memory than a batch wants."""

import json
import secrets
import subprocess
import sys
from typing import Any

import torch

from flows.engines.job import Grant
from flows.recipe import Recipe, read_recipe
from flows.stages.clean import prepare
from scripts.bench import ours
from scripts.bench.gpu.runner import Facts
from scripts.bench.gpu.setting import Setting
from shards.run.commit import read_commits
from shards.run.run import Run
from shards.run.verify.run import verify_run

MAIN = "from flows.cli import main; main()"


def whole(setting: Setting) -> Facts:
    """Run the two commands as a user does, each in a process of its own."""
    inputs = setting.inputs(setting.pick(64, 4), setting.pick(32, 2), setting.pick(16, 1))
    run = inputs.folder / "runs" / secrets.token_hex(4)
    clean = ["clean", f"--input={inputs.folder / 'input'}", f"--output={run}", "--direct", "--json"]
    clean += [f"--{role}={inputs.folder / role}" for role in ("captioner", "filter")]
    clean += ["--engine=local", f"--set=engine.device={setting.device.type}"]
    facts: dict[str, Any] = {}
    for name, call in (("clean", clean), ("verify", ["verify", str(run)])):
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *call], capture_output=True, text=True, check=False
        )
        facts[name] = done.returncode
        if done.returncode:
            return facts | {"error": done.stderr[-400:]}
        if name == "clean":
            told = json.loads(done.stdout)
            facts |= {key: told[key] for key in ("samples_in", "kept") if key in told}
    return facts


def out_of_memory(setting: Setting) -> Facts:
    """Clean in batches that the GPU cannot hold: they are halved, and the run verifies."""
    if setting.device.type != "cuda":
        return {"skipped": "a CPU has no limit to set"}
    inputs = setting.inputs(256, 256, 4)
    settings = ours.settings_of(inputs, "engine.batch_size=256")
    job = prepare(read_recipe(Recipe, None, {}, settings))
    worker = job.spec.open(Grant())
    torch.cuda.empty_cache()
    roof = torch.cuda.memory_reserved() + 2 * 2**30  # a batch of 256 wants more than 6 GiB
    torch.cuda.set_per_process_memory_fraction(
        roof / torch.cuda.get_device_properties(setting.device).total_memory
    )
    try:
        results = [worker.process(shard) for shard in job.pending]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    run = Run.open(job.spec.run_url)
    splits = sum(commit.environment["splits"] for commit in read_commits(run).values())
    facts = {"results": [type(result).__name__ for result in results], "splits": splits}
    facts["problems"] = [str(problem) for problem in verify_run(run).problems]
    return facts if splits and not facts["problems"] else facts | {"error": "expected splits"}
