"""The demo: make a small world and two tiny models, then clean the world with the real command.

    python scripts/demo.py [FOLDER]

FOLDER (default: demo) is made afresh each time; what this script did not make is left alone.
"""

import argparse
import io
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from models import checkpoint, tokenizer
from models.config import ARCHITECTURES, blip_config
from pipeline import toy_world
from pipeline.toy_world import ToyWorldConfig, write_toy_world

RECIPE = Path(__file__).resolve().parents[1] / "flows" / "recipes" / "demo.yaml"
WORLD = ToyWorldConfig(samples=400, samples_per_shard=50, noise=0.4)
SPOILED = {"empty": b"", "not-a-picture": b"<html>404</html>", "cut-off": b"\x89PNG\r\n\x1a\n\0\0"}
MARK, MADE = ".made-by-capfilt-demo", ("input", "models", "run")
SPREAD = 0.2  # of random weights; at the usual 0.02 an untrained filter scores all texts alike

NOTE = """
The two models are RANDOM: nothing has trained them. So the captions are gibberish, and which texts
are kept means nothing yet. Every step is real: decoding, captioning, scoring, judging, writing.
"""
NEXT = """
The clean shards and tables are in {run}. Next, to type yourself:

  {capfilt} report {run}          # a page to open in a browser
  {capfilt} judge {run} --name strict --threshold web=0.7 --keep-fraction synthetic=0.3
  {capfilt} stats {run} --view strict --against own
  {capfilt} stats {run} --sql "SELECT origin, itm, keep, text FROM texts JOIN decisions USING (shard, index, text_no) LIMIT 10"
  {capfilt} verify {run}
"""  # noqa: E501 - lines to copy


def main() -> int:
    """Run the demo; gives the exit code of `capfilt clean`."""
    parser = argparse.ArgumentParser(description="Clean a small made-up world, from nothing.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"))
    folder: Path = parser.parse_args().folder
    if refusal := start_afresh(folder):
        print(f"demo: {refusal}", file=sys.stderr)
        return 2
    make_input(folder / "input")
    captioner, scorer = make_models(folder / "models")
    run, bin_folder = folder / "run", Path(sys.executable).parent
    capfilt = shown(bin_folder / "capfilt")
    command = [capfilt, "clean", shown(RECIPE), "--input", str(folder / "input")]
    command += ["--output", str(run), "--captioner", str(captioner), "--filter", str(scorer)]
    print(f"$ {shlex.join(command)}\n", flush=True)
    started = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    print(f"capfilt clean ended with exit code {code} after {time.monotonic() - started:.0f} s.")
    if code == 0:
        print(NEXT.format(run=run, capfilt=capfilt))
    return code


def start_afresh(folder: Path) -> str | None:
    """Empty the folder of an earlier demo's work; say why, if the folder is not the demo's."""
    if folder.exists() and not folder.is_dir():
        return f"{folder} is not a folder; give another name"
    mark = folder / MARK
    if not mark.exists() and folder.exists() and any(folder.iterdir()):
        return f"{folder} is not empty, and no demo made it; give a new or empty folder"
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for name in MADE:
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    return None


def make_input(folder: Path) -> None:
    """Write the world, and one shard of pictures that no one can read."""
    shards = write_toy_world(folder, WORLD)
    with tarfile.open(folder / "spoiled.tar", "w") as tar:
        for key, content in SPOILED.items():
            for name, data in ((f"{key}.png", content), (f"{key}.txt", b"a red ring")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    print(
        f"{folder}: {WORLD.samples} pictures of coloured shapes in {len(shards)} shards, "
        f"{WORLD.noise:.0%} of them with a wrong text; and {len(SPOILED)} spoiled ones in one more."
    )


def make_models(folder: Path) -> tuple[Path, Path]:
    """Write a captioner and a filter of the tiny size, with random weights."""
    words = tokenizer.train(toy_world.corpus(), 1_000)
    config = blip_config("tiny", vocab_size=words.size, sep_id=words.sep_id, pad_id=words.pad_id)
    config.vision_config.initializer_range = config.text_config.initializer_range = SPREAD
    for role in ARCHITECTURES:
        checkpoint.create(folder / role, role, config, words, seed=0)
    print(NOTE)
    return folder / "captioner", folder / "filter"


def shown(path: Path) -> str:
    """Write a path as one would type it here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


if __name__ == "__main__":
    sys.exit(main())
