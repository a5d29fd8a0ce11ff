"""Videos evaluated zero-shot, against frames looked at one by one."""

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from models.blip.config import ORIGINAL, blip_config
from models.blip.tokenizer import normalise, train
from models.checkpoints import checkpoint, locate
from models.roles.video import VideoRetriever
from models.roles.vqa import VqaModel
from pipeline.evaluate import metrics
from pipeline.evaluate.video import (
    QUESTIONS_AT_ONCE,
    measure_video_questions,
    measure_video_retrieval,
)
from pipeline.media.video import read_frames
from pipeline.toy import tasks as toy_tasks
from pipeline.toy.tasks import ToyTasksConfig
from pipeline.toy.video import write_videos
from shards.training.video_file import Clip, read_clips, video_location

CLIPS = 10


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, ToyTasksConfig(samples=CLIPS, kinds=8, seed=5))
    return folder


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


def frames(role: Any, videos: Path, name: str, count: int) -> torch.Tensor:
    place = video_location(str(videos), name)
    assert place is not None
    images = read_frames(place, count).images
    return torch.stack([role.preprocess.resize(image) for image in images])[None]


def test_retrieval_finds_what_frames_say_one_by_one(
    videos: Path, retriever: VideoRetriever
) -> None:
    clips = read_clips(str(videos / "msrvtt_test.jsonl")).rows
    measures = measure_video_retrieval(retriever, clips, str(videos), 4)
    looked = [retriever.encode_images(frames(retriever, videos, clip.video, 4)) for clip in clips]
    texts = [retriever.encode_texts([normalise(clip.text)]) for clip in clips]
    cosines = [[float(v.unit[0] @ t.unit[0]) for t in texts] for v in looked]
    ranks = [sorted(-c for c in row).index(-row[n]) + 1 for n, row in enumerate(cosines)]
    assert measures["itc"]["tr@1"] == ranks.count(1) / CLIPS
    back = list(zip(*cosines, strict=True))
    back_ranks = [sorted(-c for c in row).index(-row[n]) + 1 for n, row in enumerate(back)]
    for name, own in (("tr", ranks), ("ir", back_ranks)):
        assert measures["itc"][f"{name}_median_rank"] == statistics.median(own)
    assert statistics.median(ranks) != statistics.median(back_ranks)  # else they prove little
    assert measures["itc"]["ir@5"] == metrics.recall_at(back, [[n] for n in range(CLIPS)])[5]
    assert measures["itc"]["ir@1"] > 3 / CLIPS  # chance is 1
    itm = [[float(retriever.rank(v, t, 1).to_text) for t in texts] for v in looked]
    right = [[n] for n in range(CLIPS)]
    assert measures["itm"]["tr@1"] == metrics.recall_at(itm, right)[1]


def test_equal_captions_are_one_text_of_all_their_videos(
    videos: Path, retriever: VideoRetriever
) -> None:
    text = read_clips(str(videos / "msrvtt_test.jsonl")).rows[0].text
    clips = [
        Clip("video0", f"{text.upper()}."),
        Clip("video1", text),
        Clip("video0", "a plain background"),
        Clip("video2", "a blue star"),
    ]
    measures = measure_video_retrieval(retriever, clips, str(videos), 1)
    assert (measures["videos"], measures["texts"]) == (3, 3)
    looked = [retriever.encode_images(frames(retriever, videos, f"video{n}", 1)) for n in range(3)]
    texts = retriever.encode_texts([text, "a plain background", "a blue star"])
    to_video = [[float(v.unit[0] @ unit) for v in looked] for unit in texts.unit]
    owners = [{0, 1}, {0}, {2}]
    ranks = [
        1 + min(sum(other > row[one] for other in row) for one in own)
        for row, own in zip(to_video, owners, strict=True)
    ]
    assert measures["itc"]["ir_median_rank"] == statistics.median(ranks)
    assert measures["itc"]["ir@1"] == ranks.count(1) / 3


