"""Segments that are not read cost no JPEG; one without its end mark is whole or it is not."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.media.decode import Decoded, decode
from pipeline.media.formats import jpeg
from shards.reasons import SampleReason
from tests.support.hand_made import ANY_SIZE, check_cuts, exif, picture, pixels, refusal

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def segment(kind: int, content: bytes) -> bytes:
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(content) + 2) + content


def smooth(noise: Any, width: int, height: int, mode: str = "RGB") -> Image.Image:
    small = noise(width // 6 + 2, height // 6 + 2)
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def after_start(data: bytes, *more: bytes) -> bytes:
    return data[:2] + b"".join(more) + data[2:]


# --- Metadata. ---

ODD = {
    "short JFIF": segment(0xE0, b"JFIF\0\1"),
    "empty": segment(0xE0, b""),
    "JFIF without a size": segment(0xE0, b"JFIF"),
    "EXIF that points nowhere": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "EXIF in a wrong order": segment(0xE1, b"Exif\0\0XX*\0\x08\0\0\0"),
    "empty EXIF": segment(0xE1, b"Exif\0\0"),
    "XMP that is none": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe<"),
    "short profile": segment(0xE2, b"ICC_PROFILE\0"),
    "profile in no order": segment(0xE2, b"ICC_PROFILE\0\7\3x") * 3,
    "profile of noise": segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(range(256)) * 200),
    "short FlashPix": segment(0xE2, b"FPXR\0"),
    "pictures that are not there": segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    "broken list of pictures": segment(0xE2, b"MPF\0MM\0*\xff\xff\xff\xff"),
    "list of pictures in no order": segment(0xE2, b"MPF\0"),
    "cut resources": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
    "resource without a size": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0"),
    "short Adobe": segment(0xEE, b"Adobe"),
    "Adobe without a transform": segment(0xEE, b"Adobe\0\x64\0\0\0"),
    "words of any bytes": segment(0xFE, bytes(range(256)) * 100),
    "words of no bytes": segment(0xFE, b""),
    "length of nothing": b"\xff\xfe\0\0",
}


@pytest.mark.parametrize("what", ODD)
def test_odd_metadata_costs_no_picture(noise: Any, encode: Any, what: str) -> None:
    for mode in ("RGB", "L", "CMYK"):
        whole = encode(smooth(noise, 64, 48, mode), "JPEG", quality=90)
        found = picture(after_start(whole, ODD[what]))
        assert np.array_equal(pixels(found.image), pixels(picture(whole).image))


def test_the_orientation_stands_behind_what_is_broken(noise: Any, encode: Any) -> None:
    image = smooth(noise, 64, 48)
    whole = encode(image, "JPEG", exif=exif(6))
    for odd in (ODD["short profile"], ODD["short JFIF"], ODD["resource without a size"]):
        found = picture(after_start(whole, odd))
        assert found.notes == ("exif_transposed",)
        assert found.image.size == (48, 64)


# --- The end mark. ---


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_cut_near_the_end(noise: Any, encode: Any, mode: str, progressive: bool) -> None:
    for width, height in ((64, 48), (51, 37)):
        image = smooth(noise, width, height, mode)
        for options in ({"quality": 30}, {"quality": 95, "subsampling": 0}, {"optimize": True}):
            data = encode(image, "JPEG", progressive=progressive, **options)
            assert check_cuts(data, end_mark_bytes=2, most=40) <= 4


def test_a_picture_of_noise_and_one_with_restarts(noise: Any, encode: Any) -> None:
    assert check_cuts(encode(noise(), "JPEG"), end_mark_bytes=2, most=40) == 2
    rows = encode(smooth(noise, 64, 48), "JPEG", restart_marker_rows=1)
    assert check_cuts(rows, end_mark_bytes=2, most=40) <= 4


@pytest.mark.parametrize("progressive", [False, True])
def test_no_part_of_a_picture_is_taken_for_it(noise: Any, encode: Any, progressive: bool) -> None:
    data = encode(smooth(noise, 128, 96), "JPEG", progressive=progressive, quality=85)
    for size in range(200, len(data) - 40, 37):
        found = decode(data[:size], ANY_SIZE)
        assert not isinstance(found, Decoded), size


def test_a_cut_between_scans_is_a_cut(noise: Any, encode: Any) -> None:
    """All that was sent is there, and nothing shows where the finer scans are missing."""
    data = encode(smooth(noise, 64, 48), "JPEG", progressive=True)
    scans = [found.start - 4 for found in jpeg.segments(data) if found.kind == jpeg.SCAN]
    assert len(scans) > 5
    for start in scans[1:]:
        assert refusal(data[:start]).reason == SampleReason.IMAGE_TRUNCATED


def test_what_fills_up_a_cut_picture_is_no_picture(noise: Any, encode: Any) -> None:
    data = encode(smooth(noise, 128, 96), "JPEG")
    half = data[: len(data) // 2]
    words = b"<html>the server is gone</html>" * 200
    for filling in (bytes(len(data)), b"\xff" * 4000, words, bytes(9) + words, half[300:] * 3):
        assert refusal(half + filling).reason == SampleReason.IMAGE_TRUNCATED, filling[:9]


def test_a_picture_that_lacks_little_is_filled_up_by_nothing(noise: Any, encode: Any) -> None:
    data = encode(smooth(noise, 128, 96), "JPEG", quality=90)
    for cut in (6, 12, 40):
        for filling in (bytes(100), b"\xff" * 100, b"it is gone\r\n" * 10):
            found = refusal(data[:-cut] + filling)
            assert found.reason == SampleReason.IMAGE_TRUNCATED, (cut, filling)


def test_zeros_in_the_place_of_the_end(noise: Any, encode: Any) -> None:
    data = encode(smooth(noise, 128, 96), "JPEG")
    for end in (b"", b"\xff", bytes(1), bytes(5000), b"\xff\xff", b"\xff" + bytes(99)):
        found = picture(data[:-2] + end)
        assert found.notes == ("end_mark_missing",)
        assert np.array_equal(pixels(found.image), pixels(picture(data).image))


def test_pixels_that_end_in_a_zero_or_in_ones(encode: Any) -> None:
    """Then the last byte looks like what fills up a file, or like half a marker."""
    lasts = set()
    for side in range(8, 56, 2):
        image = Image.new("RGB", (64, 64), "white")
        image.paste("blue", (0, 0, side, side))
        data = encode(image, "JPEG", quality=side)
        lasts.add(data[-3])
        assert picture(data[:-2]).notes == ("end_mark_missing",)
    assert 0 in lasts


def test_bytes_behind_the_end_are_no_note(noise: Any, encode: Any) -> None:
    data = encode(smooth(noise, 128, 96), "JPEG")
    assert picture(data + bytes(4000)).notes == ()


def test_an_end_within_a_thumbnail_is_none(noise: Any, encode: Any) -> None:
    small = encode(noise(16, 16), "JPEG")
    data = encode(smooth(noise, 64, 48), "JPEG", exif=exif(1) + small)
    assert not jpeg.is_ended(data[:-2])
    assert jpeg.is_ended(data)
    assert picture(data[:-2]).notes == ("end_mark_missing",)
    assert refusal(data[: len(data) // 2]).reason == SampleReason.IMAGE_TRUNCATED


def test_real_pictures_without_their_end(data_dir: Path) -> None:
    paths = sorted((data_dir / "pairs" / "images").glob("*.jpg"))[:6]
    assert paths
    for path in paths:
        data = path.read_bytes()
        if data.endswith(jpeg.END):
            assert check_cuts(data, end_mark_bytes=2, most=12) <= 5
