"""Files as data sets publish them give the rows that the field's loaders have from theirs."""

import json
from pathlib import Path
from typing import Any

import pytest

from shards.training.annotation_file import read_annotations, read_rows
from shards.training.json_file import AnnotationError
from shards.training.raw_file import people_answers, rows_of


def row_of(rows: Any, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row.get(name, "none") for name in names) for row in rows]


def karpathy(*splits: str, folder: str | None = "val2014") -> dict[str, Any]:
    images = [
        {
            "filename": f"COCO_val2014_{number:012d}.jpg",
            "imgid": number,
            "sentids": [number],
            "split": split,
            "sentences": [{"raw": f"caption {number}", "tokens": ["caption"]}, {"raw": "two"}],
            "cocoid": 1000 + number,
        }
        for number, split in enumerate(splits)
    ]
    for image in images:
        image |= {"filepath": folder} if folder else {}
    return {"dataset": "coco", "images": images}


COCO_IMAGES = [
    {"id": 9, "file_name": "COCO_val2014_000000000009.jpg", "height": 4, "license": 1},
    {"id": 25, "file_name": "COCO_val2014_000000000025.jpg"},
]
COCO = {
    "info": {},
    "licenses": [],
    "images": COCO_IMAGES,
    "annotations": [
        {"image_id": 25, "id": 1, "caption": "a giraffe"},
        {"image_id": 9, "id": 2, "caption": "food"},
        {"image_id": 25, "id": 3, "caption": "two giraffes"},
    ],
}
QUESTIONS = {
    "task_type": "Open-Ended",
    "data_subtype": "val2014",
    "questions": [
        {"image_id": 42, "question": "is it red?", "question_id": 420},
        {"image_id": 42, "question": "how many?", "question_id": 421},
        {"image_id": 43, "question": "where?", "question_id": 430},
    ],
}
PEOPLE = {
    "data_subtype": "val2014",
    "annotations": [
        {
            "question_id": number,
            "image_id": 42,
            "question_type": "how many",
            "answer_type": "number",
            "multiple_choice_answer": "2",
            "answers": [
                {"answer": said, "answer_confidence": "yes", "answer_id": n}
                for n, said in enumerate(["2", "2", "3"], 1)
            ],
        }
        for number in (421, 420)
    ],
}


def test_karpathy() -> None:
    rows = rows_of("k.json", karpathy("test", "val", "test"), "test")
    assert row_of(rows, "image", "caption", "img_id") == [
        ("val2014/COCO_val2014_000000000000.jpg", ["caption 0", "two"], 1000),
        ("val2014/COCO_val2014_000000000002.jpg", ["caption 2", "two"], 1002),
    ]
    flickr = rows_of("f.json", karpathy("test", folder=None))
    assert row_of(flickr, "image") == [("COCO_val2014_000000000000.jpg",)]


@pytest.mark.parametrize(
    ("split", "count"), [("test", 2), ("train+restval", 3), (" val + test ", 3), ("restval", 1)]
)
def test_splits_are_chosen(split: str, count: int) -> None:
    parsed = karpathy("test", "train", "val", "train", "restval", "test")
    assert len(rows_of("k.json", parsed, split) or ()) == count


def test_splits_are_told_where_none_is_chosen_or_another() -> None:
    parsed = karpathy("test", "train", "train")
    with pytest.raises(AnnotationError, match=r"k\.json has splits \(train 2, test 1\).*--split"):
        rows_of("k.json", parsed)
    with pytest.raises(AnnotationError, match="has no split 'tset'; it has: train 2, test 1"):
        rows_of("k.json", parsed, "tset")
    with pytest.raises(AnnotationError, match="no split 'test'; it has: none"):
        rows_of("coco.json", COCO, "test")
    with pytest.raises(AnnotationError, match="has splits"):
        rows_of("k.jsonl", parsed["images"])  # a line for each picture
    assert len(rows_of("k.jsonl", parsed["images"], "train") or ()) == 2
    only = rows_of("k.json", karpathy("test", "test"))
    assert len(only or ()) == 2  # there is nothing to choose


def test_coco_captions_are_gathered_by_picture() -> None:
    rows = rows_of("captions_val2014.json", COCO)
    assert row_of(rows, "image", "caption", "img_id") == [
        ("COCO_val2014_000000000009.jpg", ["food"], 9),
        ("COCO_val2014_000000000025.jpg", ["a giraffe", "two giraffes"], 25),
    ]
    alone = rows_of("nocaps_test_image_info.json", {"images": COCO_IMAGES})
    assert row_of(alone, "image", "caption", "img_id") == [
        ("COCO_val2014_000000000009.jpg", "none", 9),
        ("COCO_val2014_000000000025.jpg", "none", 25),
    ]


