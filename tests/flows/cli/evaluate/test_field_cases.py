"""Annotation files as the world has them, through the command: read, or one message that says why.

Of each kind there are the shared cases, with what should come of each, and some made here.
"""

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.driving import InProcess

Evaluate = Callable[..., tuple[int, str, dict[str, Any]]]
COUNTED = {"caption": "images", "retrieval": "images", "vqa": "questions", "nlvr": "statements"}


@pytest.fixture
def evaluate(capfilt: InProcess, place: Path) -> Evaluate:
    """Run a kind of evaluation; return its exit code, what it said, and its numbers."""
    models = {
        "caption": ("tiny-captioner", "--method=greedy", "--max-tokens=6", "--no-java"),
        "retrieval": ("tiny-filter",),
        "vqa": (place / "vqa", "--dtype=fp32"),
        "nlvr": (place / "nlvr", "--dtype=fp32"),
    }

    def run(kind: str, *flags: str | Path) -> tuple[int, str, dict[str, Any]]:
        done = capfilt.run("evaluate", kind, *models[kind], *flags, "--json")
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr, json.loads(done.stdout or "{}")

    return run


@pytest.fixture(scope="session")
def cases(data_dir: Path) -> Path:
    folder = data_dir / "field_cases"
    if not (folder / "manifest.json").is_file():
        pytest.skip(f"no cases of annotation files at {folder}")
    return folder


def more_flags(path: Path, expected: str, tmp_path: Path) -> list[str]:
    """The flags that a case speaks of: the file's own split, and answers to its questions."""
    if "--split" in expected:
        return ["--split", json.loads(path.read_text())["images"][0]["split"]]
    if "--answers" not in expected:
        return []
    said = [
        {"question_id": row["question_id"], "answers": [{"answer": "2", "answer_id": 1}]}
        for row in json.loads(path.read_text())["questions"]
    ]
    answers = tmp_path / "annotations.json"
    answers.write_text(json.dumps({"annotations": said}))
    return ["--answers", str(answers)]


@pytest.mark.parametrize("kind", ["caption", "vqa", "nlvr"])
def test_the_shared_cases(cases: Path, tmp_path: Path, evaluate: Evaluate, kind: str) -> None:
    listed = json.loads((cases / "manifest.json").read_text())
    chosen = [case for case in listed if case["command"] == f"evaluate {kind}"]
    assert chosen
    for case in chosen:
        path, expected = cases / case["file"], case["expected"]
        flags = more_flags(path, expected, tmp_path)
        images = path.parent / "pics"
        code, said, numbers = evaluate(kind, "--annotations", path, "--images", images, *flags)
        if "exit 2" in expected:
            assert code == 2, case
            assert " 0 of " in said, case
        else:
            assert code == 0, (case, said)
            assert numbers[COUNTED[kind]] > 0, case
            assert numbers["left_out"] == {}, case


@pytest.fixture
def pictures(place: Path, tmp_path: Path) -> Path:
    """Five toy pictures in a folder `val2014`, under names that the world has."""
    folder = tmp_path / "val2014"
    folder.mkdir()
    names = ["a.jpg", "\u00fc [1].jpg", "c d.jpg", "COCO_val2014_000000000042.jpg", "e.JPG"]
    for name, picture in zip(names, sorted(place.rglob("*.png")), strict=False):
        shutil.copy2(picture, folder / name)
    return folder


def write(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"image": "/data/other/a.jpg", "caption": "a"}] * 3, "image_missing 3"),
        ([{"image": "a.jpg", "caption": None}] * 2, "null_value 2"),
        ([{"image": "../../etc/passwd", "caption": "a"}], "unsafe_member 1"),
        ([{"image": "gone.jpg", "caption": "a"}, {"image": "a.jpg", "caption": " "}], "0 of 2"),
    ],
)
def test_nothing_evaluated_is_an_error_that_says_why(
    tmp_path: Path, pictures: Path, evaluate: Evaluate, rows: list[Any], said: str
) -> None:
    file, result = write(tmp_path / "rows.json", rows), tmp_path / "result.json"
    flags = ("--annotations", file, "--images", pictures)
    code, error, numbers = evaluate("caption", *flags, "--result", result)
    assert (code, numbers) == (2, {})
    assert f"rows.json: 0 of {len(rows)} rows" in error
    assert said in error
    assert "the first: " in error
    assert "What to do: " in error
    assert not result.exists()
    assert evaluate("retrieval", *flags)[0] == 2


def test_a_tar_without_texts_is_nothing_to_retrieve(tmp_path: Path, evaluate: Evaluate) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("k1.txt", "k2.txt"):
            tar.addfile(tarfile.TarInfo(name))
    code, error, _ = evaluate("retrieval", tmp_path / "a.tar")
    assert code == 2
    assert "0 of 2 rows" in error
    assert "image_missing 2 (the first: a/k1)" in error


@pytest.mark.parametrize(
    "name",
    [
        "C:\\data\\val2014\\{}",
        "val2014\\{}",
        "/home/other/coco/val2014/{}",
        "file:///mnt/val2014/{}",
        "train2014/../{}",
        "./{}",
    ],
)
def test_names_of_other_machines(
    tmp_path: Path, pictures: Path, evaluate: Evaluate, name: str
) -> None:
    files = [path.name.replace(".JPG", ".jpg") for path in pictures.iterdir()]
    rows = [{"image": name.format(file), "caption": ["a", "b"]} for file in files]
    file = write(tmp_path / "rows.json", rows)
    code, error, numbers = evaluate("caption", "--annotations", file, "--images", pictures)
    if ".." in name:
        assert (code, "unsafe_member 5" in error) == (2, True)
    else:
        assert (code, numbers["images"], numbers["left_out"]) == (0, 5, {}), error


