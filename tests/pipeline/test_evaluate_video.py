"""Toy videos and their evaluation: zero-shot, against frames looked at one by one."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from models import checkpoint, weights
from models.config import ORIGINAL, blip_config
from models.roles.video import VideoRetriever
from models.roles.vqa import Answerer
from models.tokenizer import normalise, train
from pipeline import metrics, toy_tasks, watch
from pipeline.evaluate.video import measure_video_questions, measure_video_retrieval
from pipeline.toy_tasks import ToyTasksConfig
from pipeline.toy_video import moving, write_videos
from pipeline.toy_world import is_true, scene
from pipeline.video import read_frames
from shards.video_file import Clip, place_of, read_clips

CLIPS = 10


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, ToyTasksConfig(samples=CLIPS, kinds=4, seed=2))
    return folder


@pytest.fixture(scope="module")
def retriever() -> VideoRetriever:
    return VideoRetriever.load(weights.SHIPPED["tiny-filter"], dtype="fp32")


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    words = train(toy_tasks.corpus(), 300)
    shape = blip_config(
        "tiny", vocab_size=words.size, sep_id=words.sep_id, pad_id=words.pad_id, image_size=32
    )
    shape.vision_config.num_hidden_layers = shape.text_config.num_hidden_layers = 1
    folder = tmp_path_factory.mktemp("answerer") / "vqa"
    checkpoint.create(folder, "vqa", shape, words, seed=5, settings=ORIGINAL)
    return Answerer.load(folder, dtype="fp32")


def frames(role: Any, videos: Path, name: str, count: int) -> torch.Tensor:
    place = place_of(str(videos), name)
    assert place is not None
    images = read_frames(place, count).images
    return torch.stack([role.preprocess.resize(image) for image in images])[None]


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


def test_the_files_say_what_the_videos_show(videos: Path) -> None:
    captions = read_clips(str(videos / "msrvtt_test.jsonl"))
    questions = read_clips(str(videos / "test_qa.json"))
    assert (captions.kind, len(captions.rows), captions.left_out) == ("captions", CLIPS, {})
    assert (questions.kind, len(questions.rows)) == ("questions", 2 * CLIPS)
    for clip in questions.rows:
        own = [one.text for one in captions.rows if one.video == clip.video]
        assert clip.answer in own[0]
    assert len({clip.text for clip in captions.rows}) == CLIPS


def test_retrieval_finds_what_frames_say_one_by_one(
    videos: Path, retriever: VideoRetriever
) -> None:
    clips = read_clips(str(videos / "msrvtt_test.jsonl")).rows
    found = measure_video_retrieval(retriever, clips, str(videos), 4)
    looked = [retriever.look(frames(retriever, videos, clip.video, 4)) for clip in clips]
    texts = [retriever.read([normalise(clip.text)]) for clip in clips]
    cosines = [[float(v.unit[0] @ t.unit[0]) for t in texts] for v in looked]
    ranks = [sorted(-c for c in row).index(-row[n]) + 1 for n, row in enumerate(cosines)]
    assert found["itc"]["tr@1"] == ranks.count(1) / CLIPS
    assert found["itc"]["tr_median_rank"] == sorted(ranks)[CLIPS // 2 - 1 : CLIPS // 2 + 1][0]
    back = list(zip(*cosines, strict=True))
    assert found["itc"]["ir@5"] == metrics.recall_at(back, [[n] for n in range(CLIPS)])[5]
    assert found["itc"]["ir@1"] > 3 / CLIPS  # chance is 1
    itm = [[float(retriever.rank(v, t, 1).to_text) for t in texts] for v in looked]
    right = [[n] for n in range(CLIPS)]
    assert found["itm"]["tr@1"] == metrics.recall_at(itm, right)[1]


def test_questions_are_answered_over_all_frames(videos: Path, answerer: Answerer) -> None:
    clips = read_clips(str(videos / "test_qa.json")).rows
    answers = ["red", "blue", "circle", "diamond"]
    results: list[dict[str, Any]] = []
    found = measure_video_questions(
        answerer, clips, str(videos), 4, answers=answers, results=results
    )
    hits = []
    for clip, one in zip(clips, results, strict=True):
        pixels = frames(answerer, videos, clip.video, 4)
        said = answerer.rank(pixels, [clip.text], answers)[0][0].text
        assert one == {"video_id": clip.video, "question": clip.text, "answer": said}
        hits.append(said == clip.answer)
    assert found["accuracy"] == sum(hits) / len(hits)
    assert found["by_word"] == {"what": found["accuracy"]}
    written = measure_video_questions(answerer, clips[:2], str(videos), 4)
    assert written["questions"] == 2


def test_missing_and_broken_videos_are_counted(
    videos: Path, retriever: VideoRetriever, answerer: Answerer, tmp_path: Path
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
    nothing = measure_video_retrieval(retriever, [], str(tmp_path), 2)
    assert set(nothing["itm"].values()) == {None}
    assert measure_video_questions(answerer, [], str(tmp_path), 2)["accuracy"] is None


def test_watching_is_what_evaluation_sees(
    videos: Path, retriever: VideoRetriever, answerer: Answerer
) -> None:
    (clip, other, *_) = read_clips(str(videos / "msrvtt_test.jsonl")).rows
    seen = read_frames(str(videos / f"{clip.video}.mp4"), 8).images
    found = watch.match(retriever, seen, [other.text, clip.text])
    assert [one.text for one in found] == [other.text, clip.text]
    assert found[1].itc > found[0].itc
    assert sum(one.share for one in found) == pytest.approx(1)
    assert all(0 <= one.itm <= 1 for one in found)
    alone = watch.match(retriever, seen, [clip.text])[0]
    assert (alone.itm, alone.itc) == pytest.approx((found[1].itm, found[1].itc), abs=1e-5)
    (said,) = watch.ask(answerer, seen, "what color is it?")
    assert said.score <= 0
    ranked = watch.ask(answerer, seen, "what color is it?", ["red", "blue"])
    assert {one.text for one in ranked} == {"red", "blue"}
    json.dumps([said.text])
