"""Which picture below a folder a name means: one, none outside of it, and none by guessing."""

import errno
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from shards.training import picture_folder as module
from shards.training.left_out import Unusable
from shards.training.picture_folder import FolderPicture, PictureFolder, picture_folder
from shards.training.picture_name import NamesTogether

Made = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Make a folder `images` of files whose content is their path, and a secret beside it."""

    def make(*paths: str) -> Path:
        folder = tmp_path / "images"
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(path.encode())
        (tmp_path / "secret.jpg").write_bytes(b"secret")
        return folder

    return make


def found(folder: Path | str, name: object) -> str:
    """The path of the picture that a name means, or why there is none."""
    picture = PictureFolder(str(folder)).read(name)
    if isinstance(picture, FolderPicture):
        assert picture.data == picture.path.encode()  # these bytes, and no other's
        return picture.path
    return str(picture)


NFC = unicodedata.normalize("NFC", "\u00fcber \u00e9t\u00e9.jpg")
NFD = unicodedata.normalize("NFD", NFC)
HANGUL = unicodedata.normalize("NFC", "\ud55c\uae00.png")


@pytest.mark.parametrize(
    ("files", "name", "expected"),
    [
        # as it stands, before anything else that it may mean
        (["a.jpg", "b/a.jpg"], "a.jpg", "a.jpg"),
        (["d%20e.jpg", "d e.jpg"], "d%20e.jpg", "d%20e.jpg"),
        (["a\\b.jpg", "a/b.jpg"], "a\\b.jpg", "a\\b.jpg"),
        (["c [1].jpg", "c 1.jpg"], "c [1].jpg", "c [1].jpg"),
        (["*.jpg", "x.jpg"], "*.jpg", "*.jpg"),
        (["no picture.bin"], "no picture.bin", "no picture.bin"),
        # other ways to write it
        (["a.jpg"], "./a.jpg", "a.jpg"),
        (["b/a.jpg"], "b//./a.jpg", "b/a.jpg"),
        (["d e.jpg"], "d%20e.jpg", "d e.jpg"),
        (["\u00fc.jpg"], "%C3%BC.jpg", "\u00fc.jpg"),
        (["b/a.jpg", "a.jpg"], "b\\a.jpg", "b/a.jpg"),
        (["b/a.jpg"], ".\\b\\a.jpg", "b/a.jpg"),
        ([NFD], NFC, NFD),
        ([NFC], NFD, NFC),
        ([unicodedata.normalize("NFD", HANGUL)], HANGUL, unicodedata.normalize("NFD", HANGUL)),
        (["b/A.JPG"], "b/A.jpg", "b/A.JPG"),
        (["a.JPG", "a.Jpg"], "a.jpg", "image_missing"),  # either could be meant
        (["a.png"], "a.jpg", "image_missing"),
        # folders that only the name has, or only the disk
        (["a.jpg"], "train2014/a.jpg", "a.jpg"),
        (["val2014/a.jpg"], "coco/val2014/a.jpg", "val2014/a.jpg"),
        (["dev/a.png", "test1/b.png"], "a.png", "dev/a.png"),
        (["coco/val2014/a.jpg", "a.jpg"], "val2014/a.jpg", "coco/val2014/a.jpg"),
        (["x/a.jpg", "y/a.jpg"], "a.jpg", "image_missing"),
        (["x/a.jpg", "y/a.jpg"], "y\\a.jpg", "y/a.jpg"),
        # a picture of another folder is another picture
        (["cat/1.jpg"], "dog/1.jpg", "image_missing"),
        (["dog/2.jpg", "1.jpg"], "dog/1.jpg", "image_missing"),
        (["cat/1.jpg"], "/data/dog/1.jpg", "image_missing"),
        (["cat/images/1.jpg"], "/data/dog/images/1.jpg", "image_missing"),
        (["cat/images/1.jpg"], "https://example.org/dog/images/1.jpg", "image_missing"),
        (["cat/val/1.jpg"], "/mnt/images/val/1.jpg", "image_missing"),
        (["b.jpg"], "a:b.jpg", "image_missing"),  # a drive has a path
        # of another machine
        (["train2014/a.jpg"], "/data/coco/train2014/a.jpg", "train2014/a.jpg"),
        (["train2014/a.jpg"], "C:\\data\\train2014\\a.jpg", "train2014/a.jpg"),
        (["train2014/a.jpg"], "file:///data/coco/train2014/a.jpg", "train2014/a.jpg"),
        (["t/d e.jpg"], "file://host/data/t/d%20e.jpg", "t/d e.jpg"),
        (["t/a.jpg"], "\\\\server\\share\\t\\a.jpg", "t/a.jpg"),
        (["t/a.jpg"], "https://images.example.org/t/a.jpg", "t/a.jpg"),
        (["t/a.jpg"], "s3://bucket/coco/t/a.jpg", "t/a.jpg"),
        (["coco/t/a.jpg", "other/t/a.jpg"], "/data/coco/t/a.jpg", "coco/t/a.jpg"),
        (["x/t/a.jpg", "y/t/a.jpg"], "/data/t/a.jpg", "image_missing"),
        (["a.jpg"], "/data/images/a.jpg", "a.jpg"),  # the folder itself has the name
        (["a.jpg"], "D:\\images\\a.jpg", "a.jpg"),
        (["a.jpg"], "/data/sets/a.jpg", "image_missing"),  # nothing but the file's own name
        (["t/a.jpg"], "/t/a.jpg", "t/a.jpg"),
        # names without an ending, and numbers
        (["train/054c91397f2fe05d.jpg"], "054c91397f2fe05d", "train/054c91397f2fe05d.jpg"),
        (["a.jpg", "a.png"], "a", "image_missing"),
        (["v/COCO_val2014_000000000042.jpg"], 42, "v/COCO_val2014_000000000042.jpg"),
        (["v/COCO_val2014_000000000042.jpg"], "42", "v/COCO_val2014_000000000042.jpg"),
        (["VG_100K/7.jpg", "VG_100K_2/8.jpg"], 8, "VG_100K_2/8.jpg"),
        (["v2/0014_small.webp", "13.PNG"], 14, "v2/0014_small.webp"),
        (["15.txt"], 15, "image_missing"),
        (["b7.jpg", "a7.jpg"], 7, "image_missing"),  # either could be meant
        (["coco/COCO_val2014_000000000042.jpg", "vg/42.png"], 42, "image_missing"),
        (["x/v_42.jpg", "vg/42_a.png"], "42", "image_missing"),
        # what systems keep for themselves
        (["._a.jpg", "__MACOSX/x/._a.jpg", "x/a.jpg"], "a.jpg", "x/a.jpg"),
        ([".cache/a.jpg"], "a.jpg", "image_missing"),
        # nothing
        (["a.jpg"], "gone.jpg", "image_missing"),
        ([], "a.jpg", "image_missing"),
        (["x/a.jpg"], "x", "image_missing"),
        (["a.jpg"], "/", "image_missing"),
        (["a.jpg"], ".", "image_missing"),
        (["a.jpg"], "n" * 5000 + ".jpg", "image_missing"),
        (["a.jpg"], None, "image_missing"),
        (["a.jpg"], ["a.jpg"], "image_missing"),
        (["1.jpg"], True, "image_missing"),
        (["1.jpg"], -1, "image_missing"),
        (["a.jpg"], "\ud800", "image_missing"),
    ],
)
def test_a_name_and_the_picture_that_it_means(
    made: Made, files: list[str], name: object, expected: str
) -> None:
    assert found(made(*files), name) == expected


@pytest.mark.parametrize(
    ("files", "names", "expected"),
    [
        (["1.jpg"], ["dog/1.jpg", "cat/1.jpg"], ["image_missing", "image_missing"]),
        (["1.jpg"], ["dog\\1.jpg", "cat\\1.jpg"], ["image_missing", "image_missing"]),
        (["1.jpg"], ["dog/1", "cat/1.jpg"], ["image_missing", "image_missing"]),
        (["1.JPG"], ["dog%2F1.jpg", "cat/1.jpg"], ["image_missing", "image_missing"]),
        (["1.jpg"], ["C:\\data\\images\\1.jpg", "D:/cat/images/1.jpg"], ["image_missing"] * 2),
        (["t/1.jpg"], ["/dog/t/1.jpg", "/cat/t/1.jpg"], ["image_missing", "image_missing"]),
        (["1.jpg"], ["1.jpg", "dog/1.jpg"], ["1.jpg", "image_missing"]),
        (["v/1.jpg"], ["coco/v/1.jpg", "/mnt/coco/v/1.jpg"], ["v/1.jpg", "v/1.jpg"]),
        # one picture under one name, however it is written, and ends that differ
        (["1.jpg"], ["dog/1.jpg", "dog\\1.jpg", "dog/1.jpg"], ["1.jpg"] * 3),
        (["1.jpg", "2.jpg"], ["dog/1.jpg", "cat/2.jpg"], ["1.jpg", "2.jpg"]),
        (["v/1.jpg", "t/1.jpg"], ["coco/v/1.jpg", "coco/t/1.jpg"], ["v/1.jpg", "t/1.jpg"]),
        (["1.jpg", "1.png"], ["dog/1.jpg", "cat/1.png"], ["1.jpg", "1.png"]),
        (["dog/1.jpg", "cat/1.jpg"], ["dog/1.jpg", "cat/1.jpg"], ["dog/1.jpg", "cat/1.jpg"]),
    ],
)
def test_two_names_of_a_file_never_mean_one_picture_by_their_ends(
    made: Made, files: list[str], names: list[str], expected: list[str]
) -> None:
    folder, among = PictureFolder(str(made(*files))), NamesTogether([*names, 7, None])
    read = [folder.read(name, among) for name in names]
    assert [one.path if isinstance(one, FolderPicture) else str(one) for one in read] == expected
    for one in read:
        if isinstance(one, Unusable):
            assert "has not this folder, and " in one.example


def test_copies_of_a_numbered_picture_are_one(made: Made) -> None:
    folder = made("train2014/COCO_train2014_000000000042.jpg", "train2017/000000000042.jpg")
    pictures = PictureFolder(str(folder))
    assert pictures.read(42) == "image_missing"
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"the same")
    picture = pictures.read(42)
    assert isinstance(picture, FolderPicture)
    assert picture.path == "train2014/COCO_train2014_000000000042.jpg"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "x/../../secret.jpg",
        "..\\secret.jpg",
        "%2e%2e/secret.jpg",
        "..%2fsecret.jpg",
        "..%5Csecret.jpg",
        "/images/../secret.jpg",
        "file:///images/../../secret.jpg",
        "C:\\..\\secret.jpg",
        "a.jpg\0",
    ],
)
def test_no_name_leads_outside(made: Made, name: str) -> None:
    assert found(made("a.jpg", "x/b.jpg"), name) == "unsafe_member"


def test_a_whole_path_is_taken_below_the_folder_and_not_beside_it(
    made: Made, tmp_path: Path
) -> None:
    folder = made("x/a.jpg", "y/b.jpg")
    assert found(folder, str(folder / "x" / "a.jpg")) == "x/a.jpg"
    assert found(folder, f"file://{folder}/x/a.jpg") == "x/a.jpg"
    assert found(folder, str(folder / "y" / "a.jpg")) == "image_missing"
    assert found(folder, str(tmp_path / "secret.jpg")) == "image_missing"


def test_what_was_tried_is_told(made: Made) -> None:
    folder = made("x/a.jpg", "y/a.jpg", "z.jpg")
    pictures = picture_folder(str(folder))
    example = {
        name: reason.example
        for name in ("a.jpg", "gone.jpg", "/data/sets/z.jpg")
        if isinstance(reason := pictures.read(name), Unusable)
    }
    assert "2 files could be meant: x/a.jpg, y/a.jpg" in example["a.jpg"]
    assert f"tried {folder}/gone.jpg; no file has this name of the 3" in example["gone.jpg"]
    assert f"in another folder: {folder}/z.jpg" in example["/data/sets/z.jpg"]
    none = PictureFolder(str(folder / "none")).read("a.jpg")
    assert isinstance(none, Unusable)
    assert "there is no file below" in none.example


def test_links_to_folders_are_followed_once(made: Made, tmp_path: Path) -> None:
    folder, elsewhere = made("b.jpg"), tmp_path / "disk2"
    elsewhere.mkdir()
    (elsewhere / "a.jpg").write_bytes(b"train2014/a.jpg")
    (folder / "train2014").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(folder)
    assert found(folder, "/data/train2014/a.jpg") == "train2014/a.jpg"


def test_sizes_and_counts_are_bounded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made("a.jpg", "x/b.jpg", "x/c.jpg", "empty.jpg")
    (folder / "empty.jpg").write_bytes(b"")
    assert found(folder, "empty.jpg") == "image_empty"
    monkeypatch.setattr(module, "MAX_LISTED", 2)
    assert found(folder, "a.jpg") == "a.jpg"
    assert found(folder, "b.jpg") == "image_missing"  # which of more there are nobody knows
    monkeypatch.setattr(module, "MAX_PICTURE_BYTES", 6)
    assert found(folder, "x/b.jpg") == "image_too_large"


def test_a_store_is_searched_as_a_disk_is() -> None:
    fs = fsspec.filesystem("memory")
    for path in ("t/a.jpg", "d e.jpg", "t/._a.jpg"):
        fs.pipe_file(f"/coco-names/{path}", path.encode())
    folder = "memory://coco-names"
    assert found(folder, "t/a.jpg") == "t/a.jpg"
    assert found(folder, "a.jpg") == "t/a.jpg"
    assert found(folder, "d%20e.jpg") == "d e.jpg"
    assert found(folder, "C:\\data\\t\\a.jpg") == "t/a.jpg"
    assert found(folder, "gone.jpg") == "image_missing"


def test_what_only_looks_like_a_file_is_not_waited_for(made: Made) -> None:
    folder = made("a.jpg")
    os.mkfifo(folder / "b.jpg")
    assert found(folder, "b.jpg") == "image_missing"


def test_a_disk_that_fails_is_raised(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = PictureFolder(str(made("a.jpg")))

    def fails(_: str) -> int:
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(pictures._fs, "size", fails)
    with pytest.raises(OSError, match="the disk fails"):
        pictures.read("a.jpg")
