"""What no pixel depends on costs no PNG, and is not inflated."""

import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest

from pipeline.media.formats import png as format_png
from tests.support.hand_made import check_cuts, chunk, exif, picture, pixels, png

MEGABYTES = zlib.compress(bytes(2_500_000))


def before(data: bytes, kind: bytes, *more: bytes) -> bytes:
    start = data.index(kind) - 4
    return data[:start] + b"".join(more) + data[start:]


def bad_check(kind: bytes, content: bytes) -> bytes:
    return chunk(kind, content)[:-4] + b"\xde\xad\xbe\xef"


UNREAD = {
    "profile that inflates": chunk(b"iCCP", b"k\0\0" + MEGABYTES),
    "profile of an unknown method": chunk(b"iCCP", b"k\0\7abc"),
    "profile without a name's end": chunk(b"iCCP", b"k"),
    "text that inflates": chunk(b"zTXt", b"k\0\0" + MEGABYTES),
    "orientation in a text of an unknown method": chunk(
        b"zTXt", b"Raw profile type exif\0\1" + zlib.compress(b"x")
    ),
    "orientation in no number": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nxyz"),
    "text of an unknown method": chunk(b"zTXt", b"k\0\1abc"),
    "international text that inflates": chunk(b"iTXt", b"k\0\1\0\0\0" + MEGABYTES),
    "texts of 70 MB": b"".join(
        chunk(b"zTXt", b"k%d\0\0" % n + zlib.compress(bytes(1_000_000))) for n in range(70)
    ),
    "bad check of a text": bad_check(b"tEXt", b"a\0b"),
    "bad check of a profile": bad_check(b"iCCP", b"k\0\0" + zlib.compress(b"x")),
    "bad check of a gamma": bad_check(b"gAMA", struct.pack(">I", 45455)),
    "bad check of a size": bad_check(b"pHYs", struct.pack(">IIB", 1, 1, 1)),
    "bad check of a time": bad_check(b"tIME", bytes(7)),
    "bad check of an orientation": bad_check(b"eXIf", exif(6)[6:]),
    "bad check of a private chunk": bad_check(b"abCd", b"x"),
    "short gamma": chunk(b"gAMA", b"\1"),
    "short size": chunk(b"pHYs", b"\1"),
    "short intent": chunk(b"sRGB", b""),
    "short chromaticity": chunk(b"cHRM", b"12"),
    "empty significant bits": chunk(b"sBIT", b""),
    "text that is called as Pillow's own": chunk(b"tEXt", b"transparency\0x"),
    "text that is called as its box": chunk(b"tEXt", b"bbox\0x"),
    "bad check of a transparent colour": bad_check(b"tRNS", bytes(6)),
    "short transparent colour": chunk(b"tRNS", b"\0"),
    "empty animation": bad_check(b"acTL", struct.pack(">II", 2, 0)),
}


@pytest.mark.parametrize("what", UNREAD)
def test_what_is_not_read_costs_no_picture(noise: Any, encode: Any, what: str) -> None:
    whole = encode(noise(), "PNG")
    for place in (b"IDAT", b"IEND"):
        found = picture(before(whole, place, UNREAD[what]))
        assert np.array_equal(pixels(found.image), pixels(noise()))
        assert found.notes == ()


def test_the_pixels_of_a_picture_with_none_of_that_are_not_copied(noise: Any, encode: Any) -> None:
    whole = encode(noise(), "PNG")
    assert format_png.bare(whole).data is whole


def test_profiles_are_not_inflated(noise: Any, encode: Any) -> None:
    profile = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1_000_000)))
    data = before(encode(noise(), "PNG"), b"IDAT", profile * 3000)  # 3 GB
    start = time.process_time()
    picture(data)
    assert time.process_time() - start < 1


def test_unread_texts_that_could_turn_a_picture_are_inflated_once(noise: Any, encode: Any) -> None:
    bomb = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(900_000)))
    data = before(encode(noise(), "PNG"), b"IDAT", bomb * 3000)
    start = time.process_time()
    assert np.array_equal(pixels(picture(data).image), pixels(noise()))
    assert time.process_time() - start < 2


# --- Orientation. ---

RAW_PROFILE = b"Raw profile type exif\0"
HEX = b"\nexif\n    26\n" + exif(6).hex().encode()
XMP = b'<x tiff:Orientation="6"/>'


@pytest.mark.parametrize(
    "told",
    [
        chunk(b"eXIf", exif(6)[6:]),
        chunk(b"tEXt", RAW_PROFILE + HEX),
        chunk(b"zTXt", RAW_PROFILE + b"\0" + zlib.compress(HEX)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
    ],
)
def test_the_orientation_is_read_wherever_it_stands(noise: Any, encode: Any, told: bytes) -> None:
    upright = np.rot90(np.asarray(noise()), -1)
    for place in (b"IDAT", b"IEND"):
        found = picture(before(encode(noise(), "PNG"), place, told))
        assert found.notes == ("exif_transposed",)
        assert np.array_equal(np.asarray(found.image), upright)


@pytest.mark.parametrize("size", [2_500_000, 20_000_000])
def test_an_orientation_in_a_bomb_costs_nothing(noise: Any, encode: Any, size: int) -> None:
    content = XMP + bytes(size)
    for told in (
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(content)),
        chunk(b"zTXt", RAW_PROFILE + b"\0" + zlib.compress(content)),
    ):
        found = picture(before(encode(noise(), "PNG"), b"IDAT", told))
        assert np.array_equal(pixels(found.image), pixels(noise()))


