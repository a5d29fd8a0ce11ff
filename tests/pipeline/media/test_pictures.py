"""Pictures from every kind of place, and those that cannot be read beside those that can."""

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from pipeline.media.pictures import UserPicture, read_picture, read_pictures
from shards.inputs.shard import InputError

Encode = Callable[..., bytes]


@pytest.fixture
def photo(noise: Any, encode: Encode) -> bytes:
    return encode(noise(40, 30), "PNG")


def names(found: list[UserPicture]) -> list[tuple[str, str | None]]:
    return [(Path(picture.name).name, picture.reason) for picture in found]


def test_a_folder_gives_its_pictures_and_tars_by_name(
    tmp_path: Path, photo: bytes, tar_of: Any
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "b.png").write_bytes(photo)
    (tmp_path / "A.JPG").write_bytes(photo)  # what it is, its content says
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not asked for")
    members = [("k1.png", photo), ("k2.txt", b"alone"), ("k3.jpg", b"")]
    (tmp_path / "inner" / "0.tar").write_bytes(tar_of(members))
    pictures = list(read_pictures([str(tmp_path)]))
    assert names(pictures) == [
        ("A.JPG", None),
        ("b.png", None),
        ("c.jpg", "image_undecodable"),
        ("k1", None),
        ("k2", "image_missing"),
        ("k3", "image_empty"),
    ]
    assert [p.image.size for p in pictures if p.image is not None] == [(40, 30)] * 3


def test_no_picture_of_a_folder_is_passed_by_in_silence(tmp_path: Path, photo: bytes) -> None:
    pictures = ["a.jfif", "b.JPE", "c.Apng", "d.webp", "e.GIF", "deep/er/f.jpeg"]
    foreign = ["g.bmp", "h.TIFF", "i.heic", "j.svg", "deep/k.avif", "l.jxl"]
    hidden = ["._a.jfif", ".b.jpg", "__MACOSX/._c.jpg", "__MACOSX/d.jpg", ".git/e.jpg"]
    for name in [*pictures, *foreign, *hidden, "notes.txt", "f.json", "jpg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(photo)
    read = dict(names(list(read_pictures([str(tmp_path)]))))
    assert {name for name, reason in read.items() if reason is None} == {
        Path(name).name for name in pictures
    }
    assert {name for name, reason in read.items() if reason == "format_not_allowed"} == {
        Path(name).name for name in foreign
    }
    assert len(read) == len(pictures) + len(foreign)


def test_a_file_is_read_by_its_content_but_for_foreign_endings(
    tmp_path: Path, photo: bytes, encode: Encode, noise: Any
) -> None:
    for name, data in (
        ("right.bmp", photo),
        ("real.bmp", encode(noise(40, 30), "BMP")),
        ("drawn.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("odd.png", b"no picture"),
    ):
        (tmp_path / name).write_bytes(data)
    told = [str(tmp_path / n) for n in ("right.bmp", "real.bmp", "drawn.svg", "odd.png")]
    assert [reason for _, reason in names(list(read_pictures(told)))] == [
        "format_not_allowed",
        "format_not_allowed",
        "format_not_allowed",
        "image_undecodable",
    ]


def test_folders_that_are_links_are_read_once(tmp_path: Path, photo: bytes) -> None:
    there, folder = tmp_path / "disk", tmp_path / "photos"
    there.mkdir()
    folder.mkdir()
    (there / "a.png").write_bytes(photo)
    for name in ("one", "two"):
        (folder / name).symlink_to(there)
    (there / "round").symlink_to(folder)
    (folder / "z.png").symlink_to(tmp_path / "gone.png")
    assert names(list(read_pictures([str(folder)]))) == [
        ("a.png", None),
        ("z.png", "image_missing"),
    ]


def test_a_tar_that_is_cut_gives_what_stands_before_and_says_so(
    tmp_path: Path, photo: bytes, tar_of: Any
) -> None:
    whole = tar_of([(f"k{n}.png", photo) for n in range(3)])
    (tmp_path / "0.tar").write_bytes(whole[: len(whole) // 2])
    found = names(list(read_pictures([str(tmp_path / "0.tar")])))
    assert found[0] == ("k0", None)
    assert found[-1][1] == "shard_truncated"


def test_standard_input_is_one_picture(photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(photo)))
    (found,) = read_pictures(["-"])
    assert found.image is not None
    assert found.image.size == (40, 30)


def test_places_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: no such file or folder"):
        list(read_pictures([str(tmp_path / "gone")]))
    with pytest.raises(InputError, match="no picture in it"):
        read_picture(str(tmp_path))


def test_hidden_files_are_left_out_and_gzip_is_a_tar(
    tmp_path: Path, photo: bytes, tar_of: Any
) -> None:
    (tmp_path / ".trash").mkdir()
    for name in ("a.png", "._a.png", ".trash/b.png"):
        (tmp_path / name).write_bytes(photo)
    packed = gzip.compress(tar_of([("k1.png", photo)]))
    for name in ("z.tar.gz", "z.TGZ"):
        (tmp_path / name).write_bytes(packed)
    assert names(list(read_pictures([str(tmp_path)]))) == [
        ("a.png", None),
        ("k1", None),
        ("k1", None),
    ]
    assert names(list(read_pictures([str(tmp_path / "._a.png")]))) == [("._a.png", None)]


def test_a_foreign_ending_decides_whoever_names_the_file(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").rename(tmp_path / "photo.heic")
    alone, of_folder = (
        next(read_pictures([str(named)])) for named in (tmp_path / "photo.heic", tmp_path)
    )
    assert alone == of_folder
    assert (alone.image, alone.reason) == (None, "format_not_allowed")
    assert alone.detail == ".heic is not read; convert it to JPEG, PNG, WebP or GIF"
