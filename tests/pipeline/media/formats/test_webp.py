"""Chunks of WebPs: metadata that is not read, frames' places, and where the file ends."""

from typing import Any

import numpy as np
import pytest

from pipeline.media.formats import webp
from shards.reasons import SampleReason
from tests.support.hand_made import exif, picture, pixels, refusal


def chunk(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


def with_chunks(data: bytes, *more: bytes) -> bytes:
    """Add chunks at the end."""
    body = data[8:] + b"".join(more)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


KINDS: dict[str, Any] = {"lossy": {"quality": 90}, "lossless": {"lossless": True}}


@pytest.fixture(params=KINDS)
def whole(request: pytest.FixtureRequest, noise: Any, encode: Any) -> bytes:
    image = noise()
    image.putalpha(image.convert("L"))
    return encode(image, "WEBP", exif=exif(6), xmp=b"<x/>" * 99, **KINDS[request.param])


def test_metadata_cut_or_of_absurd_size_costs_no_picture(whole: bytes) -> None:
    start = whole.index(b"XMP ")
    absurd = whole[: start + 4] + b"\xff\xff\xff\x7f" + whole[start + 8 :]
    for data in (absurd, whole[: start + 30], whole[: start + 3], whole[:-2]):
        found = picture(data)
        assert found.image.tobytes() == picture(whole).image.tobytes()
        assert "exif_transposed" in found.notes
        assert ("end_mark_missing" in found.notes) == (data is not absurd)


def test_a_cut_in_the_orientation_loses_that_alone(whole: bytes) -> None:
    start = whole.index(b"EXIF")
    found = picture(whole[: start + 12])
    assert "end_mark_missing" in found.notes
    assert found.image.size == (64, 48)
    upright = np.rot90(pixels(found.image), -1)
    assert np.array_equal(upright, pixels(picture(whole).image))


def test_broken_profiles_and_unknown_chunks(noise: Any, encode: Any) -> None:
    plain = encode(noise(), "WEBP", lossless=True)
    for more in (chunk(b"ICCP", b"x"), chunk(b"abcd", bytes(9)), b"EXIF\xff\xff\xff\x7fab"):
        found = picture(with_chunks(plain, more))
        assert np.array_equal(pixels(found.image), pixels(noise()))


def test_the_byte_that_makes_it_even(noise: Any, encode: Any) -> None:
    """A file's last byte is missing, and it holds nothing."""
    found = 0
    for seed in range(12):
        data = encode(noise(seed=seed), "WEBP", lossless=True)
        if int.from_bytes(data[16:20], "little") % 2 == 0:
            assert refusal(data[:-1]).reason == SampleReason.IMAGE_TRUNCATED
            continue
        found += 1
        assert picture(data[:-1]).notes == ("end_mark_missing",)
        assert picture(data[:-1]).image.tobytes() == picture(data).image.tobytes()
        for cut in range(2, 40):
            assert refusal(data[:-cut]).reason == SampleReason.IMAGE_TRUNCATED
    assert found > 0


def test_the_places_of_frames(noise: Any, encode: Any) -> None:
    frames = [noise(seed=seed) for seed in range(3)]
    data = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert list(webp.boxes(data)) == [(0, 0, 64, 48)] * 3
    moved = bytearray(data)
    start = data.index(b"ANMF") + 8
    moved[start : start + 12] = bytes([3, 0, 0, 2, 0, 0, 9, 0, 0, 4, 1, 0])
    assert next(webp.boxes(bytes(moved))) == (6, 4, 16, 265)
    assert list(webp.boxes(encode(noise(), "WEBP"))) == []
