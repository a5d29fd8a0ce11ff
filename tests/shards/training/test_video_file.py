"""The field's files about videos: what a row says, why one is left out, where a video lies."""

import json
from pathlib import Path
from typing import Any

import pytest

from shards.training.json_file import AnnotationError
from shards.training.video_file import Clip, read_clips, video_location

CAPTION = {"clip_name": "video1", "caption": "a  dog"}
QUESTION = {"video_id": "video1", "question": "what runs?", "answer": "dog"}


def lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_lines_are_captions_and_a_list_is_questions(tmp_path: Path) -> None:
    found = read_clips(lines(tmp_path / "a.jsonl", [CAPTION, CAPTION | {"clip_name": "video2"}]))
    assert found.kind == "captions"
    assert found.rows == (Clip("video1", "a dog"), Clip("video2", "a dog"))
    path = tmp_path / "qa.json"
    path.write_text(json.dumps([QUESTION]))
    found = read_clips(str(path))
    assert (found.kind, found.rows) == ("questions", (Clip("video1", "what runs?", "dog"),))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"clip_name": "x"}, "missing_column"),
        ({"clip_name": 3.5, "caption": "a"}, "wrong_type"),
        ({"clip_name": True, "caption": "a"}, "wrong_type"),
        ({"clip_name": "", "caption": "a"}, "video_missing"),
        ({"clip_name": "x", "caption": None}, "null_value"),
        ({"clip_name": "x", "caption": " "}, "text_empty"),
        ({"clip_name": "../x", "caption": "a"}, "unsafe_member"),
        ({"clip_name": "/etc/passwd", "caption": "a"}, "unsafe_member"),
        (3, "wrong_type"),
    ],
)
def test_a_bad_row_is_counted(tmp_path: Path, row: Any, reason: str) -> None:
    found = read_clips(lines(tmp_path / "a.jsonl", [CAPTION, row, CAPTION]))
    assert len(found.rows) == 2
    assert found.left_out == {reason: 1}


def test_a_blank_answer_and_a_broken_line_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "qa.json"
    path.write_text(json.dumps([QUESTION, QUESTION | {"answer": "  "}]))
    assert read_clips(str(path)).left_out == {"text_empty": 1}
    path.write_text(f"{json.dumps(CAPTION)}\n{{broken\n\n{json.dumps(CAPTION)}")
    assert read_clips(str(path)).left_out == {"wrong_type": 1}


@pytest.mark.parametrize("content", ["", "[]", "[3]", "{}", "no JSON", '[{"image": 1}]', "[{"])
def test_another_file_is_one_message(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=r"rows\.json"):
        read_clips(str(path))
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(AnnotationError, match="cannot be read as JSON"):
        read_clips(str(path))


def test_a_line_end_within_a_text_ends_no_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(CAPTION | {"caption": "a\u2028dog"}, ensure_ascii=False))
    assert read_clips(str(path)).rows == (Clip("video1", "a dog"),)


@pytest.mark.parametrize("name", ["7010.mp4", "video7010.mp4", "vid7010.avi"])
def test_a_number_names_a_video_as_the_data_sets_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / "qa.json"
    path.write_text(json.dumps([QUESTION | {"video_id": 7010}]))
    (clip,) = read_clips(str(path)).rows
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "video701.mp4").write_bytes(b"x")
    assert Path(str(video_location(str(tmp_path), clip.video))).name == name


def test_videos_are_found_by_their_name(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.avi", "c.webm"):
        (tmp_path / name).write_bytes(b"x")
    assert [Path(str(video_location(str(tmp_path), n))).name for n in ("a", "b", "c.webm")] == [
        "a.mp4",
        "b.avi",
        "c.webm",
    ]
    assert video_location(str(tmp_path), "gone") is None
    assert video_location(str(tmp_path / "none"), "a") is None
