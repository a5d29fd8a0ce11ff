"""Pictures keep their shape and lose what is too much of them."""

import io

import numpy as np
import pytest
from PIL import Image

from models.guests.picture import bounded, encode


@pytest.mark.parametrize(
    "size", [(1, 1), (400, 3), (3, 400), (4000, 3000), (5000, 1), (1024, 1025)]
)
def test_no_picture_has_more_pixels_than_allowed(size: tuple[int, int]) -> None:
    small = bounded(Image.new("RGB", size), 4096)
    width, height = small.size
    assert 1 <= width * height <= 4096
    if size[0] * size[1] <= 4096:
        assert small.size == size
    else:
        assert width * height > 4096 * 0.8  # and not much fewer
    if min(small.size) > 20:
        assert width / height == pytest.approx(size[0] / size[1], rel=0.1)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert bounded(Image.new(mode, (8, 6)), 4096).mode == "RGB"


def test_what_is_sent_is_the_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    assert np.array_equal(np.array(Image.open(io.BytesIO(encode(picture, "png")))), pixels)
    again = Image.open(io.BytesIO(encode(picture, "jpeg")))
    assert (again.format, again.size) == ("JPEG", (9, 6))
