"""Every kind of picture becomes upright RGB, with notes of what was converted."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from pipeline.media.decode import difference_hash
from tests.support.hand_made import chunk, exif, picture, pixels, png

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


# --- Conversions. ---


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("PNG", {}, "png"),
        ("JPEG", {"quality": 95}, "jpeg"),
        ("WEBP", {"lossless": True}, "webp"),
        ("GIF", {}, "gif"),
    ],
)
def test_each_allowed_format(noise: Any, encode: Any, kind: str, options: Any, name: str) -> None:
    image = noise().resize((64, 48), Image.Resampling.NEAREST)
    if kind == "GIF":
        image = image.quantize(16, dither=Image.Dither.NONE)
    if kind == "JPEG":
        image = image.resize((8, 6)).resize((64, 48))  # smooth: JPEG cannot hold noise
    found = picture(encode(image, kind, **options))
    assert found.format == name
    assert found.notes == ()
    assert np.abs(pixels(found.image) - pixels(image)).mean() < 2


def test_cmyk(encode: Any) -> None:
    red = Image.new("CMYK", (40, 40), (0, 255, 255, 0))
    red.paste((255, 255, 0, 0), (0, 20, 40, 40))  # blue
    found = picture(encode(red, "JPEG", quality=95))
    assert found.notes == ("cmyk_converted",)
    top, bottom = pixels(found.image)[4, 20], pixels(found.image)[36, 20]
    assert np.abs(top - (255, 0, 0)).max() < 12
    assert np.abs(bottom - (0, 0, 255)).max() < 12


def test_16_bit_grey_keeps_its_levels() -> None:
    levels = np.tile(np.linspace(0, 65535, 64).astype(">u2"), (16, 1))
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    found = picture(png(64, 16, 16, 0, rows))
    assert found.notes == ("scaled_16_bit",)
    expected = levels[0].astype(float) / 65535 * 255
    assert np.abs(pixels(found.image)[0, :, 0] - expected).max() <= 1


def test_16_bit_grey_with_a_transparent_level_on_white() -> None:
    levels = np.tile(np.linspace(0, 60000, 16).astype(">u2"), (16, 1))
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    found = picture(png(16, 16, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 0))))
    assert pixels(found.image)[0, 0].tolist() == [255, 255, 255]
    assert abs(pixels(found.image)[0, 15, 0] - 60000 / 65535 * 255) <= 1


def test_16_bit_colour() -> None:
    levels = np.zeros((16, 16, 3), dtype=">u2")
    levels[:8], levels[8:] = (32768, 16384, 65535), (0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    found = picture(png(16, 16, 16, 2, rows))
    assert np.abs(pixels(found.image)[0, 0] - (127.5, 63.75, 255)).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_blended_with_white(noise: Any, encode: Any, mode: str) -> None:
    colour = noise().convert(mode)
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1)))
    colour.putalpha(alpha)
    found = picture(encode(colour, "PNG"))
    assert found.notes == ("alpha_on_white",)
    share = np.asarray(alpha).astype(float)[..., None] / 255
    opaque = pixels(Image.merge("RGB", (colour.convert("RGBA").split())[:3]))
    expected = opaque * share + 255 * (1 - share)
    assert np.abs(pixels(found.image) - expected).max() <= 1


def test_palette_with_transparency_on_white(encode: Any) -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([0, 0, 0, 200, 30, 40])  # the transparent entry is black
    image.paste(1, (10, 10, 30, 30))
    for data in (encode(image, "PNG", transparency=0), encode(image, "GIF", transparency=0)):
        found = picture(data)
        assert "alpha_on_white" in found.notes
        assert pixels(found.image)[0, 0].tolist() == [255, 255, 255]
        assert pixels(found.image)[20, 20].tolist() == [200, 30, 40]


def test_colour_key_of_an_rgb_png_on_white(noise: Any, encode: Any) -> None:
    image = noise()
    image.paste((1, 2, 3), (0, 0, 20, 20))
    found = picture(encode(image, "PNG", transparency=(1, 2, 3)))
    assert pixels(found.image)[5, 5].tolist() == [255, 255, 255]
    assert pixels(found.image)[30, 30].tolist() == pixels(image)[30, 30].tolist()


# How a camera stores an upright picture under each orientation of the EXIF standard.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(encode: Any, orientation: int) -> None:
    upright = np.full((32, 48, 3), 255, dtype=np.uint8)  # an L, which no turn leaves as it is
    upright[:, :16], upright[24:] = (255, 0, 0), (0, 0, 255)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    for kind in ("PNG", "JPEG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        found = picture(encode(stored, kind, exif=exif(orientation), **options))
        assert found.image.size == (48, 32)
        assert found.notes == (() if orientation == 1 else ("exif_transposed",))
        assert np.abs(pixels(found.image) - upright).mean() < 3


@pytest.mark.parametrize("orientation", [0, 9, 777])
def test_an_orientation_that_there_is_not(noise: Any, encode: Any, orientation: int) -> None:
    found = picture(encode(noise(), "PNG", exif=exif(orientation)))
    assert found.notes == ()
    assert np.array_equal(pixels(found.image), pixels(noise()))


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 30,
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0\0\0\0\0",  # a word, no number
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x02\0\x06\0\x06\0\0\0\0",  # two numbers
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x05\0\0\0\x01\0\0\0\x08\0\0\0\0",  # a fraction
    ],
)
def test_broken_exif_does_not_cost_the_picture(noise: Any, encode: Any, block: bytes) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        size = picture(encode(noise(), kind, exif=block)).image.size
        assert sorted(size) == sorted(noise().size)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(noise: Any, encode: Any, kind: str) -> None:
    frames = [noise(seed=seed).quantize(16).convert("RGB") for seed in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as opened:
        assert len(list(ImageSequence.Iterator(opened))) == 3
    found = picture(data)
    assert found.notes == ("first_frame_used",)
    assert np.array_equal(pixels(found.image), pixels(frames[0]))


def test_a_small_picture_may_be_one_bit_deep(encode: Any, noise: Any) -> None:
    found = picture(encode(noise().convert("1"), "PNG"))
    assert np.array_equal(pixels(found.image), pixels(noise().convert("1")))


def test_trailing_bytes_do_not_matter(encode: Any, noise: Any) -> None:
    for kind in ("PNG", "JPEG", "GIF", "WEBP"):
        data = encode(noise(), kind)
        assert np.array_equal(
            pixels(picture(data + b"\0junk" * 500).image), pixels(picture(data).image)
        )


# --- Hash. ---


def test_the_hash_of_neighbours_differences(noise: Any) -> None:
    small = noise(17, 16).convert("L")
    grey = np.asarray(small).astype(int)
    bits = "".join(
        "1" if grey[y, x + 1] > grey[y, x] else "0" for y in range(16) for x in range(16)
    )
    assert difference_hash(small) == int(bits, 2).to_bytes(32)


def test_the_hash_of_a_copy_is_near(data_dir: Path) -> None:
    paths = sorted((data_dir / "pairs" / "images").glob("*.jpg"))[:8]
    hashes = []
    for path in paths:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        buffer = io.BytesIO()
        image.resize((image.width // 2, image.height // 2)).save(buffer, "JPEG", quality=50)
        copy = Image.open(buffer).convert("RGB")
        hashes.append((difference_hash(image), difference_hash(copy)))

    def distance(a: bytes, b: bytes) -> int:
        return (int.from_bytes(a) ^ int.from_bytes(b)).bit_count()

    assert all(distance(one, copy) < 30 for one, copy in hashes)
    others = [distance(a, b) for i, (a, _) in enumerate(hashes) for b, _ in hashes[:i]]
    assert min(others) > 40