@pytest.mark.parametrize(
    "annotation",
    [
        {"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": []},
        {"image_id": 9, "keypoints": [1, 2, 3], "num_keypoints": 1},
        {"image_id": 9, "file_name": "9.png", "segments_info": []},
    ],
)
def test_coco_without_captions_is_refused_by_name(annotation: dict[str, Any]) -> None:
    with pytest.raises(AnnotationError, match=r"instances.*expected captions_\*\.json"):
        rows_of("instances_val2014.json", {"images": COCO_IMAGES, "annotations": [annotation]})


def test_questions_and_the_file_of_their_answers(tmp_path: Path) -> None:
    answers, questions = tmp_path / "annotations.json", tmp_path / "questions.json"
    answers.write_text(json.dumps(PEOPLE))
    questions.write_text(json.dumps(QUESTIONS))
    rows = rows_of("q.json", QUESTIONS, None, str(answers))
    names = ("image", "question", "answer", "answer_type", "question_type")
    assert row_of(rows, *names) == [
        (42, "is it red?", ["2", "2", "3"], "number", "how many"),
        (42, "how many?", ["2", "2", "3"], "number", "how many"),
        (43, "where?", "none", "none", "none"),
    ]
    assert row_of(rows_of("q.json", QUESTIONS), "image", "answer") == [(42, "none")] * 2 + [
        (43, "none")
    ]
    found = read_annotations(str(questions), answers=str(answers))
    assert (found.kind, len(found.rows), found.left_out) == ("questions", 2, {"missing_column": 1})
    with pytest.raises(AnnotationError, match="answers stand in a file of their own"):
        read_annotations(str(questions))
    for answer in PEOPLE["annotations"]:
        assert isinstance(answer, dict)
        del answer["answers"]
    answers.write_text(json.dumps(PEOPLE))
    assert row_of(rows_of("q.json", QUESTIONS, None, str(answers)), "answer")[0] == (["2"],)


def test_a_wrong_file_of_answers_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('["yes", "no"]')
    with pytest.raises(AnnotationError, match=r"expected VQA's annotations"):
        rows_of("q.json", QUESTIONS, None, str(path))
    other = {"annotations": [{"question_id": 7, "answers": [{"answer": "yes"}]}]}
    path.write_text(json.dumps(other))
    with pytest.raises(AnnotationError, match="answers none of the 3 questions"):
        rows_of("q.json", QUESTIONS, None, str(path))
    with pytest.raises(AnnotationError, match=r"give the file of the questions.*--answers"):
        rows_of("a.json", other)
    assert people_answers(COCO) is None


VISUAL_GENOME = [
    {"id": 1, "qas": [{"qa_id": 5, "image_id": 1, "question": "what?", "answer": "A dog."}]},
    {"id": 2, "qas": [{"qa_id": 6, "image_id": 2, "question": "who?", "answer": "Me."}] * 2},
    {"id": 3, "qas": []},
]
NLVR = {
    "sentence": "both are dogs",
    "identifier": "dev-850-0-1",
    "label": "False",
    "left_url": "http://example.org/a.jpg",
}
TEXT_CAPS = {
    "dataset_name": "textcaps",
    "data": [
        {
            "image_id": image,
            "image_path": f"train/{image}.jpg",
            "caption_str": f"caption {number}",
            "reference_strs": ["all of them"],
            "caption_id": number,
        }
        for number, image in enumerate(["0a1", "0b2", "0a1"])
    ],
}


@pytest.mark.parametrize(
    ("parsed", "names", "expected"),
    [
        (
            VISUAL_GENOME,
            ("image", "question", "answer", "dataset"),
            [(1, "what?", "A dog.", "vg"), (2, "who?", "Me.", "vg"), (2, "who?", "Me.", "vg")],
        ),
        (
            [NLVR],
            ("images", "sentence", "label"),
            [(["dev-850-0-img0.png", "dev-850-0-img1.png"], "both are dogs", "False")],
        ),
        (
            TEXT_CAPS,
            ("image", "caption"),
            [("0a1", ["caption 0", "caption 2"]), ("0b2", ["caption 1"])],
        ),
        (
            {"data": [{"image_id": "0a1", "question": "what?", "answers": ["a", "b"]}]},  # TextVQA
            ("image", "question", "answer"),
            [("0a1", "what?", ["a", "b"])],
        ),
        (
            [{"image": "V_1.jpg", "question": "q?", "answers": [{"answer": "a"}, {"answer": "b"}]}],
            ("image", "answer"),  # VizWiz
            [("V_1.jpg", ["a", "b"])],
        ),
        (
            [{"image_id": 3, "question": "q?", "direct_answers": ["a"], "choices": ["a", "b"]}],
            ("image", "answer"),  # A-OKVQA
            [(3, ["a"])],
        ),
        ({"data": [{"image": "a.jpg", "caption": "a"}]}, ("image", "caption"), [("a.jpg", "a")]),
        ([{"image": "a.jpg", "captions": ["a", "b"]}], ("caption",), [(["a", "b"],)]),
        ({"annotations": [{"image_id": 9, "caption": "a"}]}, ("image", "caption"), [(9, "a")]),
        (
            [{"image": "a.jpg", "image_id": "coco_1", "caption": "a"}],  # as it is
            ("image", "caption"),
            [("a.jpg", "a")],
        ),
        ([3, None, {"image": None}], ("image",), "untouched"),
    ],
)
def test_other_forms(parsed: Any, names: tuple[str, ...], expected: Any) -> None:
    rows = rows_of("a.json", parsed)
    assert rows == parsed if expected == "untouched" else row_of(rows, *names) == expected


