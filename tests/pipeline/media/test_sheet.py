"""Sheets of pictures: each in its cell, over its line, and nothing hostile drawn raw."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.media import sheet


def drawn(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        return np.asarray(image)


def test_each_picture_stands_in_its_cell_over_its_line() -> None:
    colours = ["red", "lime", "blue", "yellow"]
    cells = [(name, Image.new("RGB", (200, 90 + n), name)) for n, name in enumerate(colours)]
    page = drawn(sheet.sheet(cells, across=3))
    step = sheet.CELL + sheet.GAP
    assert page.shape[1] == 3 * step + sheet.GAP
    down = (page.shape[0] - sheet.GAP) // 2  # two rows
    for n, (_, picture) in enumerate(cells):
        x, y = sheet.GAP + n % 3 * step, sheet.GAP + n // 3 * down
        own = page[y : y + picture.height, x : x + 200]
        assert (own == np.asarray(picture)[0, 0]).all()
        line = page[y + picture.height : y + picture.height + 28, x : x + sheet.CELL]
        assert line.min() < 100  # ink
    assert (page[sheet.GAP + down :, sheet.GAP + step :] == 255).all()  # no cell there


def test_a_sheet_of_nothing_is_a_picture_too() -> None:
    assert drawn(sheet.sheet([])).size > 0


@pytest.mark.parametrize("size", [(1, 1), (3000, 10), (10, 3000), (224, 224), (640, 480)])
def test_small_pictures_fit_a_cell_and_keep_their_aspect(size: tuple[int, int]) -> None:
    whole = Image.new("RGB", size)
    found = sheet.small(whole)
    assert whole.size == size
    assert max(found.size) == min(sheet.CELL, max(size))
    scale = max(found.size) / max(size)
    assert found.size == pytest.approx([max(1, side * scale) for side in size], abs=1)


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("dog", "dog"),
        ("a\x1b[31mb", "a\\u{1b}[31mb"),
        ("a\u202eb", "a\\u202eb"),
        ("<b>$x^2$</b>", "<b>$x^2$</b>"),
        ("a\nb", "a\\u{a}b"),
        ("漢", "\\u{6f22}"),
        ("žluť", "žluť"),
    ],
)
def test_hostile_words_are_written_out(word: str, shown: str) -> None:
    assert sheet.fit(word, 400) == shown


def test_a_label_fits_its_cell() -> None:
    for word in ("m" * 10_000, "漢" * 50, "i" * 59):
        shown = sheet.fit(word, 100)
        assert sheet.font().getlength(shown) <= 100
        assert shown.endswith("…")
