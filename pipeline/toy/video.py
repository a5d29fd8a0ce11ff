"""Toy videos: one shape of the toy world that moves, and the field's files about them.

`msrvtt_test.jsonl` has a caption of each clip, `test_qa.json` questions with one answer. All that
is said is true of every frame: what the image models know is asked, not what only time tells.
"""

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import av
from PIL import Image

from pipeline.toy.layout import Box
from pipeline.toy.tasks import ToyTasksConfig
from pipeline.toy.world import Scene, caption, draw, scene

FRAMES, FRAMES_PER_S = 24, 8
_REACH = 0.04  # from the edge of the picture


def write_videos(folder: Path, config: ToyTasksConfig) -> tuple[Path, Path]:
    """Write videos, captions and questions; return the paths of the two files.

    No two clips show the same colour and shape, as long as there are enough of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    captions: list[dict[str, str]] = []
    asked: list[dict[str, str]] = []
    shown: set[tuple[str, str]] = set()
    for index in range(config.samples):
        rng = random.Random(f"{config.seed}/video/{index}")
        start, px = _draw_start(rng, config, shown), config.image_px
        name, thing = f"video{index}", start.things[0]
        write_frames(folder / f"{name}.mp4", (draw(s, px) for s in moving(start, rng)), px, px)
        captions.append({"clip_name": name, "caption": caption(start, rng)})
        for question, answer in (
            (f"what color is the {thing.shape}?", thing.colour),
            (f"what shape is the {thing.colour} thing?", thing.shape),
        ):
            asked.append({"video_id": name, "question": question, "answer": answer})
    lines, rows = folder / "msrvtt_test.jsonl", folder / "test_qa.json"
    lines.write_text("".join(f"{json.dumps(row)}\n" for row in captions), encoding="utf-8")
    rows.write_text(json.dumps(asked, indent=0), encoding="utf-8")
    return lines, rows


def moving(start: Scene, rng: random.Random, frames: int = FRAMES) -> Iterator[Scene]:
    """Move a scene's one thing from side to side, or from top to bottom, or back."""
    (thing,) = start.things
    left, top, right, bottom = thing.box
    side, along_x, turned = right - left, rng.random() < 0.5, rng.random() < 0.5
    room = 1 - 2 * _REACH - side
    for number in range(frames):
        share = number / max(frames - 1, 1)
        at = _REACH + room * (1 - share if turned else share)
        box: Box = (at, top, at + side, bottom) if along_x else (left, at, right, at + side)
        yield replace(start, things=(replace(thing, box=box),))


def write_frames(
    path: Path, pictures: Iterable[Image.Image], width: int, height: int, key_every: int = 12
) -> None:
    """Encode pictures of one size, even both ways, in the container that the name asks for."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_S)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        # with several threads, or frames that it has to convert, x264's bytes differ now and then
        stream.options = {"crf": "10", "g": str(key_every), "threads": "1"}  # little is lost
        for picture in pictures:
            frame = av.VideoFrame.from_image(picture).reformat(format=stream.pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _draw_start(rng: random.Random, config: ToyTasksConfig, shown: set[tuple[str, str]]) -> Scene:
    """Draw a scene of a thing that no clip before showed, while there is one."""
    while True:
        start = scene(rng, 1, config.kinds)
        noun = (start.things[0].colour, start.things[0].shape)
        if noun not in shown or len(shown) >= config.kinds**2:
            shown.add(noun)
            return start
