"""What evaluation and indexing save by working ahead and by looking once, and what a guard costs.

    OMP_WAIT_POLICY=PASSIVE python -m scripts.bench.subjects.evaluation   # as the commands have it

Each figure is a ratio of medians over turns that alternate, on made-up pictures in a temporary
folder: decoding a batch ahead against one by one; questions that share a look at their picture
against each with its own, by a random network of base size; and videos decoded in a child process
against in this one.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import typer
from PIL import Image

from models.blip import tokenizer
from models.blip.config import blip_config
from models.checkpoints import checkpoint, locate
from models.roles.retrieval import Retriever
from models.roles.vqa import VqaModel
from pipeline.evaluate.vqa import measure_vqa
from pipeline.media import ahead
from pipeline.media.video import read_frames
from pipeline.media.video_guard import VideoGuard
from pipeline.search import build as index
from pipeline.toy import tasks as toy_tasks
from pipeline.toy.video import write_frames
from pipeline.toy.world import ToyWorldConfig, write_toy_world

TURNS, ASKED, QUESTIONS = 3, 4, 5

Way = Callable[[], object]


def compare(what: str, count: int, new: Way, old: Way) -> None:
    """Time two ways by turns, and print rates and their ratio."""
    seconds: dict[str, list[float]] = {"new": [], "old": []}
    for _ in range(TURNS):
        for name, way in (("new", new), ("old", old)):
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    after, before = (count / median(seconds[name]) for name in ("new", "old"))
    print(f"{what}: {after:,.2f} against {before:,.2f} a second, {after / before:.2f} times")


def indexing(folder: Path, pictures: int) -> None:
    """Index JPEG pictures of 224 pixels by the shipped tiny filter."""
    config = ToyWorldConfig(samples=pictures, noise=0, image_px=224, image_format="jpeg")
    write_toy_world(folder / "world", config)
    retriever = Retriever.load(locate.SHIPPED["tiny-filter"], dtype="fp32")
    way = ahead.read_ahead

    def build() -> None:
        items = index.items_of_tars([str(folder / "world")])
        index.build(folder / "toy.index", items, retriever, {}, index.IndexConfig(batch_size=64))

    def one_by_one() -> None:
        ahead.read_ahead = lambda items, work, *_: ((item, work(item)) for item in items)
        build()
        ahead.read_ahead = way

    compare("pictures indexed, a batch ahead or one by one", pictures, build, one_by_one)


def answering(folder: Path) -> None:
    """Answer questions, of which several are about one picture, or each about a copy of it."""
    words = tokenizer.train(toy_tasks.corpus(), 400)
    config = blip_config("base", **words.config_fields)
    checkpoint.create(folder / "vqa", "vqa", config, words, seed=0)
    answerer, rng = VqaModel.load(folder / "vqa"), np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(ASKED * QUESTIONS):
        if number % QUESTIONS == 0:
            picture = Image.fromarray(rng.integers(0, 256, (480, 640, 3), np.uint8))
        picture.save(folder / f"{number}.jpg")
        rows.append({"question": f"what is number {number}?", "answer": ["yes"]})

    def asked(copies: int) -> Way:
        of_copies = [row | {"image": f"{n - n % copies}.jpg"} for n, row in enumerate(rows)]
        where, count = str(folder), len(rows)
        return lambda: measure_vqa(answerer, of_copies, where, count, answers=["yes", "no"])

    compare("questions, five a picture, one look or five", len(rows), asked(QUESTIONS), asked(1))


def videos(folder: Path, frames: int) -> None:
    """Take 16 frames out of a video of 1920 x 1080."""

    def pictures() -> Iterator[Image.Image]:
        small = np.random.default_rng(0).integers(0, 256, (68, 120, 3), np.uint8)
        for number in range(frames):
            yield Image.fromarray(np.roll(small, number, 1)).resize((1920, 1080))

    video = str(folder / "video.mp4")
    write_frames(Path(video), pictures(), 1920, 1080, key_every=50)
    with VideoGuard() as guard:
        read_frames(video, 1, decode=guard.decode)  # it starts the child

        guarded = partial(read_frames, video, 16, decode=guard.decode)
        compare("videos, under guard or not", 1, guarded, partial(read_frames, video, 16))


def main(pictures: int = 3_000, frames: int = 500) -> None:
    """Compare three pieces of evaluation with how they were done before."""
    with TemporaryDirectory() as scratch:
        indexing(Path(scratch), pictures)
        answering(Path(scratch))
        videos(Path(scratch), frames)


if __name__ == "__main__":
    typer.run(main)
