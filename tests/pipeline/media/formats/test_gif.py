"""Blocks of GIFs: extensions that are not read, frames' places, and where the file ends."""

from typing import Any

import numpy as np
import pytest

from pipeline.media.formats import gif
from shards.reasons import SampleReason
from tests.support.hand_made import check_cuts, picture, pixels, refusal


def before_picture(data: bytes, *more: bytes) -> bytes:
    start = gif.header_bytes(data)
    return data[:start] + b"".join(more) + data[start:]


def animation(noise: Any, encode: Any, count: int = 3) -> bytes:
    frames = [noise(seed=seed).quantize(16) for seed in range(count)]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


ODD = {
    "long comment": b"!\xfe" + b"\xff".join([b""] + [b"w" * 255] * 200) + b"\0",
    "comment of nothing": b"!\xfe\0",
    "control of one byte": b"!\xf9\1\1\0",
    "control of nothing": b"!\xf9\0",
    "loop of one byte": b"!\xff\x0bNETSCAPE2.0\1\1\0",
    "words on the picture": b"!\1\x0c" + bytes(12) + b"\4word\0",
    "unknown": b"!\x77\3abc\0",
    "nothing": bytes(50),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_extensions_cost_no_picture(noise: Any, encode: Any, what: str) -> None:
    image = noise().quantize(64)
    whole = encode(image, "GIF")
    for data in (before_picture(whole, ODD[what]), whole[:-1] + ODD[what] + whole[-1:]):
        found = picture(data)
        assert np.array_equal(pixels(found.image), pixels(image))
        assert found.notes == ()


def test_what_is_transparent_is_told_by_an_extension_that_is_read(noise: Any, encode: Any) -> None:
    image = noise().quantize(64)
    data = encode(image, "GIF", transparency=image.getpixel((5, 5)))
    found = picture(before_picture(data, ODD["control of one byte"]))
    assert found.notes == ("alpha_on_white",)
    assert pixels(found.image)[5, 5].tolist() == [255, 255, 255]


def test_every_cut_near_the_end(noise: Any, encode: Any) -> None:
    for image in (noise().quantize(256), noise(33, 21).quantize(2), noise().convert("L")):
        assert 2 <= check_cuts(encode(image, "GIF"), end_mark_bytes=2, most=60) <= 5
        interlaced = encode(image, "GIF", interlace=1)
        assert 2 <= check_cuts(interlaced, end_mark_bytes=2, most=60) <= 5


def test_no_part_of_a_picture_is_taken_for_it(noise: Any, encode: Any) -> None:
    data = encode(noise().quantize(64), "GIF")
    for size in range(gif.header_bytes(data) + 12, len(data) - 5, 29):
        assert refusal(data[:size]).reason == SampleReason.IMAGE_TRUNCATED


def test_an_animation_without_its_end(noise: Any, encode: Any) -> None:
    data = animation(noise, encode)
    assert picture(data).notes == ("first_frame_used",)
    found = picture(data[:-1])
    assert found.notes == ("first_frame_used", "end_mark_missing")
    assert np.array_equal(pixels(found.image), pixels(noise().quantize(16)))


def test_bytes_behind_the_end_are_no_note(noise: Any, encode: Any) -> None:
    data = encode(noise().quantize(64), "GIF")
    assert picture(data + b"\0junk").notes == ()


def test_the_places_of_frames(noise: Any, encode: Any) -> None:
    data = bytearray(animation(noise, encode))
    assert list(gif.boxes(bytes(data))) == [(0, 0, 64, 48)] * 3
    start = data.index(b",\0\0\0\0\x40\0\x30\0")
    data[start + 1 : start + 9] = bytes([2, 1, 3, 0, 7, 0, 9, 0])
    assert next(gif.boxes(bytes(data))) == (258, 3, 265, 12)


def test_the_walk_ends_where_too_many_parts_are(noise: Any, encode: Any) -> None:
    data = encode(noise(), "GIF")
    many = before_picture(data, b"!\xfe" + b"\1x" * 500_000 + b"\0")
    assert list(gif.boxes(data)) == [(0, 0, 64, 48)]
    assert list(gif.boxes(many)) == []
