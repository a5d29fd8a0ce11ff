"""Which files of a folder belong to which picture, by their names."""

from collections import Counter

import pytest

from shards.inputs.folders.beside import pictures_in
from shards.inputs.text import NO_TEXTS, TXT, TextSource


def named(names: list[str], text: TextSource = TXT) -> list[tuple[str, str, str | None]]:
    return [(p.name, p.key, p.text) for p in pictures_in(sorted(names), text)]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a.jpg", "a.txt", "a.caption", "a.jpg.txt"], "a.txt"),
        (["a.jpg", "a.caption", "a.jpg.txt"], "a.caption"),
        (["a.jpg", "a.jpg.txt"], "a.jpg.txt"),
        (["a.jpg", "a.TXT"], "a.TXT"),
        (["a.jpg", "b.txt", "A.txt"], None),
    ],
)
def test_a_text_is_the_first_of_its_places(names: list[str], text: str | None) -> None:
    assert named(names) == [("a.jpg", "a", text)]


def test_dots_in_names_tear_nothing() -> None:
    assert named(["v1.2.jpg", "v1.2.txt", "v1.3.JPG"]) == [
        ("v1.2.jpg", "v1.2", "v1.2.txt"),
        ("v1.3.JPG", "v1.3", None),
    ]


def test_fields_beside_a_picture_are_no_samples_and_counted() -> None:
    unused = Counter[str]()
    names = sorted(["a.jpg", "a.mask.png", "a.blip.txt", "a.txt", "b.txt"])
    assert [picture.name for picture in pictures_in(names, TXT, unused)] == ["a.jpg"]
    assert unused == {".png": 1, ".txt": 2}


def test_pictures_that_differ_by_their_endings_are_each_a_sample() -> None:
    assert named(["a.jpg", "a.png", "a.txt", "a.webp"]) == [
        ("a.jpg", "a", "a.txt"),
        ("a.png", "a.png", "a.txt"),
        ("a.webp", "a.webp", "a.txt"),
    ]


def test_texts_stand_where_it_is_said() -> None:
    names = ["a.alt", "a.jpg", "a.txt", "a.x.y"]
    assert named(names, TextSource.parse("alt")) == [("a.jpg", "a", "a.alt")]
    assert named(names, TextSource.parse("x.y")) == [("a.jpg", "a", "a.x.y")]
    assert named(names, NO_TEXTS) == [("a.jpg", "a", None)]


def test_a_name_that_is_not_utf8_has_a_key_that_is() -> None:
    ((name, key, _),) = named(["\udce9.jpg"])
    assert (name, key) == ("\udce9.jpg", "%E9")
