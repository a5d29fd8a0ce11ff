"""Watching: what is said of a video is said of its frames, by the roles' own numbers."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from models.blip.config import ORIGINAL, blip_config
from models.blip.tokenizer import train
from models.checkpoints import checkpoint, locate
from models.roles.filter import Filter
from models.roles.video import VideoRetriever
from models.roles.vqa import VqaModel
from pipeline.media.video import read_frames
from pipeline.predict import image as use
from pipeline.predict import video as watch
from pipeline.toy import tasks as toy_tasks
from pipeline.toy.tasks import ToyTasksConfig
from pipeline.toy.video import write_videos

TEXTS = ["a red circle on a plain background", "A blue star!", "a blue star"]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> tuple[Image.Image, ...]:
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, ToyTasksConfig(samples=1, kinds=4, seed=2))
    return read_frames(str(folder / "video0.mp4"), 4).images


@pytest.fixture(scope="module")
def retriever() -> VideoRetriever:
    return VideoRetriever.load(locate.SHIPPED["tiny-filter"], dtype="fp32")


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> VqaModel:
    words = train(toy_tasks.corpus(), 300)
    shape = blip_config("tiny", **words.config_fields, image_size=32)
    shape.vision_config.num_hidden_layers = shape.text_config.num_hidden_layers = 1
    folder = tmp_path_factory.mktemp("answerer") / "vqa"
    checkpoint.create(folder, "vqa", shape, words, seed=5, settings=ORIGINAL)
    return VqaModel.load(folder, dtype="fp32")


def test_a_video_of_one_frame_is_matched_as_a_picture(
    frames: tuple[Image.Image, ...], retriever: VideoRetriever
) -> None:
    scorer = Filter.load(locate.SHIPPED["tiny-filter"], dtype="fp32")
    found = watch.match(retriever, frames[:1], TEXTS)
    for one, other in zip(found, use.match(scorer, frames[0], TEXTS), strict=True):
        assert one.text == other.text
        for name in ("itm", "itc", "share"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-4)


def test_cosines_are_of_the_mean_of_all_frames(
    frames: tuple[Image.Image, ...], retriever: VideoRetriever
) -> None:
    found = watch.match(retriever, frames, TEXTS)
    pixels = torch.stack([retriever.preprocess.resize(one) for one in frames])
    alone = torch.stack([retriever.encode_images(one[None, None]).unit[0] for one in pixels])
    texts = retriever.encode_texts(TEXTS).unit
    # the mean of unit vectors is near enough to the unit of the mean where frames are much alike
    expected = torch.nn.functional.normalize(alone.mean(0), dim=0) @ texts.T
    assert [one.itc for one in found] == pytest.approx(expected.tolist(), abs=0.02)
    assert [one.itc for one in found] != pytest.approx((alone[0] @ texts.T).tolist(), abs=1e-4)
    assert found[1].itm == pytest.approx(found[2].itm, abs=1e-6)  # the same text to the model
    assert found[1].itc == pytest.approx(found[2].itc, abs=1e-6)
    assert sum(one.share for one in found) == pytest.approx(1)


def test_a_score_does_not_depend_on_the_other_texts(
    frames: tuple[Image.Image, ...], retriever: VideoRetriever
) -> None:
    together = watch.match(retriever, frames, TEXTS)
    for one in together:
        (alone,) = watch.match(retriever, frames, [one.text])
        assert (alone.itm, alone.itc) == pytest.approx((one.itm, one.itc), abs=1e-5)
        assert alone.share == 1


def test_questions_are_answered_as_of_a_picture(
    frames: tuple[Image.Image, ...], answerer: VqaModel
) -> None:
    question = "what color is it?"
    (one,), (other,) = (
        watch.ask(answerer, frames[:1], question),
        use.ask(answerer, frames[0], question),
    )
    assert one.text == other.text
    assert one.score == pytest.approx(other.score, abs=1e-5)
    ranked = watch.ask(answerer, frames, question, ["red", "blue", "green"])
    assert {one.text for one in ranked} == {"red", "blue", "green"}
    assert [one.score for one in ranked] == sorted((one.score for one in ranked), reverse=True)
    again = watch.ask(answerer, frames[::-1], question, ["red", "blue", "green"])
    assert [one.text for one in again] == [one.text for one in ranked]


def test_folders_give_their_videos_by_name(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("c.mp4", "b/a.WEBM", "notes.txt", "a.avi"):
        (tmp_path / name).write_bytes(b"x")
    found = watch.list_videos([str(tmp_path / "notes.txt"), str(tmp_path), "gone.mp4"])
    expected = [tmp_path / name for name in ("notes.txt", "a.avi", "b/a.WEBM", "c.mp4")]
    assert list(found) == [*map(str, expected), "gone.mp4"]
    assert list(watch.list_videos([str(tmp_path / "b" / "nothing")])) == [
        str(tmp_path / "b" / "nothing")
    ]
