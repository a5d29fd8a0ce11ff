"""Data-Juicer 1.6.1, which captions by one operator and scores by another, from JSON lines.

It has an environment of its own; `--peer-python` names its Python. Its mapper writes up to 128
tokens and cannot be told otherwise but by the model's own generation config, which is written here.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.bench.inputs import Inputs

NAME = "Data-Juicer 1.6.1"
MARKED = "<__dj__image> {} <|__dj__eoc|>"
QUIET = {"HF_HUB_OFFLINE": "1"}


class NotInstalled(Exception):  # noqa: N818 - reads as what it is
    """A peer that is not here."""


def open_data_juicer(inputs: Inputs, share: int) -> Callable[[], int]:
    """Write the input in its form; what is returned runs it, start and models' loading included."""
    command = program(inputs.peer_python)
    work = inputs.folder / "data-juicer"
    if not work.is_dir():
        _write(inputs, work, max(1, inputs.images // share))
    recipe = write_recipe(work, inputs.device.type, inputs.batch)

    def run() -> int:
        shutil.rmtree(work / "out", ignore_errors=True)
        # it starts anew each time: that belongs to it, and is paid once in a large run
        done = subprocess.run(
            [command, "--config", recipe], env=environment(inputs), capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{command} ended by {done.returncode}: {done.stderr[-500:]}")
        lines = (work / "out" / "out.jsonl").read_text(encoding="utf-8").splitlines()
        return len({json.loads(line)["id"] for line in lines})

    return run


def program(peer_python: Path | None) -> str:
    """Find its command beside a Python, or on the path; NotInstalled where there is none."""
    beside = peer_python.absolute().with_name("dj-process") if peer_python else None
    command = str(beside) if beside and beside.is_file() else shutil.which("dj-process")
    if command is None:
        raise NotInstalled(f"{NAME} is not installed: name its Python with --peer-python")
    return command


def environment(inputs: Inputs) -> dict[str, str]:
    """Keep it offline, and off the GPU where the others are."""
    hidden = {} if inputs.device.type == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **QUIET, **hidden}


def _write(inputs: Inputs, work: Path, count: int) -> None:
    work.mkdir()
    for role in ("captioner", "filter"):
        shutil.copytree(inputs.folder / role, work / role)
    tokens = {"min_new_tokens": inputs.tokens, "max_new_tokens": inputs.tokens}
    (work / "captioner" / "generation_config.json").write_text(json.dumps(tokens))
    lines: list[str] = []
    for shard in inputs.shards[1:]:
        for image, text in inputs.pairs(shard):
            path = work / f"{len(lines):06}.jpg"
            image.save(path, quality=85)
            row = {"id": len(lines), "text": MARKED.format(text), "images": [str(path)]}
            lines.append(json.dumps(row))
    (work / "in.jsonl").write_text("\n".join(lines[:count]) + "\n", encoding="utf-8")


def write_recipe(work: Path, device: str, batch: int) -> Path:
    """Write a recipe of its two operators, whose captions and scores refuse nothing."""
    everywhere: dict[str, Any] = {"accelerator": device, "num_proc": 1, "memory": "1GB"}
    caption = {"hf_img2seq": str(work / "captioner"), "caption_num": 1, "batch_size": batch}
    score = {"hf_blip": str(work / "filter"), "min_score": 0.0, "max_score": 1.0}
    settings = {"open_tracer": False, "use_cache": False, "skip_op_error": True, "np": 1}
    settings |= {"dataset_path": str(work / "in.jsonl")}
    settings |= {"export_path": str(work / "out" / "out.jsonl")}
    settings["process"] = [
        {"image_captioning_mapper": caption | everywhere},
        {"image_text_matching_filter": score | everywhere},
    ]
    recipe = work / "recipe.yaml"
    recipe.write_text(json.dumps(settings))  # JSON is YAML
    return recipe
