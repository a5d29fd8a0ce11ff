"""Stage `scaling`: threads, shards, captions for a picture, shorter captions, two workers a GPU."""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

from scripts.bench import ours
from scripts.bench.gpu.runner import Case, Facts
from scripts.bench.gpu.setting import Setting
from scripts.bench.inputs import Inputs
from scripts.bench.meter import measure

BATCHES = "engine.batch_size=256"


def cases(setting: Setting) -> Iterator[Case]:
    """Change one thing at a time."""
    images, warm_up = setting.pick(2_048, 4), setting.pick(256, 2)
    large = setting.inputs(images, images, warm_up)
    for threads in setting.pick((14, 8, 4, 2), (1, 2)):
        change = f"engine.decode_threads={threads}"
        yield Case(f"{threads} decode threads", partial(run, large, BATCHES, change))
    small = setting.inputs(images, setting.pick(256, 2), warm_up)
    yield Case("small shards", partial(run, small, BATCHES))
    yield Case("large shards", partial(run, large, BATCHES))
    few = setting.inputs(setting.pick(512, 4), setting.pick(512, 4), setting.pick(64, 2))
    yield Case("5 captions a picture", partial(run, few, "caption.candidates=5", BATCHES))
    # random weights never end a text: a mean length stands for natural ends
    shorter = replace(large, tokens=setting.pick(11, 3))
    yield Case("captions of 11 tokens", partial(run, shorter, BATCHES))
    yield Case("two workers", partial(two_workers, large))


def run(inputs: Inputs, *settings: str) -> Facts:
    """Measure a run with settings changed."""
    cost = measure(ours.open_run(inputs, settings))
    return {"images_per_s": cost.images_per_s, **cost.to_dict()}


def two_workers(inputs: Inputs) -> Facts:
    """Run two processes on one device at a time; each says when it began and ended."""
    spawn = multiprocessing.get_context("spawn")
    begin = time.time() + 45  # both have loaded their models by then
    if inputs.device.type == "cpu":
        begin = time.time()
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        waiting = [pool.submit(_worker, inputs, begin) for _ in range(2)]
        spans = [each.result() for each in waiting]
    wall_s = max(end for _, _, end in spans) - min(start for _, start, _ in spans)
    together = sum(images for images, _, _ in spans)
    return {"images_per_s": together / wall_s, "late_s": max(s for _, s, _ in spans) - begin}


def _worker(inputs: Inputs, begin: float) -> tuple[int, float, float]:
    work = ours.open_run(inputs, (BATCHES,))
    time.sleep(max(0.0, begin - time.time()))
    start = time.time()
    return work(), start, time.time()