def test_what_is_left_out_of_others_is_told(
    tmp_path: Path, pictures: Path, evaluate: Evaluate
) -> None:
    for name in ("x", "y"):
        (pictures / name).mkdir()
        shutil.copy2(pictures / "a.jpg", pictures / name / "twice.jpg")
    (pictures / "drawn.bmp").write_bytes(b"BM")
    images = ["a.jpg", "twice.jpg", "gone.jpg", "drawn.bmp"]
    file = write(tmp_path / "rows.json", [{"image": name, "caption": "a"} for name in images])
    code, error, numbers = evaluate("caption", "--annotations", file, "--images", pictures)
    assert code == 0
    assert numbers["left_out"] == {"image_missing": 2, "format_not_allowed": 1}
    assert "2 files could be meant: x/twice.jpg, y/twice.jpg" in error


def test_raw_files_of_captions(tmp_path: Path, pictures: Path, evaluate: Evaluate) -> None:
    number = "COCO_val2014_000000000042.jpg"
    coco = {
        "images": [{"id": 42, "file_name": number}],
        "annotations": [{"image_id": 42, "id": 1, "caption": "a red square"}],
    }
    sentences = [{"raw": "a red square"}]
    images = [
        {"filename": name, "filepath": "val2014", "split": split, "sentences": sentences}
        for name, split in ((number, "test"), ("a.jpg", "train"), ("c d.jpg", "restval"))
    ]
    flags = ("--images", pictures, "--annotations")
    result = tmp_path / "result.json"
    code, error, numbers = evaluate(
        "caption", *flags, write(tmp_path / "captions_val2014.json", coco), "--result", result
    )
    assert (code, numbers["images"]) == (0, 1), error
    assert [row["image_id"] for row in json.loads(result.read_text())] == [42]
    raw = write(tmp_path / "dataset_coco.json", {"images": images, "dataset": "coco"})
    code, error, _ = evaluate("retrieval", *flags, raw)
    assert code == 2
    assert "has splits (test 1, train 1, restval 1): choose one with --split" in error
    assert evaluate("retrieval", *flags, raw, "--split", "train+restval")[2]["images"] == 2
    instances = write(tmp_path / "i.json", coco | {"annotations": [{"bbox": [1], "image_id": 42}]})
    code, error, _ = evaluate("caption", *flags, instances)
    assert (code, "expected captions_*.json" in error) == (2, True)


def test_raw_questions_with_candidates_and_people(
    tmp_path: Path, pictures: Path, evaluate: Evaluate
) -> None:
    asked = [{"image_id": 42, "question": "how many?", "question_id": n} for n in range(3)]
    said = [
        {"question_id": n, "answer_type": "number", "answers": [{"answer": 2}, {"answer": "2"}]}
        for n in range(2)
    ]
    people = write(tmp_path / "people.json", {"annotations": said})
    few = write(tmp_path / "few.json", [2, "red"])
    questions = write(tmp_path / "questions.json", {"questions": asked})
    flags = ("--annotations", questions, "--images", pictures, "--answers", people)
    code, error, numbers = evaluate("vqa", *flags, "--answers", few)
    assert (code, numbers["questions"], numbers["compared"]) == (0, 3, 2), error
    assert list(numbers["by_answer_type"]) == ["number"]
    code, error, _ = evaluate("vqa", *flags, "--answers", people)
    assert (code, "both say what people answered" in " ".join(error.split())) == (2, True)


def test_answers_and_labels_that_are_no_strings(
    tmp_path: Path, pictures: Path, evaluate: Evaluate
) -> None:
    answers = [2, 2.0, 2.5, True, False, [1, None, "one"], "2"]
    rows = [{"image": "a.jpg", "question": "q?", "answer": answer} for answer in answers]
    odd = [{"image": "a.jpg", "question": "q?", "answer": None}, {"image": "a.jpg", "answer": 2}]
    file = write(tmp_path / "vqa.json", [*rows, *odd])
    numbers = evaluate("vqa", "--annotations", file, "--images", pictures)[2]
    assert numbers["compared"] == len(answers)
    assert numbers["left_out"] == {"null_value": 1, "missing_column": 1}
    labels = [True, "true", "True", "TRUE", 1, "1", 1.0, False, "false", "False", 0, "0", 0.0]
    said = [
        {"images": ["a.jpg", "e.jpg"], "sentence": f"s{n}", "label": label}
        for n, label in enumerate([*labels, None, "maybe", 2])
    ]
    file = write(tmp_path / "nlvr.json", said)
    numbers = evaluate("nlvr", "--annotations", file, "--images", pictures)[2]
    assert numbers["statements"] == len(labels)
    assert numbers["left_out"] == {"null_value": 1, "wrong_type": 2}


def test_statements_as_they_are_published(
    tmp_path: Path, pictures: Path, evaluate: Evaluate
) -> None:
    (pictures / "dev").mkdir()
    for side in (0, 1):
        shutil.copy2(pictures / "a.jpg", pictures / "dev" / f"dev-850-0-img{side}.png")
    rows = [
        {"identifier": f"dev-850-0-{n}", "sentence": "both are red", "label": "True"}
        for n in range(2)
    ]
    lines = tmp_path / "dev.json"
    lines.write_text("\n".join(json.dumps(row) for row in rows))
    code, error, numbers = evaluate("nlvr", "--annotations", lines, "--images", pictures)
    assert (code, numbers["statements"], numbers["left_out"]) == (0, 2, {}), error
