"""One corrupt picture among 32: what Data-Juicer 1.6.1 makes of it, and what capfilt does.

    python -m scripts.bench.subjects.corruption WORK [--peer-python PATH] [--json]

Both use two tiny, random BLIP folders, and refuse nothing. Data-Juicer has an environment of its
own, of PATH or made in WORK (2 GB). It should lose 16, or die with its tracer on; capfilt, 1.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import rich.table
from PIL import Image

from models.blip import tokenizer
from models.blip.config import ARCHITECTURES, blip_config
from models.checkpoints import checkpoint
from pipeline.toy.world import corpus

COUNT, CORRUPT, SIDE, BATCH = 32, 20, 96, 16
TEXT = "a photo of a dog on the street"
PEER = ("py-data-juicer==1.6.1", "torch==2.13.0", "transformers==5.23.0", "aiohttp")
QUIET = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
EVERY_OP = {"accelerator": "cpu", "num_proc": 1, "memory": "1GB"}


def main() -> None:
    """Run all three, and print what came out."""
    parser = argparse.ArgumentParser(description="Compare with Data-Juicer on a corrupt picture.")
    parser.add_argument("work", type=Path, help="new folder")
    parser.add_argument("--peer-python", type=Path, help="of an environment with Data-Juicer")
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args()
    work: Path = options.work.resolve()
    make_input(work)
    python = (options.peer_python or work / "environment" / "bin" / "python").absolute()
    if options.peer_python is None:
        subprocess.run([sys.executable, "-m", "venv", work / "environment"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEER], check=True)
    peer = python.with_name("dj-process")
    if run(work, "start", python, peer, "--help").returncode:
        parser.error(f"{peer} does not start; {work / 'start.log'} says why")
    results = [*(run_peer(work, peer, tracer) for tracer in (False, True)), run_capfilt(work)]
    table = rich.table.Table(*results[0], title=f"{COUNT} pictures, 1 of them corrupt")
    for row in results:
        table.add_row(*map(str, row.values()))
    print(json.dumps(results)) if options.json else rich.print(table)


def make_input(work: Path) -> None:
    """Write noise, and one file that is no picture, as a tar and JSON lines; and both models."""
    work.mkdir(parents=True)  # a new one
    words = tokenizer.train([*corpus(), TEXT], 1_000)
    config = blip_config("tiny", **words.config_fields)
    config.text_config.max_position_embeddings = 512  # the peer's captions are up to 128 tokens
    for role in ARCHITECTURES:
        checkpoint.create(work / role, role, config, words, seed=0)
    noise = np.random.default_rng(0).integers(0, 255, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    with tarfile.open(work / "web.tar", "w") as tar, (work / "in.jsonl").open("w") as lines:
        for number in range(COUNT):
            path, caption = work / f"{number:05}.jpg", tarfile.TarInfo(f"{number:05}.txt")
            Image.fromarray(noise[number]).save(path)
            if number == CORRUPT:
                path.write_bytes(b"\xff\xd8 and then no picture")
            tar.add(path, path.name)
            caption.size = len(TEXT)
            tar.addfile(caption, io.BytesIO(TEXT.encode()))
            text = f"<__dj__image> {TEXT} <|__dj__eoc|>"
            lines.write(json.dumps({"id": number, "text": text, "images": [str(path)]}) + "\n")


def run_peer(work: Path, peer: Path, tracer: bool) -> dict[str, Any]:
    """Let Data-Juicer caption and score, and skip what it has errors with."""
    tool = f"Data-Juicer 1.6.1, tracer {'on' if tracer else 'off'}"
    out, recipe = work / tool / "out.jsonl", work / f"{tool}.yaml"
    caption = {"hf_img2seq": str(work / "captioner"), "caption_num": 1, "batch_size": BATCH}
    score = {"hf_blip": str(work / "filter"), "min_score": 0.0, "max_score": 1.0}
    steps = {"image_captioning_mapper": caption, "image_text_matching_filter": score}
    settings = {"open_tracer": tracer, "use_cache": False, "skip_op_error": True, "np": 1}
    settings |= {"dataset_path": str(work / "in.jsonl"), "export_path": str(out)}
    settings["process"] = [{name: options | EVERY_OP} for name, options in steps.items()]
    recipe.write_text(json.dumps(settings))  # JSON is YAML
    code = run(work, tool, peer, "--config", recipe).returncode
    lines = out.read_text().splitlines() if out.exists() else []
    return result(tool, len({json.loads(line)["id"] for line in lines}), code)


def run_capfilt(work: Path) -> dict[str, Any]:
    """Clean the tar with thresholds that refuse nothing."""
    flags = [f"--input={work / 'web.tar'}", f"--output={work / 'run'}"]
    flags += [f"--{role}={work / role}" for role in ("captioner", "filter")]
    flags += [f"--set=judge.threshold.{origin}=0" for origin in ("web", "synthetic")]
    flags += [f"--set=engine.batch_size={BATCH}", "--engine=local", "--direct", "--json"]
    done = run(work, "capfilt", Path(sys.executable).with_name("capfilt"), "clean", *flags)
    return result("capfilt", json.loads(done.stdout)["kept"], done.returncode)


def run(work: Path, name: str, *command: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a command on the processor, offline, and keep what it says in a log."""
    done = subprocess.run(command, cwd=work, env=QUIET, capture_output=True, text=True)
    (work / f"{name}.log").write_text(done.stdout + done.stderr)
    return done


def result(tool: str, out: int, code: int) -> dict[str, Any]:
    """Return one row of the table."""
    return {"tool": tool, "in": COUNT, "out": out, "lost": COUNT - out, "exit_code": code}


if __name__ == "__main__":
    main()