# --- Transparent colours, which stand in the file's own depth. ---


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_transparent_grey_of_few_bits(depth: int) -> None:
    most = (1 << depth) - 1
    levels = np.tile(np.arange(16) % (most + 1), (16, 1))
    bits = (levels[..., None] >> np.arange(depth)[::-1] & 1).reshape(16, -1)
    rows = b"".join(b"\0" + np.packbits(row.astype(np.uint8)).tobytes() for row in bits)
    found = picture(png(16, 16, depth, 0, rows, chunk(b"tRNS", struct.pack(">H", 1))))
    expected = np.where(levels == 1, 255, levels * 255 // most)
    assert "alpha_on_white" in found.notes
    assert np.array_equal(pixels(found.image)[..., 0], expected)


def test_a_transparent_colour_of_16_bits() -> None:
    levels = np.zeros((16, 16, 3), dtype=">u2")
    levels[:8], levels[8:, :8] = (0x8012, 0x4034, 0xFF56), (0x1000, 0x2000, 0x3000)
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    key = chunk(b"tRNS", struct.pack(">HHH", 0x8012, 0x4034, 0xFF56))
    found = pixels(picture(png(16, 16, 16, 2, rows, key)).image)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[9, 0].tolist() == [0x10, 0x20, 0x30]
    assert found[9, 9].tolist() == [0, 0, 0]


def test_a_palette_with_many_half_clear_colours(noise: Any) -> None:
    indices = np.tile(np.arange(16, dtype=np.uint8), (16, 1))
    colours = np.asarray(noise(16, 1)).reshape(16, 3)
    alphas = np.arange(0, 256, 17, dtype=np.uint8)[:12]  # the other four are opaque
    more = chunk(b"PLTE", colours.tobytes()), chunk(b"tRNS", alphas.tobytes())
    rows = b"".join(b"\0" + row.tobytes() for row in indices)
    found = pixels(picture(png(16, 16, 8, 3, rows, *more)).image)
    share = np.append(alphas, [255] * 4)[:, None] / 255
    expected = colours * share + 255 * (1 - share)
    assert np.abs(found[0] - expected).max() <= 1


# --- Ends. ---

_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
_PASSES += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def interlaced(levels: np.ndarray) -> bytes:
    """Write an RGB PNG in the seven passes of the standard."""
    height, width, _ = levels.shape
    passes = [levels[y::down, x::right] for x, y, right, down in _PASSES]
    rows = b"".join(b"\0" + row.tobytes() for part in passes for row in part if part.size)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1))
    parts = [header, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return format_png.SIGNATURE + b"".join(parts)


def test_every_cut_near_the_end(noise: Any, encode: Any) -> None:
    assert check_cuts(encode(noise(), "PNG"), end_mark_bytes=12) >= 16
    assert check_cuts(encode(noise().quantize(64), "PNG"), end_mark_bytes=12) >= 16
    assert check_cuts(interlaced(np.asarray(noise())), end_mark_bytes=12) >= 16


def test_a_cut_in_a_text_behind_the_pixels(noise: Any, encode: Any) -> None:
    data = before(encode(noise(), "PNG"), b"IEND", chunk(b"tEXt", b"k\0" + b"x" * 60))
    assert check_cuts(data, end_mark_bytes=12 + 74) >= 12 + 74


def test_zeros_for_an_end(noise: Any, encode: Any) -> None:
    found = picture(encode(noise(), "PNG")[:-12] + bytes(500))
    assert found.notes == ("end_mark_missing",)
    assert np.array_equal(pixels(found.image), pixels(noise()))


# --- Animations. ---


def test_a_broken_animation_is_a_still_picture(noise: Any, encode: Any) -> None:
    frames = [noise(seed=seed) for seed in range(3)]
    whole = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert picture(whole).notes == ("first_frame_used",)
    control, counts = whole.index(b"fcTL"), whole.index(b"acTL")
    for at in (counts + 4, control + 4, control + 10, control + 20):
        broken = bytearray(whole)
        broken[at] ^= 0x40
        found = picture(bytes(broken))
        assert found.notes == ()
        assert np.array_equal(pixels(found.image), pixels(frames[0]))


def test_frames_out_of_order_cost_no_first_frame(noise: Any) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(noise()))
    control = struct.pack(">IIIIIHHBB", 7, 64, 48, 0, 0, 1, 10, 0, 0)
    more = chunk(b"acTL", struct.pack(">II", 2, 0)), chunk(b"fcTL", control)
    found = picture(png(64, 48, 8, 2, rows, *more))
    assert np.array_equal(pixels(found.image), pixels(noise()))
