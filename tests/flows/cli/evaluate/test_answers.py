"""`capfilt evaluate` from the field's annotation files, as commands."""

import json
from pathlib import Path

import pytest

from tests.support.driving import InProcess


def test_captions_of_a_file_are_measured_and_written_for_the_server(
    capfilt: InProcess, place: Path
) -> None:
    result = place / "result.json"
    done = capfilt.run(
        "evaluate", "caption", "tiny-captioner", "--annotations", place / "captions.json",
        "--result", result, "--method", "greedy", "--no-java",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = dict(line.split() for line in done.stdout.splitlines())
    assert float(rows["bleu_4"]) > 0.1  # it knows this world
    assert float(rows["rouge_l"]) > 0.3
    written = json.loads(result.read_text())
    assert [row["image_id"] for row in written] == [0, 1, 2, 3, 4]
    assert all(set(row) == {"image_id", "caption"} for row in written)


def test_retrieval_of_a_file(capfilt: InProcess, place: Path) -> None:
    done = capfilt.run(
        "evaluate", "retrieval", "tiny-filter", "--annotations", place / "captions.json", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["itm"]["tr@5"] == 1  # of five pictures


def test_questions_are_ranked_over_a_list_with_blanks(capfilt: InProcess, place: Path) -> None:
    done = capfilt.run(
        "evaluate", "vqa", place / "vqa", "--annotations", place / "q" / "vqa.json",
        "--answers", place / "answers.json", "--by", "kind", "--result", place / "vqa_result.json",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["questions"] == found["compared"] == 10
    assert set(found["by_kind"]) <= {"colour", "shape", "relation", "count", "yes/no"}
    written = json.loads((place / "vqa_result.json").read_text())
    assert {row["answer"] for row in written} <= {"red", "blue"}


def test_statements_and_dialogues(capfilt: InProcess, place: Path) -> None:
    done = capfilt.run(
        "evaluate", "nlvr", place / "nlvr", "--annotations", place / "s" / "nlvr.json", "--limit=3"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["statements", "3"]
    dense = place / "dense.json"
    dense.write_text(json.dumps([{"image_id": 0, "round_id": 1, "gt_relevance": [0.5] * 10}, 3]))
    done = capfilt.run(
        "evaluate", "dialogue", place / "vqa", "--annotations", place / "d" / "visdial.json",
        "--dense", dense, "--result", place / "d.json", "--limit", "2", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["rounds"], found["ndcg"]) == (8, 1.0)
    assert sorted(json.loads((place / "d.json").read_text())[0]["ranks"]) == list(range(1, 11))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("caption", "tiny-captioner"), "give tars, or --annotations"),
        (("vqa", "{place}/vqa", "--annotations", "gone.json"), "gone.json is no file"),
        (("vqa", "tiny-filter", "--annotations", "{place}/q/vqa.json"), "expected a VQA model"),
        (("vqa", "{place}/vqa", "--annotations", "{place}/d/visdial.json"), "expected a JSON list"),
        (("nlvr", "{place}/nlvr", "--annotations", "{place}/captions.json"), "sentence"),
        (("caption", "tiny-captioner", "--annotations", "{place}/q/vqa.json"), "holds questions"),
        (("retrieval", "tiny-filter", "--annotations", "{place}/q/vqa.json"), "holds questions"),
        (
            (
                "vqa",
                "{place}/vqa",
                "--annotations",
                "{place}/q/vqa.json",
                "--answers",
                "{place}/q/vqa.json",
            ),
            "holds questions, not answers",
        ),
        (("dialogue", "{place}/vqa", "--annotations", "{place}/captions.json"), "dialogs"),
    ],
)
def test_a_wrong_file_or_model_is_one_message(
    capfilt: InProcess, place: Path, flags: tuple[str, ...], said: str
) -> None:
    done = capfilt.run("evaluate", *(flag.format(place=place) for flag in flags))
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 8
    assert "Traceback" not in done.stderr


def test_questions_that_nobody_answered_name_the_file_that_is_missing(
    capfilt: InProcess, place: Path, tmp_path: Path
) -> None:
    rows = json.loads((place / "q" / "vqa.json").read_text())
    file = tmp_path / "questions.json"
    asked = ("image", "question", "question_id")
    file.write_text(
        json.dumps([{name: row[name] for name in asked if name in row} for row in rows])
    )
    done = capfilt.run(
        "evaluate", "vqa", place / "vqa", "--annotations", file, "--images", place / "q"
    )
    assert done.returncode == 0
    assert "nothing is compared: name the file that does, --answers" in done.stderr


def test_values_that_steer_a_terminal_are_written_out(
    capfilt: InProcess, place: Path, tmp_path: Path
) -> None:
    rows = json.loads((place / "q" / "vqa.json").read_text())
    file = tmp_path / "vqa.json"
    file.write_text(json.dumps([row | {"kind": "\x1b[2Jcolour"} for row in rows]))
    done = capfilt.run(
        "evaluate", "vqa", place / "vqa", "--annotations", file, "--images", place / "q",
        "--by", "kind",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "colour" in done.stdout
    assert "\x1b" not in done.stdout
