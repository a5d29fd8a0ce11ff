"""`capfilt evaluate video`, as a user types it."""

import json
from pathlib import Path

import pytest

from tests.support.driving import InProcess

CLIPS = 8


def test_videos_of_a_file_are_measured(capfilt: InProcess, videos: Path) -> None:
    done = capfilt.run("evaluate", "video", "tiny-filter", videos / "msrvtt_test.jsonl")
    assert done.returncode == 0, done.stderr
    rows = dict(line.split() for line in done.stdout.splitlines())
    assert rows["videos"] == str(CLIPS)
    assert float(rows["itc.ir@1"]) > 0.3  # chance is 0.125
    assert float(rows["itc.ir_median_rank"]) < 3


def test_answers_about_videos_are_measured(
    capfilt: InProcess, videos: Path, answering: Path, tmp_path: Path
) -> None:
    result, listed = tmp_path / "result.json", tmp_path / "answers.json"
    asked = json.loads((videos / "test_qa.json").read_text())
    flags = ("--videos", videos, "--frames", "4", "--json")
    file = tmp_path / "qa.json"
    file.write_text(json.dumps([*asked, asked[0] | {"video_id": "gone"}, {"video_id": "x"}]))
    done = capfilt.run(
        "evaluate", "video", answering, file, *flags, "--own-answers", "--result", result
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["questions"] == len(asked)
    assert found["left_out"] == {"video_missing": 1, "missing_column": 1}
    written = json.loads(result.read_text())
    said = [one["answer"] for one in written]
    assert set(said) <= {one["answer"] for one in asked}
    hits = [one["answer"] == answer for one, answer in zip(asked, said, strict=True)]
    assert found["accuracy"] == sum(hits) / len(hits)
    listed.write_text(json.dumps(["red"]))
    done = capfilt.run("evaluate", "video", answering, file, *flags, "--answers", listed)
    reds = [one["answer"] == "red" for one in asked]
    assert json.loads(done.stdout)["accuracy"] == sum(reds) / len(reds)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("tiny-filter", "{broken}/text.mp4"), "cannot be read as JSON"),
        (("tiny-filter", "{videos}/test_qa.json"), "vqa"),
        (
            ("tiny-filter", "{videos}/msrvtt_test.jsonl", "--own-answers"),
            "are for questions",
        ),
    ],
)
def test_a_wrong_file_or_model_is_one_message(
    capfilt: InProcess,
    videos: Path,
    broken: Path,
    flags: tuple[str, ...],
    said: str,
) -> None:
    places = {"videos": videos, "broken": broken}
    done = capfilt.run("evaluate", "video", *(flag.format(**places) for flag in flags))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_the_videos_is_an_error(
    capfilt: InProcess, videos: Path, answering: Path, tmp_path: Path
) -> None:
    for model, file in (("tiny-filter", "msrvtt_test.jsonl"), (answering, "test_qa.json")):
        done = capfilt.run("evaluate", "video", model, videos / file, "--videos", tmp_path)
        assert done.returncode == 2
        assert "0 of " in done.stderr
        assert f"in {tmp_path}" in done.stderr
        assert "--videos FOLDER" in done.stderr
