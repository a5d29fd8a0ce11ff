"""`capfilt caption`, `match`, `ask`, `reason` and `attend`, as a user types them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline.toy.tasks import ToyTasksConfig, write_questions
from tests.support.driving import InProcess, Models


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_questions(folder, ToyTasksConfig(samples=3, image_px=64))
    (folder / "images" / "zz.jpg").write_bytes(b"no picture")
    return folder / "images"


def test_pictures_of_a_folder_are_captioned_and_a_broken_one_is_told(
    capfilt: InProcess, photos: Path, toy_models: Models
) -> None:
    model = f"--model={toy_models.captioner}"
    done = capfilt.run("caption", photos, model, "--method=greedy", "--prompt=", "--max-tokens=6")
    assert done.returncode == 0
    assert [line.split(": ")[0][-10:] for line in done.stdout.splitlines()] == [
        f"{n:06d}.png" for n in range(3)
    ]
    assert "zz.jpg: image_undecodable" in done.stderr
    assert "1 of 4 pictures could not be read" in done.stderr
    rows = capfilt.run("caption", photos, model, "--method=beam", "--count=2", "--json")
    found = [json.loads(line) for line in rows.stdout.splitlines()]
    assert [len(row.get("captions", [])) for row in found] == [2, 2, 2, 0]
    assert found[-1]["reason"] == "image_undecodable"


def test_nothing_that_can_be_read_is_a_failure(
    capfilt: InProcess, photos: Path, toy_models: Models, tmp_path: Path
) -> None:
    model = f"--model={toy_models.captioner}"
    assert capfilt.run("caption", photos / "zz.jpg", model).returncode == 1
    empty = capfilt.run("caption", tmp_path, model)
    assert (empty.returncode, empty.stderr) == (1, f"capfilt: no picture in {tmp_path}\n")
    gone = capfilt.run("caption", photos / "gone.jpg", model)
    assert gone.returncode == 2
    assert "gone.jpg: no such file or folder" in gone.stderr


def test_texts_are_matched(capfilt: InProcess, photos: Path, toy_models: Models) -> None:
    command = ("match", photos / "000000.png", "a red ring", "a dog")
    done = capfilt.run(*command, f"--model={toy_models.filter}")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["itm", "itc", "share"]
    assert [line.split("  ")[-1] for line in lines[1:]] == ["a red ring", "a dog"]
    machine = capfilt.run(*command, f"--model={toy_models.filter}", "--json")
    assert [one["text"] for one in json.loads(machine.stdout)] == ["a red ring", "a dog"]
    broken = capfilt.run("match", photos / "zz.jpg", "a dog", f"--model={toy_models.filter}")
    assert broken.returncode == 2
    assert "zz.jpg cannot be used: image_undecodable" in broken.stderr


def test_a_picture_of_where_the_model_looks_is_written(
    capfilt: InProcess, photos: Path, toy_models: Models, tmp_path: Path
) -> None:
    for model in (toy_models.filter, toy_models.captioner):
        out = tmp_path / f"{model.name}.png"
        done = capfilt.run(
            "attend", photos / "000000.png", "a red ring", f"--model={model}", f"--out={out}"
        )
        assert done.returncode == 0
        with Image.open(out) as picture:
            assert min(picture.size) > 100
        assert "3 words" in done.stdout


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("caption", "--max-tokens=3"), "--min-tokens 5 is more than 3"),
        (("caption", "--max-tokens=600"), "lower max_tokens"),
        (("caption", "--device=nonsense"), "--device nonsense"),
        (("attend", "a red ring", "--layer=9"), "layer is 9; the network has 0 to"),
    ],
)
def test_numbers_that_do_not_fit_are_told_in_a_line(
    capfilt: InProcess, photos: Path, toy_models: Models, command: tuple[str, ...], said: str
) -> None:
    name, *rest = command
    model = toy_models.captioner if name == "caption" else toy_models.filter
    done = capfilt.run(name, photos / "000000.png", *rest, f"--model={model}")
    assert done.returncode == 2
    assert said in done.stderr


def test_another_kind_of_model_and_a_list_without_answers_are_refused(
    capfilt: InProcess, photos: Path, toy_models: Models, tmp_path: Path
) -> None:
    picture = photos / "000000.png"
    wrong = capfilt.run("ask", picture, "what?", f"--model={toy_models.filter}")
    assert wrong.returncode == 2
    assert "expected a VQA model" in wrong.stderr
    (tmp_path / "answers.json").write_text('["", " "]')
    blank = capfilt.run("ask", picture, "what?", f"--answers={tmp_path / 'answers.json'}")
    assert blank.returncode == 2
    assert "expected a JSON list of answers" in blank.stderr


def test_answers_of_a_dialogue_are_ranked(
    capfilt: InProcess, photos: Path, toy_models: Models, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    answers.write_text('["red", "blue", "yes", "no"]')
    asked = ("ask", photos / "000000.png", "what color is it?", f"--model={toy_models.filter}")
    before = ("--caption=a ring", "--said=is there a star? no", f"--answers={answers}")
    done = capfilt.run(*asked, *before, "--top=3")
    assert done.returncode == 0, done.stderr
    scores = [float(line.split()[0]) for line in done.stdout.splitlines()]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    whole, other = (
        json.loads(capfilt.run(*asked, *flags, "--json").stdout)
        for flags in (before, (*before, "--said=is it large? yes"))
    )
    assert {one["text"] for one in whole} == {one["text"] for one in other}
    assert {one["score"] for one in whole} != {one["score"] for one in other}
    without_mark = capfilt.run(*asked, *before, "--said=it is large")
    assert without_mark.returncode == 2
    assert "expected a question, ?, and its answer" in without_mark.stderr
    assert "give --answers" in capfilt.run(*asked, "--caption=a ring").stderr
