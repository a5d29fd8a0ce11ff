"""Keys, extensions and fields of names."""

import pytest

from shards.inputs.names import Field, field_of, is_hidden


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (b"a.JPG", Field(b"a", b"a", "jpg", "image")),
        (b"./d/a.txt", Field(b"d/a", b"d/a", "txt", "text")),
        (b".//a.json", Field(b"a", b"a", "json", "meta")),
        (b"d.v2/000.mask.png", Field(b"d.v2/000", b"d.v2/000.mask", "png", "image")),
        (b"a.tiff", Field(b"a", b"a", "tiff", "foreign")),
        (b"../a.jpg", Field(b"../a", b"../a", "jpg", "image")),
        (b"a.npy", None),
        (b"jpg", None),
        (b"a.jpg/", None),
        (b".jpg", None),
        (b"._a.jpg", None),
        (b".git/a.jpg", None),
        (b"d/@eaDir/a.jpg/small.jpg", None),
    ],
)
def test_field_of(name: bytes, field: Field | None) -> None:
    assert field_of(name) == field


def test_fields_know_whether_they_stand_beside_a_key() -> None:
    direct, beside = field_of(b"a.jpg"), field_of(b"a.mask.png")
    assert direct is not None
    assert beside is not None
    assert (direct.is_direct, direct.ending) == (True, b".jpg")
    assert (beside.is_direct, beside.ending) == (False, b".mask.png")


def test_the_ending_of_texts_can_be_another() -> None:
    assert field_of(b"a.blip.txt", "blip.txt") == Field(b"a", b"a", "blip.txt", "text")
    assert field_of(b"a.CAPTION", "caption") == Field(b"a", b"a", "caption", "text")
    assert field_of(b"a.txt", "caption") is None
    assert field_of(b"a.txt", None) is None


def test_hidden_is_what_a_folder_above_hides() -> None:
    assert is_hidden(b"a/.b/c.jpg")
    assert not is_hidden(b"./a/../b.jpg")