def test_questions_are_answered_over_all_frames(videos: Path, answerer: VqaModel) -> None:
    clips = read_clips(str(videos / "test_qa.json")).rows
    answers = ["red", "blue", "circle", "diamond"]
    results: list[dict[str, Any]] = []
    measures = measure_video_questions(
        answerer, clips, str(videos), 4, answers=answers, results=results
    )
    hits = []
    for clip, one in zip(clips, results, strict=True):
        pixels = frames(answerer, videos, clip.video, 4)
        said = answerer.rank(pixels, [clip.text], answers)[0][0].text
        assert one == {"video_id": clip.video, "question": clip.text, "answer": said}
        hits.append(said == clip.answer)
    assert measures["accuracy"] == sum(hits) / len(hits)
    assert measures["by_word"] == {"what": measures["accuracy"]}
    written = measure_video_questions(answerer, clips[:2], str(videos), 4)
    assert written["questions"] == 2


def test_the_order_of_questions_changes_no_answer(videos: Path, answerer: VqaModel) -> None:
    """Also where a video has more questions than are asked at a time."""
    clips = read_clips(str(videos / "test_qa.json")).rows[:4] * (QUESTIONS_AT_ONCE // 2 + 1)
    together = sorted(clips, key=lambda clip: clip.video)
    assert together[0].video == together[QUESTIONS_AT_ONCE].video != together[-1].video
    answers = ["red", "blue", "circle", "diamond"]

    def said(rows: list[Clip]) -> dict[tuple[str, str], str]:
        results: list[dict[str, Any]] = []
        measure_video_questions(answerer, rows, str(videos), 2, answers=answers, results=results)
        assert [one["question"] for one in results] == [clip.text for clip in rows]
        return {(one["video_id"], one["question"]): one["answer"] for one in results}

    assert said(together) == said(list(clips))


def test_words_are_those_that_papers_report(videos: Path, answerer: VqaModel) -> None:
    asked = ["What is it?", "what's it?", "WHO?", "is it \x1b[31m", "\x1b]8;; red?", "?"]
    clips = [Clip("video0", text, "red") for text in asked]
    found = measure_video_questions(answerer, clips, str(videos), 2)
    assert set(found["by_word"]) == {"what", "who", "other"}
    assert found["questions"] == 6


def test_an_answer_is_right_word_for_word(videos: Path, answerer: VqaModel) -> None:
    rows = [("Red.", 1.0), ("a  RED", 0.0), ("reddish", 0.0), ("red", 1.0)]
    for answer, accuracy in rows:
        clip = Clip("video0", "what color is it?", answer)
        found = measure_video_questions(answerer, [clip], str(videos), 2, answers=["red"])
        assert found["accuracy"] == accuracy


def test_missing_and_broken_videos_are_counted(
    videos: Path, retriever: VideoRetriever, answerer: VqaModel, tmp_path: Path
) -> None:
    (tmp_path / "video0.mp4").write_bytes((videos / "video0.mp4").read_bytes())
    (tmp_path / "broken.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    names = ("video0", "broken", "empty", "gone")
    clips = [Clip(name, "a red circle", "red") for name in names]
    expected = {"video_undecodable": 1, "video_empty": 1, "video_missing": 1}
    found = measure_video_retrieval(retriever, clips, str(tmp_path), 2)
    assert (found["videos"], found["left_out"]) == (1, expected)
    asked = measure_video_questions(answerer, clips, str(tmp_path), 2)
    assert (asked["questions"], asked["left_out"]) == (1, expected)
    gone = [clip for clip in clips if clip.video == "gone"] * 3
    assert measure_video_questions(answerer, gone, str(tmp_path))["left_out"] == {
        "video_missing": 3
    }
    nothing = measure_video_retrieval(retriever, [], str(tmp_path), 2)
    assert set(nothing["itm"].values()) == {None}
    assert measure_video_questions(answerer, [], str(tmp_path), 2)["accuracy"] is None
