"""Does the truth lie where `capfilt plan` says? Plan runs of differing size, do them, compare.

    python -m scripts.bench.subjects.plan [--runs 10] [--n 480] [--engines local ray]

Worlds of 150 to 1,500 pictures, of several sizes, in shards of several sizes; 4 to 16 captions
for each picture. Time is that of the whole command `capfilt clean`, from its start to its end.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.toy.world import ToyWorldConfig, write_toy_world

CAPFILT = str(Path(sys.executable).with_name("capfilt"))
MODELS = ["--captioner", "tiny-captioner", "--filter", "tiny-filter"]
MOST_WIDTH, LEAST_INSIDE = 0.30, 0.8


def main(o: argparse.Namespace, folder: Path) -> None:
    """Plan each run and do it, then print what was stated and what came."""
    rng = random.Random(o.seed)
    print(f"{datetime.now(UTC):%Y-%m-%d}: {o.runs} runs, each planned by {o.n} pictures at most\n")
    columns = "engine", "world", "stated, s", "truth, s", "width", "images stated", "true", "inside"
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    outcomes = []
    for number in range(o.runs):
        size = round(150 * 10 ** (number / max(o.runs - 1, 1)))
        world = ToyWorldConfig(
            samples=size,
            samples_per_shard=rng.choice([25, 60, 150]),
            image_px=rng.choice([64, 128, 256]),
            image_format=rng.choice(["png", "jpeg"]),
            seed=number,
        )
        candidates = rng.choice([4, 8, 16])
        outcome = one_run(o, folder / str(number), number, world, candidates)
        print(f"| {' | '.join(outcome['row'])} |", flush=True)
        outcomes.append(outcome)
    inside = sum(outcome["inside"] for outcome in outcomes)
    widths = [outcome["width"] for outcome in outcomes]
    print(
        f"\ntime inside its 90 % interval: {inside} of {len(outcomes)}; images: "
        f"{sum(outcome['images_inside'] for outcome in outcomes)} of {len(outcomes)}; half-width: "
        f"median ±{median(widths):.0%}, widest ±{max(widths):.0%}"
    )
    if inside < LEAST_INSIDE * len(outcomes) or max(widths) > MOST_WIDTH:
        sys.exit("the intervals miss, or are too wide")


def one_run(
    o: argparse.Namespace, folder: Path, number: int, world: ToyWorldConfig, candidates: int
) -> dict[str, Any]:
    """Plan a run, then do it."""
    engine = o.engines[number % len(o.engines)]
    urls = write_toy_world(folder / "input", world)
    work = ["--input", str(folder / "input"), "--output", str(folder / "run"), *MODELS]
    work += ["--engine", engine, "--set", f"caption.candidates={candidates}", "--direct", "--json"]
    work += ["--actors", "2"] if engine == "ray" else []
    stated = run("plan", *work, "--n", str(o.n), "--budget", str(o.budget))
    begun = time.monotonic()
    true = run("clean", *work)["samples_in"]
    truth = time.monotonic() - begun
    seconds, images = stated["seconds"], stated["images"]
    inside = seconds["low"] <= truth <= seconds["high"]
    images_inside = round(images["low"]) <= true <= round(images["high"])
    width = (seconds["high"] - seconds["low"]) / 2 / seconds["value"]
    about = f"{world.samples} pictures of {world.image_px} px ({world.image_format}), "
    row = [
        engine,
        f"{about}{len(urls)} shards, {candidates} captions",
        f"{seconds['value']:.1f} ({seconds['low']:.1f} to {seconds['high']:.1f})",
        f"{truth:.1f}",
        f"±{width:.0%}",
        f"{images['low']:.0f} to {images['high']:.0f}",
        str(true),
        "yes" if inside else "no",
    ]
    return {"row": row, "inside": inside, "images_inside": images_inside, "width": width}


def run(*arguments: str) -> dict[str, Any]:
    """Run the command and return what it prints as JSON."""
    done = subprocess.run([CAPFILT, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"capfilt {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--n", type=int, default=480)
    parser.add_argument("--budget", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engines", nargs="+", default=["local", "ray"])
    with tempfile.TemporaryDirectory(prefix="capfilt-plan-") as scratch:
        main(parser.parse_args(), Path(scratch))
