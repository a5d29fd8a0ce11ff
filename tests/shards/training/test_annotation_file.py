"""The field's annotation files: what a row says, why one is left out, and how they are read."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.files.regular import NotRegular
from shards.inputs.shard import InputChanged
from shards.training.annotation import SourceText, WeightedAnswer
from shards.training.annotation_file import (
    Annotation,
    read_annotations,
    read_answers,
)
from shards.training.json_file import AnnotationError
from shards.training.source import Source, SourceConfig, SourceError, SourceSample
from shards.training.source_reader import open_source, read_part
from shards.training.stream import TrainingStream

CAPTION = {"image": "val2014/1.jpg", "caption": "a dog"}
QUESTION = {"image": "1.jpg", "question": "what?", "answer": ["a", "a", "b", "a"]}
STATEMENT = {"images": ["l.png", "r.png"], "sentence": "both", "label": "True"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], str]:
    """Write rows as a file; text as it is."""

    def put(rows: Any) -> str:
        path = tmp_path / "rows.json"
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        return str(path)

    return put


def human(*texts: str) -> tuple[SourceText, ...]:
    return tuple(SourceText(text, "human") for text in texts)


@pytest.mark.parametrize(
    ("first", "changed", "expected"),
    [
        (CAPTION, {}, Annotation(("val2014/1.jpg",), human("a dog"))),
        (
            CAPTION,
            {"caption": ["a  dog", "one\ndog"]},
            Annotation(("val2014/1.jpg",), human("a dog", "one dog")),
        ),
        (CAPTION, {"caption": [" ", "a dog"]}, Annotation(("val2014/1.jpg",), human("a dog"))),
        (CAPTION, {"caption": []}, "text_empty"),
        (CAPTION, {"caption": " "}, "text_empty"),
        (CAPTION, {"caption": None}, "null_value"),
        (CAPTION, {"caption": [None, None]}, "null_value"),
        (CAPTION, {"caption": ["a dog", None]}, Annotation(("val2014/1.jpg",), human("a dog"))),
        (CAPTION, {"caption": ["a dog", 3]}, "wrong_type"),
        (CAPTION, {"caption": "\ud800"}, "wrong_type"),
        (CAPTION, {"image": None}, "image_missing"),
        (CAPTION, {"image": ""}, "image_missing"),
        (CAPTION, {"image": "../../etc/passwd"}, "unsafe_member"),
        (CAPTION, {"image": "/etc/../passwd"}, "unsafe_member"),
        (CAPTION, {"image": "a/%2e%2e/%2e%2e/b.jpg"}, "unsafe_member"),
        (CAPTION, {"image": "file:///a/../../b.jpg"}, "unsafe_member"),
        (CAPTION, {"image": True}, "image_missing"),
        (CAPTION, {"image": "\ud800.jpg"}, "image_missing"),
        (CAPTION, {"image": "a\\..\\b"}, "unsafe_member"),
        (CAPTION, {"image": "a\0b"}, "unsafe_member"),
        (
            QUESTION,
            {},
            Annotation(
                ("1.jpg",),
                (
                    SourceText(
                        "what?", "human", (WeightedAnswer("a", 0.75), WeightedAnswer("b", 0.25))
                    ),
                ),
            ),
        ),
        (
            QUESTION,
            {"answer": "a  b"},
            Annotation(("1.jpg",), (SourceText("what?", "human", (WeightedAnswer("a b", 1.0),)),)),
        ),
        (
            QUESTION,
            {"answer": "a", "dataset": "vg"},
            Annotation(("1.jpg",), (SourceText("what?", "human", (WeightedAnswer("a", 0.2),)),)),
        ),
        (
            QUESTION,  # a blank answer keeps its weight, and is not learned
            {"answer": ["a", " ", "a", ""]},
            Annotation(("1.jpg",), (SourceText("what?", "human", (WeightedAnswer("a", 0.5),)),)),
        ),
        (QUESTION, {"answer": ["", " "]}, "text_empty"),
        (QUESTION, {"answer": []}, "text_empty"),
        (QUESTION, {"answer": {"a": 1}}, "wrong_type"),
        (QUESTION, {"question": " "}, "text_empty"),
        (QUESTION, {"question": 4}, "wrong_type"),
        (
            STATEMENT,
            {},
            Annotation(("l.png", "r.png"), (SourceText("both", "human", label=True),)),
        ),
        (
            STATEMENT,
            {"label": "False"},
            Annotation(("l.png", "r.png"), (SourceText("both", "human", label=False),)),
        ),
        (
            STATEMENT,
            {"label": False},
            Annotation(("l.png", "r.png"), (SourceText("both", "human", label=False),)),
        ),
        (STATEMENT, {"label": "maybe"}, "wrong_type"),
        (STATEMENT, {"images": ["l.png"]}, "wrong_type"),
        (STATEMENT, {"images": "l.png"}, "wrong_type"),
        (STATEMENT, {"images": ["l.png", "../r.png"]}, "unsafe_member"),
        (STATEMENT, {"sentence": ""}, "text_empty"),
    ],
)
def test_a_row_or_the_reason(
    write: Callable[[Any], str], first: Any, changed: Any, expected: Annotation | str
) -> None:
    found = read_annotations(write([first, first | changed]))
    if isinstance(expected, str):
        assert (len(found.rows), found.left_out) == (1, {expected: 1})
    else:
        assert (found.rows[1], found.left_out) == (expected, {})


@pytest.mark.parametrize("bad", [3, None, "x", [], {}, {"image": "1.jpg"}])
def test_a_row_that_is_none_takes_no_other_along(write: Callable[[Any], str], bad: Any) -> None:
    found = read_annotations(write([bad, CAPTION, bad]))
    assert [row.texts for row in found.rows] == [human("a dog")]
    assert sum(found.left_out.values()) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("{}", "expected a JSON list of rows, found dict"),
        ("[]", "no row has the fields"),
        ('[{"file": "1.jpg"}]', r"captions: image, caption.*the first has \['file'\]"),
    ],
)
def test_what_is_no_list_of_annotations_is_refused(
    write: Callable[[Any], str], content: str, said: str
) -> None:
    with pytest.raises(AnnotationError, match=said):
        read_annotations(write(content))


def test_a_pipe_is_no_file() -> None:
    read, write = os.pipe()
    os.write(write, b'["yes"]')
    os.close(write)
    with pytest.raises(NotRegular, match="is a named pipe, expected a file"):
        read_answers(f"/dev/fd/{read}")
    os.close(read)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"gone\.json is no file"):
        read_annotations(str(tmp_path / "gone.json"))


# --- as a source


def samples(source: Source) -> list[SourceSample]:
    return [sample for part in source.parts for sample in read_part(part)]


def test_a_source_gives_every_row_with_its_pictures(tmp_path: Path, write: Any) -> None:
    for name in ("l.png", "r.png"):
        (tmp_path / name).write_bytes(name.encode())
    rows = [STATEMENT | {"sentence": str(number)} for number in range(600)]
    source = open_source(SourceConfig(annotations=write([*rows, {}])))
    assert (source.kind, source.rows, source.left_out) == ("statements", 600, {"missing_column": 1})
    assert len(source.parts) == 3  # parts are what an epoch shuffles
    found = samples(source)
    assert [sample.texts[0].text for sample in found] == [str(number) for number in range(600)]
    assert {(sample.image, sample.right) for sample in found} == {(b"l.png", b"r.png")}
    assert len({sample.key for sample in found}) == 600


def test_pictures_lie_beside_the_file_or_in_a_folder_that_is_named(
    tmp_path: Path, write: Any
) -> None:
    places = {"beside": tmp_path / "val2014", "named": tmp_path / "coco" / "val2014"}
    for name, folder in places.items():
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_text(name)
    gone = CAPTION | {"image": "val2014/gone.jpg"}
    url = write([CAPTION, gone])
    beside = samples(open_source(SourceConfig(annotations=url)))
    named = samples(open_source(SourceConfig(annotations=url, images=str(tmp_path / "coco"))))
    assert [sample.image for sample in beside] == [b"beside", b""]  # a missing one is empty
    assert [sample.image for sample in named] == [b"named", b""]


def test_a_folder_of_other_pictures_is_refused_at_once(tmp_path: Path, write: Any) -> None:
    with pytest.raises(SourceError, match=r"none of the pictures of its first 3 rows.*1\.jpg"):
        open_source(SourceConfig(annotations=write([CAPTION] * 3), images=str(tmp_path)))


def test_a_file_that_changed_is_refused_and_a_moved_one_is_the_same(
    tmp_path: Path, write: Any
) -> None:
    here = CAPTION | {"image": "rows.json"}  # any file that is there
    source = open_source(SourceConfig(annotations=write([here])))
    moved = tmp_path / "moved" / "rows.json"
    moved.parent.mkdir()
    moved.write_text((tmp_path / "rows.json").read_text())
    assert open_source(SourceConfig(annotations=str(moved))).name == source.name
    write([here | {"caption": "another dog"}])
    with pytest.raises(InputChanged, match="restore it"):
        samples(source)


def test_no_usable_row_is_an_error_that_says_why(write: Any) -> None:
    rows = [CAPTION | {"caption": ""}, CAPTION | {"caption": None}, CAPTION | {"caption": " "}]
    with pytest.raises(SourceError) as raised:
        open_source(SourceConfig(annotations=write(rows)))
    said = str(raised.value)
    assert "no sample to train on. Of 3 each was left out: text_empty 2 (the first: row 1: " in said
    assert "null_value 1 (the first: row 2: {'caption': None, 'image': 'val2014/1.jpg'})" in said


def test_pictures_are_found_by_names_of_other_machines(tmp_path: Path, write: Any) -> None:
    (tmp_path / "val2014").mkdir()
    (tmp_path / "val2014" / "1.jpg").write_bytes(b"one")
    names = ["C:\\coco\\val2014\\1.jpg", "/mnt/coco/val2014/1.jpg", "coco/val2014/1.jpg", "1.jpg"]
    url = write([CAPTION | {"image": name} for name in [*names, "../1.jpg", "/mnt/2.jpg"]])
    source = open_source(SourceConfig(annotations=url))
    assert source.left_out == {"unsafe_member": 1}
    assert [sample.image for sample in samples(source)] == [b"one"] * 4 + [b""]


def test_rows_of_two_folders_do_not_share_the_picture_of_a_flat_one(
    tmp_path: Path, write: Any
) -> None:
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    names = ["dog/1.jpg", "cat/1.jpg", "dog/2.jpg", "dog/2.jpg"]
    source = open_source(
        SourceConfig(annotations=write([CAPTION | {"image": name} for name in names]))
    )
    assert [sample.image for sample in samples(source)] == [b"", b"", b"2.jpg", b"2.jpg"]


def test_what_data_sets_publish_is_a_source(tmp_path: Path, write: Any) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "COCO_val2014_000000000007.jpg").write_bytes(b"seven")
    question = {"image_id": 7, "question": "what?", "question_id": 70}
    (tmp_path / "a.json").write_text(
        json.dumps({"annotations": [{"question_id": 70, "answers": [{"answer": 2}] * 3}]})
    )
    url = write({"questions": [question, question | {"question_id": 71}]})
    config = SourceConfig(annotations=url, answers=str(tmp_path / "a.json"))
    source = open_source(config)
    (sample,) = samples(source)
    assert (source.kind, source.left_out) == ("questions", {"missing_column": 1})
    assert sample.image == b"seven"
    assert sample.texts == (SourceText("what?", "human", (WeightedAnswer("2", 1.0),)),)
    (tmp_path / "a.json").write_text(
        json.dumps({"annotations": [{"question_id": 70, "answers": [{"answer": "other"}]}]})
    )
    assert open_source(config).name != source.name
    with pytest.raises(InputChanged, match="restore it"):
        samples(source)


def test_a_split_is_a_source_of_its_own(tmp_path: Path, write: Any) -> None:
    (tmp_path / "1.jpg").write_bytes(b"one")
    images = [
        {"filename": "1.jpg", "split": split, "sentences": [{"raw": f"of {split}"}]}
        for split in ("train", "restval", "test")
    ]
    url = write({"images": images})
    chosen = {
        split: open_source(SourceConfig(annotations=url, split=split))
        for split in ("train", "train+restval", "test")
    }
    assert [[s.texts[0].text for s in samples(source)] for source in chosen.values()] == [
        ["of train"],
        ["of train", "of restval"],
        ["of test"],
    ]
    assert len({source.name for source in chosen.values()}) == 3
    with pytest.raises(AnnotationError, match=r"has splits \(train 1, restval 1, test 1\)"):
        open_source(SourceConfig(annotations=url))


def test_every_row_comes_once_in_an_epoch_over_any_number_of_workers(
    tmp_path: Path, write: Any
) -> None:
    (tmp_path / "1.jpg").write_bytes(b"x")
    rows = [QUESTION | {"question": f"q{number}"} for number in range(530)]
    source = open_source(SourceConfig(annotations=write(rows)))
    orders = []
    for workers in (1, 3):
        lanes = [range(n * 12 // workers, (n + 1) * 12 // workers) for n in range(workers)]
        streams = [TrainingStream([source], seed=1, shuffle=9, mine=mine) for mine in lanes]
        taken = {
            lane: [s.next_of(lane).text for _ in range(s.rows_of_lane(lane, 0))]
            for s in streams
            for lane in s.lanes
        }
        orders.append(taken)
    assert orders[0] == orders[1]
    every = [text for texts in orders[0].values() for text in texts]
    assert sorted(every) == sorted(f"q{number}" for number in range(530))
    assert every != sorted(every)


@pytest.mark.parametrize(
    "fields",
    [
        {"annotations": "a.json", "run": "r"},
        {"annotations": "a.json", "shards": ("s",)},
        {"annotations": "a.json", "root": "r"},
        {"annotations": "a.json", "view": "v"},
        {"shards": ("s",), "images": "i"},
        {"shards": ("s",), "split": "train"},
        {"run": "r", "answers": "a.json"},
    ],
)
def test_configs_that_mix_kinds_are_refused(fields: Any) -> None:
    with pytest.raises(ValueError, match=r"leave it out|give one of the three"):
        SourceConfig(**fields)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('["yes", "no", " two  rings", "yes", "", 3, null]', ["yes", "no", "two rings", "3"]),
        ('[" ", ""]', "expected a JSON list of answers"),
        ('{"yes": 1}', "expected a JSON list of answers"),
        ("yes", "cannot be read as JSON"),
    ],
)
def test_a_list_of_answers(write: Callable[[Any], str], content: str, expected: Any) -> None:
    if isinstance(expected, list):
        assert read_answers(write(content)) == expected
    else:
        with pytest.raises(AnnotationError, match=expected):
            read_answers(write(content))
