"""What a name may mean, and what names no picture."""

import pytest

from shards.training.picture_name import (
    Reading,
    folded,
    is_name,
    is_picture,
    last_number,
    readings,
    unusable,
    without_ending,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", [(("a.jpg",), False)]),
        ("./b//a.jpg", [(("b", "a.jpg"), False)]),
        ("/b/a.jpg", [(("b", "a.jpg"), True)]),
        ("b\\a.jpg", [(("b\\a.jpg",), False), (("b", "a.jpg"), False)]),
        ("c:/b/a.jpg", [(("b", "a.jpg"), True)]),
        ("C:\\b\\a.jpg", [(("\\b\\a.jpg",), True), (("b", "a.jpg"), True)]),
        ("file:///b/a.jpg", [(("b", "a.jpg"), True)]),
        ("file:/b/a.jpg", [(("b", "a.jpg"), True)]),
        ("gs://bucket/b/a.jpg", [(("b", "a.jpg"), True)]),
        ("d%20e.jpg", [(("d%20e.jpg",), False), (("d e.jpg",), False)]),
        ("why: because.jpg", [(("why: because.jpg",), False)]),
        ("a:b.jpg", [(("a:b.jpg",), False)]),
        ("100%.jpg", [(("100%.jpg",), False)]),
    ],
)
def test_readings_come_the_most_literal_first(
    name: str, expected: list[tuple[tuple[str, ...], bool]]
) -> None:
    assert list(readings(name)) == [Reading(*each) for each in expected]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.jpg", None),
        ("/etc/passwd", None),  # looked for below the folder alone
        ("a..b/c...jpg", None),
        (7, None),
        (0, None),
        ("..", "unsafe_member"),
        ("a/../b.jpg", "unsafe_member"),
        ("a\\..\\b.jpg", "unsafe_member"),
        ("%2E%2E%2Fb.jpg", "unsafe_member"),
        ("a\0.jpg", "unsafe_member"),
        ("", "image_missing"),
        (" \t", "image_missing"),
        (True, "image_missing"),
        (1.0, "image_missing"),
        (-3, "image_missing"),
        (None, "image_missing"),
        ({"path": "a.jpg"}, "image_missing"),
        ("\ud800.jpg", "image_missing"),
    ],
)
def test_what_names_no_picture(name: object, reason: str | None) -> None:
    assert unusable(name) == reason
    assert not is_name(name) or isinstance(name, str | int)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("train/COCO_train2014_000000000012.jpg", 12),
        ("13.PNG", 13),
        ("v2/0014_small.webp", 14),
        ("none.jpg", None),
        ("folder7/a.jpg", None),
        ("\u0663.jpg", None),
    ],
)
def test_last_numbers(name: str, number: int | None) -> None:
    assert last_number(name) == number


def test_endings_and_letters() -> None:
    assert folded(["U\u0308", "A.JPG"]) == ("\u00dc", "A.jpg")
    assert folded(["A.TXT"]) == ("A.TXT",)
    assert without_ending(("x", "a.b.jpg")) == ("x", "a.b")
    assert without_ending(("x", "a.b")) == ("x", "a.b")
    assert [is_picture(name) for name in ("a.JFIF", "a.heic", "a.tar", "jpg")] == [
        True,
        True,
        False,
        False,
    ]
