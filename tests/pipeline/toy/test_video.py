"""Toy videos: what moves, and what the files say about it."""

import random
from pathlib import Path

import numpy as np
import pytest

from pipeline.media.video import read_frames
from pipeline.toy.shapes import COLOURS
from pipeline.toy.tasks import ToyTasksConfig
from pipeline.toy.video import FRAMES, moving, write_videos
from pipeline.toy.world import is_true, scene
from shards.training.video_file import read_clips, video_location

CLIPS = 10


def test_a_moving_shape_stays_what_it_is_and_moves() -> None:
    rng = random.Random(1)
    for _ in range(20):
        start = scene(rng, 1, 4)
        scenes = list(moving(start, rng))
        thing = start.things[0]
        assert all(is_true(f"a {thing.colour} {thing.shape}", one) for one in scenes)
        assert all(0 <= edge <= 1 for one in scenes for edge in one.things[0].box)
        first, last = scenes[0].things[0].box, scenes[-1].things[0].box
        assert max(abs(a - b) for a, b in zip(first, last, strict=True)) > 0.3


def test_the_files_say_what_the_videos_show(tmp_path: Path) -> None:
    config = ToyTasksConfig(samples=CLIPS, kinds=4, seed=2)
    lines, rows = write_videos(tmp_path, config)
    captions, questions = read_clips(str(lines)), read_clips(str(rows))
    assert (captions.kind, len(captions.rows), captions.left_out) == ("captions", CLIPS, {})
    assert (questions.kind, len(questions.rows)) == ("questions", 2 * CLIPS)
    for clip in questions.rows:
        own = [one.text for one in captions.rows if one.video == clip.video]
        assert clip.answer in own[0]
    assert len({clip.text for clip in captions.rows}) == CLIPS


@pytest.mark.parametrize("frames", [1, 2, FRAMES])
def test_a_shape_goes_straight_from_edge_to_edge(frames: int) -> None:
    for seed in range(8):
        rng = random.Random(seed)
        boxes = [one.things[0].box for one in moving(scene(rng, 1), rng, frames)]
        assert len(boxes) == frames
        lefts, tops = ([box[axis] for box in boxes] for axis in (0, 1))
        assert len(set(lefts)) == 1 or len(set(tops)) == 1
        moved = lefts if len(set(tops)) == 1 else tops
        assert moved in (sorted(moved), sorted(moved, reverse=True))
        sides = {round(box[2] - box[0], 6) for box in boxes}
        assert len(sides) == 1


def test_a_written_frame_is_the_drawn_one(tmp_path: Path) -> None:
    """As good as a codec leaves it: the shape's colour stands where the caption's shape is."""
    write_videos(tmp_path, ToyTasksConfig(samples=4, kinds=4, seed=1, image_px=64))
    for clip in read_clips(str(tmp_path / "msrvtt_test.jsonl")).rows:
        place = video_location(str(tmp_path), clip.video)
        assert place is not None
        (colour,) = (name for name in COLOURS if f" {name} " in clip.text)
        for image in read_frames(place, 8).images:
            pixels = np.asarray(image, dtype=int)
            near = np.abs(pixels - COLOURS[colour]).max(-1) < 60
            assert image.size == (64, 64)
            assert 0.02 < near.mean() < 0.5


def test_the_same_config_writes_the_same_files(tmp_path: Path) -> None:
    """Videos look alike: on a busy machine x264 now and then chooses other bytes."""
    config = ToyTasksConfig(samples=3, kinds=4, seed=7)
    for name in ("first", "second"):
        write_videos(tmp_path / name, config)
    for path in (tmp_path / "first").iterdir():
        again = tmp_path / "second" / path.name
        if path.suffix in (".json", ".jsonl"):
            assert path.read_bytes() == again.read_bytes()
            continue
        shown, shown_again = (read_frames(str(file), FRAMES).images for file in (path, again))
        assert len(shown) == len(shown_again) == FRAMES
        for image, other in zip(shown, shown_again, strict=True):
            apart = np.abs(np.asarray(image, dtype=int) - np.asarray(other, dtype=int))
            assert apart.mean() < 1


def test_more_clips_than_nouns_are_possible(tmp_path: Path) -> None:
    _, rows = write_videos(tmp_path, ToyTasksConfig(samples=6, kinds=2))
    clips = read_clips(str(rows)).rows
    assert len({clip.video for clip in clips}) == 6
    assert len({(clip.text, clip.answer) for clip in clips[: 2 * 4]}) == 8
