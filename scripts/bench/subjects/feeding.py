"""What does cleaning cost outside of the models, and does it keep a device busy?

    export OMP_WAIT_POLICY=PASSIVE THP_MEM_ALLOC_ENABLE=1   # as the commands have it
    python -m scripts.bench.subjects.feeding [--pictures FOLDER] [--device-ms 7.2] [--turns 5]

Real shards go from tar to commit, by models that say the same of every picture: at once, for the
CPU time of all else, and after so many milliseconds of sleep for each image, for the share of time
that such a device is busy. Then each piece is done alone, in one thread. `--pictures`: tars with
JPEGs and texts; otherwise they are made up, as heavy as photographs of 480 pixels a side.
"""

import argparse
import tempfile
import time
from itertools import cycle, islice, pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from models.devices import keep_freed_memory
from pipeline.clean.config import CleanConfig, identity
from pipeline.clean.prepare import ExecutionConfig
from pipeline.clean.shard import ShardCleaner
from scripts.bench.feeding.device import Device
from scripts.bench.feeding.pieces import pieces
from scripts.bench.inputs import made_up_pairs, real_pairs, write_inputs
from shards.inputs.listing import list_inputs
from shards.run.run import Run
from shards.store import Store


class Turn(NamedTuple):
    """What one run cost: of an image by the process and by the calling thread, and the device."""

    cpu_ms: float
    main_ms: float
    images_per_s: float
    busy: float  # from the end of the first shard to that of the last but one


def clean(tars: Path, folder: Path, ms: float, o: argparse.Namespace) -> Turn:
    """Clean all shards into a new run; the first is to warm up."""
    device = Device(ms)
    config = CleanConfig(dtype="fp32", caption={"model": "none"}, score={"model": "none"})
    inputs = list_inputs([str(tars)])
    run = Run.create(Store(str(folder)), "", identity(config, [device], [device]), {}, inputs)
    pace = ExecutionConfig(batch_size=o.batch, decode_threads=o.threads)
    cleaner = ShardCleaner(run, config, [device], [device], pace)
    cleaner.clean(inputs[0], _ignore)
    begun, cpu_s, main_s, images = time.monotonic(), time.process_time(), time.thread_time(), 0
    ends = []
    for shard, following in pairwise([*inputs[1:], None]):
        cleaner.expect(following)
        images += cleaner.clean(shard, _ignore).counts.samples_in
        ends.append(time.monotonic())
    main_s, cpu_s = time.thread_time() - main_s, time.process_time() - cpu_s
    first, last = ends[0], ends[-2]
    within = sum(max(0, min(b, last) - max(a, first)) for a, b in device.busy)
    cleaner.close()
    return Turn(
        *(1e3 * seconds / images for seconds in (cpu_s, main_s)),
        images / (ends[-1] - begun),
        within / (last - first),
    )


def _ignore(_: int, __: int) -> None:
    """Hear how far it is."""


def main(o: argparse.Namespace, folder: Path) -> None:
    """Clean by turns, then time the pieces."""
    keep_freed_memory()  # as workers do
    tars = folder / "input"
    pairs = real_pairs(o.pictures) if o.pictures else made_up_pairs(o.images)
    count = o.images * o.shards
    write_inputs(tars, islice(cycle(islice(pairs, o.images)), count), o.images, o.images)
    turns = {ms: list[Turn]() for ms in (0.0, o.device_ms)}
    for number in range(o.turns):
        for ms, done in turns.items():
            done.append(clean(tars, folder / f"run-{ms}-{number}", ms, o))
    print(
        f"{o.images} images a shard, {o.shards} shards, batches of {o.batch}, {o.threads} threads"
    )
    for ms, done in turns.items():
        columns = dict(zip(Turn._fields, zip(*done, strict=True), strict=True))
        print(f"\na device of {ms:g} ms an image, medians of {o.turns} turns (least to most):")
        for name, numbers in columns.items():
            if ms or name != "busy":
                print(
                    f"  {name:14}{median(numbers):8.3f} ({min(numbers):.3f} to {max(numbers):.3f})"
                )
    print("\npieces alone, CPU ms an image, the least of 5 times:")
    for name, ms in pieces(sorted(tars.glob("*.tar"))[0], Device.preprocess, o.batch):
        print(f"  {name:40}{ms:8.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--pictures", help="a folder of tars (default: made up)")
    parser.add_argument("--device-ms", type=float, default=7.2)
    for name, value in (
        ("images", 200),
        ("shards", 6),
        ("batch", 16),
        ("threads", 2),
        ("turns", 5),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    with tempfile.TemporaryDirectory(prefix="capfilt-feeding-") as scratch:
        main(parser.parse_args(), Path(scratch))
