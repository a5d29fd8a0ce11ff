"""Questions and statements of the toy world: true of the pictures, and told by no word alone."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.toy.shapes import COLOURS
from pipeline.toy.tasks import (
    ANNOTATORS,
    ToyTasksConfig,
    corpus,
    write_captions,
    write_questions,
    write_statements,
)
from pipeline.toy.world import is_true, scene_from_truth

CONFIG = ToyTasksConfig(samples=200, image_px=32, seed=7)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = write_questions(tmp_path_factory.mktemp("vqa"), CONFIG)
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return [row | {"path": path.parent / row["image"]} for row in rows]


@pytest.fixture(scope="module")
def stated(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = write_statements(tmp_path_factory.mktemp("nlvr"), CONFIG)
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return [row | {"paths": [path.parent / name for name in row["images"]]} for row in rows]


def answer_of(row: dict[str, Any]) -> str:
    ((answer, count),) = Counter(row["answer"]).most_common(1)
    assert len(row["answer"]) == ANNOTATORS
    assert count >= ANNOTATORS - 1
    return str(answer)


def colours_in(path: Path) -> set[str]:
    """Tell by the pixels which colours a picture shows."""
    with Image.open(path) as image:
        counts = Counter(image.convert("RGB").get_flattened_data())
    return {name for name, rgb in COLOURS.items() if counts[rgb] > 8}


def test_every_kind_is_asked_and_has_its_rows(asked: list[dict[str, Any]]) -> None:
    assert {row["kind"] for row in asked} == {"colour", "shape", "relation", "count", "yes/no"}
    assert [row["question_id"] for row in asked] == list(range(len(asked)))
    assert all(row["path"].is_file() for row in asked)
    dissent = [row for row in asked if len(set(row["answer"])) > 1]
    assert 0.05 < len(dissent) / len(asked) < 0.3


def test_a_third_of_the_questions_are_about_relations(tmp_path: Path) -> None:
    """What is asked seldom is not learned: a direction takes far longer than a colour."""
    rows = json.loads(write_questions(tmp_path, ToyTasksConfig(samples=120)).read_text())
    kinds = Counter(row["kind"] for row in rows)
    assert 0.25 < kinds["relation"] / len(rows) < 0.42
    assert min(kinds.values()) > 0.03 * len(rows)


def test_answers_are_true_of_the_pictures(asked: list[dict[str, Any]]) -> None:
    for row in asked:
        question, answer, kind = row["question"].rstrip("?"), answer_of(row), row["kind"]
        shown = scene_from_truth({"scene": row["scene"]})
        if kind == "colour":
            assert answer in colours_in(row["path"])
            assert is_true(f"a {answer} {question.rsplit(' ', 1)[1]}", shown)
        elif kind == "shape":
            assert is_true(f"a {question.split()[4]} {answer}", shown)
        elif kind == "relation":
            first, second = re.findall(r"the (\w+ \w+)", question)
            assert is_true(f"a {first} {answer} a {second}", shown)
        elif kind == "yes/no":
            assert is_true(question.removeprefix("is there "), shown) == (answer == "yes")
        else:
            colour = question.split()[2]
            seen = [thing for thing in shown.things if colour in ("things", thing.colour)]
            assert int(answer) == len(seen)


def test_statements_are_labelled_by_what_the_pictures_show(stated: list[dict[str, Any]]) -> None:
    for row in stated:
        words, scenes = row["sentence"].split(), row["scenes"]
        shapes = [{thing["shape"] for thing in each["things"]} for each in scenes]
        colours = [colours_in(path) for path in row["paths"]]
        truth = {
            "left": words[-1] in colours[0],
            "right": words[-1] in shapes[1],
            "pictures": all(words[-1] in each for each in colours),
            "is": not any(words[3] in each for each in shapes),
        }
        assert str(truth[words[1]]) == row["label"], row["sentence"]


def test_no_statement_is_told_by_its_words(stated: list[dict[str, Any]]) -> None:
    true = Counter(row["sentence"].split()[1] for row in stated if row["label"] == "True")
    every = Counter(row["sentence"].split()[1] for row in stated)
    assert len(every) == 4
    assert all(0.3 < true[claim] / every[claim] < 0.7 for claim in every)


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    few = ToyTasksConfig(samples=5, image_px=32)
    for write in (write_captions, write_questions, write_statements):
        one, again = (write(tmp_path / name, few).read_bytes() for name in ("one", "again"))
        assert one == again
        assert write(tmp_path / "other", ToyTasksConfig(samples=5, seed=1)).read_bytes() != one


def test_captions_are_all_true_of_their_picture(tmp_path: Path) -> None:
    rows = json.loads(
        write_captions(tmp_path, CONFIG.model_copy(update={"samples": 30})).read_text()
    )
    assert {len(row["caption"]) for row in rows} == {2, 4}  # pictures of one thing, and of two
    for row in rows:
        shown = scene_from_truth({"scene": row["scene"]})
        assert all(is_true(caption, shown) for caption in row["caption"])
        assert (tmp_path / row["image"]).is_file()


def test_the_corpus_has_every_word(
    asked: list[dict[str, Any]], stated: list[dict[str, Any]]
) -> None:
    """Also digits: a vocabulary without them reads all counts alike."""
    known = {word for line in corpus() for word in line.replace("?", " ").split()}
    texts = [row["question"] for row in asked] + [row["sentence"] for row in stated]
    texts += [answer for row in asked for answer in row["answer"]]
    assert {word for text in texts for word in text.replace("?", " ").split()} <= known
