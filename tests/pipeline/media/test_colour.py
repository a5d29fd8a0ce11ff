"""Every mode and depth, against arithmetic that shares nothing with the codec."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.media.colour import level_bits
from tests.support.hand_made import chunk, picture, pixels, png


def grey(levels: np.ndarray, *more: bytes) -> bytes:
    """Write a grey PNG of 16 bits."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    return png(levels.shape[1], levels.shape[0], 16, 0, rows, *more)


def ramp(most: int, seed: int = 0) -> np.ndarray:
    """Levels from 0 to the most, with noise in all bits."""
    levels = np.random.default_rng(seed).integers(0, most + 1, (32, 40))
    levels[0, 0], levels[0, 1] = 0, most
    return levels.astype(np.uint16)


# --- Grey of 16 bits. ---


@pytest.mark.parametrize(
    ("most", "bits"),
    [
        *((65535, 16), (30000, 16), (4096, 16)),
        *((4095, 12), (3000, 12), (1024, 12)),
        *((1023, 10), (700, 10), (256, 10)),
        *((255, 8), (128, 8)),
    ],
)
def test_levels_are_scaled_by_the_range_that_they_were_measured_in(most: int, bits: int) -> None:
    levels = ramp(most)
    found = picture(grey(levels))
    expected = np.floor(levels / 2.0 ** (bits - 8))
    assert np.array_equal(pixels(found.image)[..., 1], expected)
    more = ("low_levels_raised",) if bits < 16 else ()
    assert found.notes == ("scaled_16_bit", *more)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("how", ["shifted", "repeated"])
def test_a_dark_picture_that_was_scaled_up_stays_dark(bits: int, how: str) -> None:
    """As the standard wants it: 12 bits in 16 are multiples of 16, or repeat their high bits."""
    small = ramp((1 << (bits - 4)) - 1)  # below 1/16 of the range
    levels = small << (16 - bits)
    if how == "repeated":
        levels = levels | (small >> (2 * bits - 16))
    assert levels.max() < 4096
    assert level_bits(levels) == 16
    assert pixels(picture(grey(levels)).image).max() <= 15


def test_one_bright_point_shows_that_all_is_dark() -> None:
    levels = ramp(900)
    levels[5, 5] = 50_000
    assert level_bits(levels) == 16


def test_levels_that_show_nothing_at_any_depth() -> None:
    assert level_bits(ramp(100)) == 16
    assert level_bits(np.zeros((4, 4), np.uint16)) == 16


def sbit(bits: int) -> bytes:
    return chunk(b"sBIT", bytes([bits]))


@pytest.mark.parametrize(
    ("most", "told", "bits"),
    [
        (4095, 12, 12),
        (900, 12, 12),  # a dark one of 12 bits, and none of 10
        (2000, 11, 11),
        (1500, 14, 14),
        (60_000, 12, 16),  # scaled up, as it should be
        (3000, 10, 16),
        (3000, 16, 12),  # tells nothing
        (3000, 0, 12),
        (3000, 99, 12),
    ],
)
def test_the_file_may_tell_its_depth(most: int, told: int, bits: int) -> None:
    levels = ramp(most)
    found = pixels(picture(grey(levels, sbit(told))).image)[..., 0]
    assert np.array_equal(found, np.floor(levels / 2.0 ** (bits - 8)))


def test_a_depth_with_a_wrong_checksum_is_not_told() -> None:
    levels = ramp(900)
    broken = sbit(12)[:-1] + b"\0"
    assert np.array_equal(pixels(picture(grey(levels, broken)).image)[..., 0], levels >> 2)


def test_one_transparent_level_of_16_bits_and_no_other() -> None:
    levels = ramp(65535)
    levels[:8] = 0x8001
    levels[8:16] = 0x8002  # the same high byte
    found = picture(grey(levels, chunk(b"tRNS", struct.pack(">H", 0x8001))))
    expected = np.where(levels == 0x8001, 255, levels >> 8)
    assert found.notes == ("scaled_16_bit", "alpha_on_white")
    assert np.array_equal(pixels(found.image)[..., 2], expected)


# --- Alpha. ---


def blended(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def test_16_bits_with_alpha() -> None:
    random = np.random.default_rng(4)
    for colour_type, channels in ((4, 2), (6, 4)):
        levels = random.integers(0, 65536, (24, 32, channels)).astype(">u2")
        rows = b"".join(b"\0" + row.tobytes() for row in levels)
        found = picture(png(32, 24, 16, colour_type, rows))
        high = (levels >> 8).astype(float)
        colour = high[..., :-1] if channels == 4 else np.repeat(high[..., :1], 3, axis=-1)
        assert found.notes == ("alpha_on_white",)
        expected = blended(colour, high[..., -1])
        assert np.abs(pixels(found.image) - expected).max() <= 1


def test_one_bit_with_a_transparent_colour() -> None:
    bits = np.random.default_rng(5).integers(0, 2, (16, 16))
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    for clear in (0, 1):
        data = png(16, 16, 1, 0, rows, chunk(b"tRNS", struct.pack(">H", clear)))
        if clear == 0:  # black on white that is white on white
            continue
        found = picture(png(16, 16, 1, 0, rows))
        assert np.array_equal(pixels(found.image)[..., 0], bits * 255)
        assert np.array_equal(pixels(picture(data).image)[..., 0], np.where(bits == 1, 255, 0))


def test_a_lossless_webp_with_alpha(noise: Any, encode: Any) -> None:
    image = noise().convert("RGBA")
    alpha = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    image.putalpha(Image.fromarray(alpha))
    found = picture(encode(image, "WEBP", lossless=True, exact=True))
    expected = blended(pixels(noise()), alpha.astype(float))
    assert np.abs(pixels(found.image) - expected).max() <= 1


# --- CMYK. ---


def inks() -> np.ndarray:
    """Smooth inks, 0 to 255, that a JPEG keeps."""
    x, y = np.meshgrid(np.linspace(0, 1, 64), np.linspace(0, 1, 48))
    shares = np.stack([x, y, 1 - x, 0.5 * y * x], axis=-1)
    return np.round(shares * 255).astype(np.uint8)


def rgb_of(ink: np.ndarray) -> np.ndarray:
    share = ink / 255
    return 255 * (1 - share[..., :3]) * (1 - share[..., 3:])


def test_cmyk_as_adobe_writes_it(encode: Any) -> None:
    """Adobe's marker, and inks upside down: Pillow writes them so."""
    data = encode(Image.fromarray(inks(), mode="CMYK"), "JPEG", quality=100)
    assert b"Adobe" in data[:40]
    found = picture(data)
    assert found.notes == ("cmyk_converted",)
    assert np.abs(pixels(found.image) - rgb_of(inks())).max() <= 8


def test_ycck_as_adobe_writes_it(encode: Any) -> None:
    """YCCK takes what is left of inks for RGB; of inks that are upside down that is the ink."""
    luma = np.asarray(Image.fromarray(np.ascontiguousarray(inks()[..., :3])).convert("YCbCr"))
    stored = np.dstack([luma, 255 - inks()[..., 3]])
    plain = encode(Image.fromarray(255 - stored, mode="CMYK"), "JPEG", quality=100)
    marker = plain.index(b"Adobe")
    data = plain[: marker + 11] + b"\2" + plain[marker + 12 :]
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.info["adobe_transform"] == 2
    assert np.abs(pixels(picture(data).image) - rgb_of(inks())).max() <= 8
