"""The tar of a part holds pictures as they came, and depends on them alone."""

import json
from pathlib import Path

import pytest

from shards.download.tar import PartTar, ending_of, key_of
from tests.support.tars import read_members

JPEG, PNG = b"\xff\xd8\xff\xe0" + bytes(600), b"\x89PNG\r\n\x1a\n"


def write(path: Path) -> bytes:
    tar = PartTar(path)
    tar.add(key_of(7), JPEG, "a dög", {"url": "http://a.org", "row": 7})
    tar.add(key_of(12), PNG, None, {"row": 12})
    tar.close()
    assert tar.samples == 2
    return path.read_bytes()


def test_what_goes_in_comes_out_and_bytes_repeat(tmp_path: Path) -> None:
    data = write(tmp_path / "one")
    assert data == write(tmp_path / "two")
    members = dict(read_members(data))
    assert list(members) == [
        *("000000007.jpg", "000000007.txt", "000000007.json"),
        *("000000012.png", "000000012.json"),
    ]
    assert members["000000007.jpg"] == JPEG
    assert members["000000007.txt"].decode() == "a dög"
    assert json.loads(members["000000012.json"]) == {"row": 12}


@pytest.mark.parametrize(
    ("start", "ending"),
    [
        (JPEG, "jpg"),
        (PNG, "png"),
        (b"GIF89a", "gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "webp"),
        (b"RIFF\0\0\0\0WAVE", "jpg"),  # cleaning will say what it is
        (b"<html>", "jpg"),
        (b"", "jpg"),
    ],
)
def test_the_ending_follows_the_content(start: bytes, ending: str) -> None:
    assert ending_of(start) == ending