@pytest.mark.parametrize(
    "parsed", [None, 3, "x", {}, {"data": {}}, {"data": 3}, {"images": 3}, {"questions": {}}]
)
def test_what_has_no_form(parsed: Any) -> None:
    assert rows_of("a.json", parsed) is None


@pytest.mark.parametrize("odd", [None, 3, [], {"sentences": None}, {"filename": 3, "sentences": 3}])
def test_odd_rows_among_good_ones_are_left_to_be_counted(tmp_path: Path, odd: Any) -> None:
    path = tmp_path / "k.json"
    parsed = karpathy("test", "test")
    path.write_text(json.dumps({"images": [odd, *parsed["images"]]}))
    found = read_annotations(str(path))
    assert (len(found.rows), sum(found.left_out.values())) == (2, 1)


def test_raw_and_loaders_files_say_the_same(tmp_path: Path) -> None:
    raw, loaders = tmp_path / "raw.json", tmp_path / "loaders.json"
    raw.write_text(json.dumps(karpathy("train", "test", "train")))
    loaders.write_text(
        json.dumps(
            [
                {
                    "image": f"val2014/COCO_val2014_{number:012d}.jpg",
                    "caption": [f"caption {number}", "two"],
                }
                for number in (0, 2)
            ]
        )
    )
    chosen = read_annotations(str(raw), split="train")
    assert chosen.rows == read_annotations(str(loaders)).rows
    others = read_annotations(str(raw), split="test")
    assert len({chosen.sha256, others.sha256}) == 2  # other samples, another source
    assert [row["image"] for row in read_rows(str(raw), ["image"], "test")] == [
        "val2014/COCO_val2014_000000000001.jpg"
    ]


def test_captions_join_no_picture_that_they_do_not_name() -> None:
    rows = rows_of(
        "textcaps.json",
        {
            "data": [
                {"image": "a.jpg", "caption_str": "a"},
                {"image_path": "b.jpg", "caption_str": "b"},
                {"image_id": None, "caption_str": "nobody's"},
                {"caption_str": "nobody's"},
                {"image": "a.jpg", "caption_str": "a again"},
            ]
        },
    )
    assert row_of(rows, "image", "caption") == [
        ("a.jpg", ["a", "a again"]),
        ("b.jpg", ["b"]),
        (None, ["nobody's"]),
        ("none", ["nobody's"]),
    ]


def test_ids_that_are_null_join_nothing_and_floats_are_numbers() -> None:
    images = [{"id": None, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    annotations = [
        {"image_id": None, "caption": "null"},
        {"image_id": True, "caption": "true"},
        {"image_id": 1.0, "caption": "float"},
        {"image_id": "1", "caption": "text"},
    ]
    rows = rows_of("coco.json", {"images": images, "annotations": annotations})
    assert row_of(rows, "image", "caption") == [("a.jpg", "none"), ("b.jpg", ["float", "text"])]


def test_two_pictures_of_one_id_are_told() -> None:
    images = [{"id": 1, "file_name": name} for name in ("a.jpg", "a.jpg", "b.jpg")]
    said = [{"image_id": 1, "caption": "of which?"}]
    assert len(rows_of("c.json", {"images": images[:2], "annotations": said}) or []) == 2
    with pytest.raises(AnnotationError, match=r"the id 1, 'a.jpg' and 'b.jpg'"):
        rows_of("coco.json", {"images": images, "annotations": said})


def test_answers_about_another_picture_are_not_joined(tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    questions = [{"question_id": 1, "image_id": 5, "question": "what?"}, {"question": "no id?"}]

    def answered(**fields: Any) -> Any:
        given = {"question_id": 1, "image_id": 5, "answers": [{"answer": "a"}], **fields}
        nobody = {"question_id": None, "answers": [{"answer": "nobody's"}]}
        answers.write_text(json.dumps({"annotations": [given, nobody]}))
        return rows_of("q.json", {"questions": questions}, answers=str(answers))

    for image_id in (5, 5.0, "5", None):
        assert row_of(answered(image_id=image_id), "answer") == [(["a"],), ("none",)]
    with pytest.raises(AnnotationError, match=r"question 1 is about picture 5.*about 99"):
        answered(image_id=99)
