"""Thumbnails show the picture, small and upright, and nothing that came along with it."""

import base64
import io
from typing import Any

from PIL import Image

from pipeline.report.thumbnail import Thumbnail, encode_thumbnail


def opened(thumbnail: Thumbnail) -> Image.Image:
    kind, _, data = (thumbnail.url or "").partition(",")
    assert kind == "data:image/webp;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == "WEBP"
    assert image.size == (thumbnail.width, thumbnail.height)
    return image


def shades(image: Image.Image) -> bytes:
    return image.convert("RGB").resize((8, 4), Image.Resampling.BOX).tobytes()


def test_it_is_the_picture_and_no_longer_than_224(noise: Any) -> None:
    picture = noise(640, 200)
    small = opened(encode_thumbnail(picture))
    assert small.size == (224, 70)
    pairs = zip(shades(picture), shades(small), strict=True)
    assert max(abs(one - other) for one, other in pairs) < 16
    assert picture.size == (640, 200)


def test_small_and_thin_pictures_keep_a_size(noise: Any) -> None:
    assert opened(encode_thumbnail(noise(30, 20))).size == (30, 20)
    assert opened(encode_thumbnail(noise(4000, 2))).size == (224, 1)


def test_nothing_comes_along(noise: Any) -> None:
    picture = noise(60, 40)
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    secrets = {"icc_profile": b"secret" * 30, "exif": exif.tobytes(), "xmp": b"secret"}
    picture.info |= secrets
    small = opened(encode_thumbnail(picture))
    assert not small.info.keys() & secrets.keys()
    assert b"secret" not in base64.b64decode((encode_thumbnail(picture).url or "").split(",")[1])
