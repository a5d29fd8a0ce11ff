"""An animation is known by its first frame that shows something; what no frame covers is white."""

import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.media.decode import Decoded, decode
from pipeline.media.frames import MOST_FRAMES
from shards.reasons import SampleReason
from tests.support.hand_made import ANY_SIZE, chunk, picture, pixels, png, refusal

KINDS = ("GIF", "PNG", "WEBP")


def animated(encode: Any, kind: str, frames: list[Image.Image], **options: Any) -> bytes:
    if kind == "WEBP":
        options["lossless"] = True
    options = {"duration": 50, **options}  # or frames that are alike are made one
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def flat(colour: Any = "black", size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("RGB", size, colour)


def on_canvas(gif: bytes, width: int, height: int, left: int, top: int) -> bytes:
    """Move the first frame of a GIF on a larger canvas."""
    moved = bytearray(gif)
    start = moved.index(b",\0\0\0\0")
    moved[start + 1 : start + 5] = struct.pack("<HH", left, top)
    moved[6:10] = struct.pack("<HH", width, height)
    return bytes(moved)


def riff(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


def webp_on_canvas(frames: list[tuple[bytes, Any, int, int]], width: int, height: int) -> bytes:
    """Write an opaque animated WebP of still ones, each with its size and its place."""
    parts = [riff(b"VP8X", b"\2\0\0\0" + _u24(width - 1) + _u24(height - 1))]
    parts.append(riff(b"ANIM", bytes(6)))
    for data, (wide, high), left, top in frames:
        place = b"".join(map(_u24, (left // 2, top // 2, wide - 1, high - 1, 50)))
        parts.append(riff(b"ANMF", place + b"\2" + data[12:]))
    return riff(b"RIFF", b"WEBP" + b"".join(parts))


def _u24(number: int) -> bytes:
    return number.to_bytes(3, "little")


def expected_on_white(image: Image.Image, width: int, height: int, left: int, top: int) -> Any:
    canvas = np.full((height, width, 3), 255)
    canvas[top : top + image.height, left : left + image.width] = pixels(image)
    return canvas


# --- A part of the canvas. ---


@pytest.mark.parametrize("place", [(0, 0), (16, 8), (16, 12)])
@pytest.mark.parametrize("count", [1, 2])
def test_a_first_gif_frame_of_a_part(noise: Any, encode: Any, place: Any, count: int) -> None:
    frames = [noise(32, 24, seed=seed).quantize(16) for seed in range(count)]
    data = on_canvas(animated(encode, "GIF", frames), 48, 36, *place)
    found = picture(data)
    assert np.array_equal(pixels(found.image), expected_on_white(frames[0], 48, 36, *place))
    assert found.notes == (() if count == 1 else ("first_frame_used",))


def test_a_first_webp_frame_of_a_part(noise: Any, encode: Any) -> None:
    frames = [noise(32, 24, seed=seed) for seed in range(2)]
    parts = [(encode(frame, "WEBP", lossless=True), frame.size, 8, 6) for frame in frames]
    found = picture(webp_on_canvas(parts, 48, 36))
    assert found.notes == ("first_frame_used",)
    assert np.array_equal(pixels(found.image), expected_on_white(frames[0], 48, 36, 8, 6))


def apng_part(image: Image.Image, width: int, height: int, left: int, top: int) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(image))
    place = struct.pack(">IIIII", 0, *image.size, left, top)
    control = chunk(b"fcTL", place + struct.pack(">HHBB", 1, 10, 0, 0))
    data = png(width, height, 8, 2, rows, chunk(b"acTL", struct.pack(">II", 2, 0)), control)
    more = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 1, width, height, 0, 0, 1, 10, 0, 0))
    rows = b"".join(bytes(1 + 3 * width) for _ in range(height))
    more += chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(rows))
    return data[:-12] + more + data[-12:]


def test_a_first_apng_frame_of_a_part(noise: Any) -> None:
    image = noise(32, 24)
    found = picture(apng_part(image, 48, 36, 8, 6))
    assert found.notes == ("first_frame_used",)
    assert np.array_equal(pixels(found.image), expected_on_white(image, 48, 36, 8, 6))


def test_a_clear_frame_on_a_larger_canvas(noise: Any, encode: Any) -> None:
    image = noise(32, 24).quantize(16)
    data = on_canvas(encode(image, "GIF", transparency=3), 48, 36, 8, 6)
    found = picture(data)
    clear = np.asarray(image) == 3
    expected = expected_on_white(image, 48, 36, 8, 6)
    expected[6:30, 8:40][clear] = 255
    assert found.notes == ("alpha_on_white",)
    assert np.array_equal(pixels(found.image), expected)


# --- Blank first frames. ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("colour", ["black", "white", (0, 90, 200)])
@pytest.mark.parametrize("blank", [1, 3])
def test_a_blank_first_frame(noise: Any, encode: Any, kind: str, colour: Any, blank: int) -> None:
    shown = noise().quantize(8, dither=Image.Dither.NONE).convert("RGB")
    frames = [flat(colour)] * blank + [shown, noise(seed=1).quantize(8).convert("RGB")]
    data = animated(encode, kind, frames, duration=list(range(50, 50 + 10 * len(frames), 10)))
    found = picture(data)
    assert found.notes == ("later_frame_used",)
    assert np.array_equal(pixels(found.image), pixels(shown))


@pytest.mark.parametrize("kind", KINDS)
def test_a_clear_first_frame(noise: Any, encode: Any, kind: str) -> None:
    clear = noise().convert("RGBA")
    clear.putalpha(0)
    shown = noise(seed=1).quantize(8).convert("RGBA")
    found = picture(animated(encode, kind, [clear, shown], disposal=2))
    assert "later_frame_used" in found.notes
    assert "first_frame_used" not in found.notes
    assert np.array_equal(pixels(found.image), pixels(shown))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_are_all_blank(encode: Any, kind: str) -> None:
    frames = [flat(colour) for colour in ("black", "white", "red", "blue")]
    assert refusal(animated(encode, kind, frames)).reason == SampleReason.IMAGE_BLANK


def test_a_later_frame_on_a_part_that_the_first_left_out(noise: Any, encode: Any) -> None:
    """The canvas behind both stays white, though the codec fills it with the first colour."""
    shown = noise(32, 24, seed=1)
    still = [(encode(flat(size=(32, 24)), "WEBP", lossless=True), (32, 24), 8, 6)]
    still += [(encode(shown, "WEBP", lossless=True), (32, 24), 8, 6)]
    white = [(encode(flat("white", (32, 24)), "WEBP", lossless=True), (32, 24), 8, 6), still[1]]
    assert picture(webp_on_canvas(still, 48, 36)).notes == ("first_frame_used",)  # it shows a box
    found = picture(webp_on_canvas(white, 48, 36))
    assert found.notes == ("later_frame_used",)
    assert np.array_equal(pixels(found.image), expected_on_white(shown, 48, 36, 8, 6))


@pytest.mark.parametrize("kind", KINDS)
def test_the_search_is_bounded(noise: Any, encode: Any, kind: str) -> None:
    def of(blank: int) -> bytes:
        frames = [flat((number, 0, 0), (16, 12)) for number in range(blank)]
        return animated(encode, kind, [*frames, noise(16, 12)])

    assert picture(of(MOST_FRAMES - 1)).notes == ("later_frame_used",)
    assert refusal(of(MOST_FRAMES)).reason == SampleReason.IMAGE_BLANK


def test_the_search_is_bounded_in_pixels(
    noise: Any, encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.media.frames.MOST_PIXELS", 64 * 48 * 5)
    for blank, is_reached in ((5, True), (6, False)):
        data = animated(encode, "GIF", [*(flat((n, 0, 0)) for n in range(blank)), noise()])
        assert isinstance(decode(data, ANY_SIZE), Decoded) == is_reached


def test_a_later_frame_that_outgrows_its_canvas_is_not_decoded(noise: Any, encode: Any) -> None:
    data = bytearray(animated(encode, "GIF", [flat(), noise().quantize(8)]))
    start = data.rindex(b",\0\0\0\0\x40\0\x30\0")
    data[start + 5 : start + 9] = struct.pack("<HH", 12_000, 12_000)
    started = time.process_time()
    assert refusal(bytes(data), ANY_SIZE).reason == SampleReason.IMAGE_BLANK
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_later_frames_that_are_broken(noise: Any, encode: Any, kind: str) -> None:
    data = animated(encode, kind, [flat(), noise(seed=1).quantize(8).convert("RGB")])
    for share in (0.5, 0.7, 0.9):
        found = refusal(data[: int(len(data) * share)])
        assert found.reason in (SampleReason.IMAGE_BLANK, SampleReason.IMAGE_TRUNCATED)
