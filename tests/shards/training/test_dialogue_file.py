"""VisDial's file: what a round says, why one is left out, and which picture a number means."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shards.training.annotation import WeightedAnswer
from shards.training.annotation_file import read_annotations
from shards.training.dialogue_file import DialogueRound, dialogues, is_dialogues
from shards.training.json_file import AnnotationError
from shards.training.source import SourceConfig, SourceError
from shards.training.source_reader import open_source, read_part

QUESTIONS, ANSWERS = ["what color?", " how  many? ", ""], ["red", "two", ""]
ROUND = {"question": 0, "answer": 0, "answer_options": [1, 0], "gt_index": 1}


def file_of(*rounds: dict[str, Any], **changed: Any) -> dict[str, Any]:
    dialog = {"image_id": 7, "caption": "a  dog", "dialog": list(rounds)} | changed
    return {"data": {"questions": QUESTIONS, "answers": ANSWERS, "dialogs": [dialog]}}


def test_numbers_become_words() -> None:
    left_out: Counter[str] = Counter()
    (one,) = dialogues(file_of(ROUND, {"question": 1, "answer": 1}), left_out)
    assert (one.image_id, one.caption) == (7, "a dog")
    assert one.rounds == (
        DialogueRound(1, "what color?", "red", ("two", "red"), 1),
        DialogueRound(2, "how many?", "two"),
    )
    assert not left_out


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"question": 99}, "wrong_type"),
        ({"question": -1}, "wrong_type"),
        ({"question": True}, "wrong_type"),
        ({"question": 2}, "text_empty"),
        ({"answer": 99}, "wrong_type"),
        ({"answer": "red"}, "wrong_type"),
        ({"answer_options": [0, 99]}, "wrong_type"),
        ({"answer_options": {"0": 1}}, "wrong_type"),
        ({"gt_index": 2}, "wrong_type"),
        ({"gt_index": 0.0}, "wrong_type"),
    ],
)
def test_a_broken_round_is_counted_and_the_others_go_on(
    changed: dict[str, Any], reason: str
) -> None:
    left_out: Counter[str] = Counter()
    (one,) = dialogues(file_of(ROUND, ROUND | changed, ROUND), left_out)
    assert [each.number for each in one.rounds] == [1, 3]
    assert left_out == {reason: 1}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"image_id": "7"}, "wrong_type"),
        ({"image_id": None}, "wrong_type"),
        ({"caption": None}, "wrong_type"),
        ({"dialog": None}, "wrong_type"),
        ({"dialog": []}, "text_empty"),
    ],
)
def test_a_broken_dialogue_is_counted(changed: dict[str, Any], reason: str) -> None:
    left_out: Counter[str] = Counter()
    assert list(dialogues(file_of(ROUND, **changed), left_out)) == []
    assert left_out == {reason: 1}


@pytest.mark.parametrize("found", [[], {}, {"data": []}, {"data": {"dialogs": []}}, None])
def test_other_files_are_no_dialogues(found: Any) -> None:
    assert not is_dialogues(found)


def test_a_test_split_does_not_tell_its_last_answer() -> None:
    """VisDial's test split has candidates, but neither answer nor place."""
    (one,) = dialogues(file_of({"question": 0, "answer_options": [0, 1]}), Counter())
    assert one.rounds == (DialogueRound(1, "what color?", "", ("red", "two"), None),)


def test_each_answered_question_is_a_row_with_what_came_before(tmp_path: Path) -> None:
    (tmp_path / "VisualDialog_val2018_000000000007.jpg").write_bytes(b"a picture")
    last = {"question": 0, "answer_options": [0, 1]}
    path = tmp_path / "visdial.json"
    path.write_text(json.dumps(file_of(ROUND, {"question": 1, "answer": 1}, ROUND, last)))
    source = open_source(SourceConfig(annotations=str(path)))
    assert (source.kind, source.rows, source.left_out) == ("dialogues", 3, {"text_empty": 1})
    found = [sample for part in source.parts for sample in read_part(part)]
    texts = [sample.texts[0] for sample in found]
    assert {sample.image for sample in found} == {b"a picture"}
    assert [text.caption for text in texts] == ["a dog"] * 3
    assert [text.answers for text in texts] == [
        (WeightedAnswer(said, 1.0),) for said in ("red", "two", "red")
    ]
    assert texts[0].rounds == ()
    assert texts[2].rounds == (("what color?", "red"), ("how many?", "two"))


def test_a_missing_picture_is_empty_and_a_wrong_folder_refused(tmp_path: Path) -> None:
    path, images = tmp_path / "visdial.json", tmp_path / "images"
    path.write_text(json.dumps(file_of(ROUND)))
    with pytest.raises(SourceError, match="none of the pictures"):
        open_source(SourceConfig(annotations=str(path), images=str(images)))
    two = file_of(ROUND)
    two["data"]["dialogs"].append(two["data"]["dialogs"][0] | {"image_id": 8})
    path.write_text(json.dumps(two))
    other = tmp_path / "other"
    other.mkdir()
    (other / "8.png").write_bytes(b"eight")
    source = open_source(SourceConfig(annotations=str(path), images=str(other)))
    assert [sample.image for sample in read_part(source.parts[0])] == [b"", b"eight"]


def test_what_is_neither_a_list_nor_dialogues_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"data": 3}')
    with pytest.raises(AnnotationError, match="expected a JSON list of rows, found dict"):
        read_annotations(str(path))
