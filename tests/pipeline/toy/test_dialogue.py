"""Dialogues of the toy world: true of the pictures, and not to be told without what came before."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.toy.dialogue import OPTIONS, ROUNDS, answers, corpus, write_dialogues
from pipeline.toy.tasks import ToyTasksConfig
from pipeline.toy.world import is_true, scene_from_truth
from shards.training.dialogue_file import DialogueRow, dialogues
from shards.training.picture_folder import FolderPicture, picture_folder

CONFIG = ToyTasksConfig(samples=60, image_px=32, kinds=4, seed=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dialogues(tmp_path_factory.mktemp("visdial"), CONFIG)


@pytest.fixture(scope="module")
def said(written: Path) -> list[tuple[DialogueRow, dict[str, Any]]]:
    found = json.loads(written.read_text())
    rows: list[dict[str, Any]] = found["data"]["dialogs"]
    left_out: Any = {}
    return list(zip(dialogues(found, left_out), rows, strict=True))


def test_answers_are_true_of_the_thing_that_is_spoken_of(
    said: list[tuple[DialogueRow, dict[str, Any]]],
) -> None:
    kinds = set()
    for dialogue, row in said:
        shown = scene_from_truth({"scene": row["scene"]})
        shape = dialogue.caption.split()[-1]
        (it,) = [thing for thing in shown.things if thing.shape == shape]
        (other,) = [thing for thing in shown.things if thing is not it]
        nouns = [f"a {thing.colour} {thing.shape}" for thing in (it, other)]
        for one in dialogue.rounds:
            kinds.add(one.question if one.question[:5] != "is it" else "is it")
            if one.question == "what color is it?":
                assert is_true(f"a {one.answer} {shape}", shown)
            elif one.question == "what color is the other thing?":
                assert one.answer == other.colour
            elif one.question == "what shape is the other thing?":
                assert one.answer == other.shape
            elif one.question == "where is the other thing?":
                assert is_true(f"{nouns[1]} {one.answer.removesuffix(' it')} {nouns[0]}", shown)
            else:
                assert (one.answer == "yes") == (it.colour in one.question)
    assert len(kinds) == 5


def test_one_of_the_candidates_is_true_and_its_place_tells_nothing(
    said: list[tuple[DialogueRow, dict[str, Any]]],
) -> None:
    rounds = [one for dialogue, _ in said for one in dialogue.rounds]
    assert len(rounds) == ROUNDS * CONFIG.samples
    for one in rounds:
        assert one.true is not None
        assert one.options[one.true] == one.answer
        assert len(set(one.options)) == OPTIONS
    assert {one.true for one in rounds} == set(range(OPTIONS))


def test_every_dialogue_has_its_picture(
    written: Path, said: list[tuple[DialogueRow, dict[str, Any]]]
) -> None:
    pictures = picture_folder(str(written.parent))
    read = [pictures.read(dialogue.image_id) for dialogue, _ in said]
    assert all(isinstance(picture, FolderPicture) for picture in read)
    assert len({picture.path for picture in read if isinstance(picture, FolderPicture)}) == len(
        said
    )


def test_the_corpus_has_every_word(said: list[tuple[DialogueRow, dict[str, Any]]]) -> None:
    words = {word for line in corpus() for word in line.replace("?", "").split()}
    texts = [t for d, _ in said for t in (d.caption, *(r.question for r in d.rounds), *answers(8))]
    assert {word for text in texts for word in text.replace("?", "").split()} <= words


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    few = ToyTasksConfig(samples=5, image_px=32)
    one, again = (write_dialogues(tmp_path / n, few).read_bytes() for n in ("one", "again"))
    assert one == again
    other = write_dialogues(tmp_path / "other", few.model_copy(update={"seed": 1}))
    assert other.read_bytes() != one
