"""Rows with their pictures: each is read once and looked at once, however often it stands."""

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from models.blip.preprocess import Preprocess
from pipeline.evaluate.rows import AnnotatedPictures, Loaded, each_once, stacked
from pipeline.media.ahead import load_batches
from shards.training.annotation_file import read_dialogues, read_rows
from shards.training.json_file import AnnotationError
from shards.training.left_out import Unusable
from shards.training.picture_folder import FolderPicture, PictureFolder
from shards.training.picture_name import NamesTogether

SIDE = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in range(8):
        picture = Image.new("RGB", (SIDE, SIDE), (30 * n, 0, 0))
        picture.paste((0, 255, 0), (SIDE // 2, 0, SIDE, SIDE))  # one of one colour is refused
        picture.save(tmp_path / f"{n}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


@pytest.fixture
def pictures(folder: Path) -> AnnotatedPictures:
    return AnnotatedPictures(str(folder), Preprocess(SIDE, SIDE))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are read from the disk, slowly."""
    names: list[str] = []
    read = PictureFolder.read

    def watched(
        folder: PictureFolder, name: object, among: NamesTogether | None = None
    ) -> FolderPicture | Unusable:
        names.append(str(name))
        time.sleep(0.01)
        return read(folder, name, among)

    monkeypatch.setattr(PictureFolder, "read", watched)
    return names


def test_rows_about_one_picture_read_it_once(pictures: AnnotatedPictures, read: list[str]) -> None:
    rows = [{"image": f"{n // 5}.png"} for n in range(40)]
    found = load_batches(rows, lambda row: pictures.load([row["image"]]), 4, Counter())
    shades = [int(one[0][0, 0, 0]) for _, loaded in found for one in loaded]
    assert shades == [30 * (n // 5) for n in range(40)]
    assert sorted(read) == [f"{n}.png" for n in range(8)]


def test_threads_that_ask_for_one_picture_share_it(
    pictures: AnnotatedPictures, read: list[str]
) -> None:
    loaded: list[Loaded | str] = []
    threads = [
        threading.Thread(target=lambda: loaded.append(pictures.load(["3.png"]))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == ["3.png"]
    assert len({id(one[0]) for one in loaded}) == 1


def test_bad_rows_are_counted_and_the_others_stay_together(pictures: AnnotatedPictures) -> None:
    names = ["0.png", "broken.png", "1.png", "gone.png", "../0.png", "2.png"]
    left_out: Counter[str] = Counter()
    taken = list(load_batches([{"image": n} for n in names], _by(pictures), 2, left_out))
    assert [[row["image"] for row in rows] for rows, _ in taken] == [["0.png", "1.png"], ["2.png"]]
    assert left_out == {"image_undecodable": 1, "image_missing": 1, "unsafe_member": 1}


def _by(pictures: AnnotatedPictures) -> Any:
    return lambda row: pictures.load([row["image"]])


def test_a_lost_connection_is_raised(
    pictures: AnnotatedPictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> FolderPicture:
        raise OSError("the connection is lost")

    monkeypatch.setattr(PictureFolder, "read", lost)
    with pytest.raises(OSError, match="connection"):
        list(load_batches([{"image": "0.png"}], _by(pictures), 2, Counter()))


def test_each_picture_is_stacked_once() -> None:
    black, white = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    found, about = each_once([(black,), (black,), (white,), (black,)])
    assert about == [0, 0, 1, 0]
    assert torch.equal(found, torch.stack([black, white]))
    left, right = stacked([(black, white), (black, black)])
    assert torch.equal(left, torch.stack([black, black]))
    assert torch.equal(right, torch.stack([white, black]))


@pytest.mark.parametrize("content", ["[]", "{}", '[{"image": 1}]', "[3]", "not JSON", "3"])
def test_a_file_of_another_form_is_one_message(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=r"rows\.json"):
        read_rows(str(path), ["image", "question"])
    with pytest.raises(AnnotationError, match=r"rows\.json"):
        read_dialogues(str(path))
    with pytest.raises(AnnotationError, match="is no file"):
        read_rows(str(tmp_path / "gone.json"), ["image"])
