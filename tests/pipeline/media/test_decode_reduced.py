"""A JPEG much larger than it is wanted is decoded at a part of its size; facts stay the file's."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.media.decode import Decoded, DecodeLimits, DecodeRefusal, decode, difference_hash
from pipeline.media.guard import Guard

WHOLE = DecodeLimits(1, 50_000_000, 100)


def limits(side: int | None) -> DecodeLimits:
    return DecodeLimits(1, 50_000_000, 100, side)


def smooth(width: int, height: int) -> Image.Image:
    """Make a picture of slow waves, which looks alike at any size."""
    across, down = np.meshgrid(np.linspace(0, 7, width), np.linspace(0, 5, height))
    waves = [np.sin(across), np.cos(down), np.sin(across + down)]
    return Image.fromarray(np.uint8(127 + 120 * np.stack(waves, axis=2)))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def decoded(data: bytes, side: int | None) -> Decoded:
    found = decode(data, limits(side))
    assert isinstance(found, Decoded)
    return found


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, (801, 603)),
        (151, (801, 603)),
        (150, (401, 302)),
        (75, (201, 151)),
        (30, (101, 76)),
        (1, (101, 76)),
    ],
)
def test_it_is_never_smaller_than_wanted(wanted: int | None, expected: tuple[int, int]) -> None:
    found = decoded(jpeg(smooth(801, 603)), wanted)
    assert found.image.size == expected
    assert found.size == (801, 603)


def test_it_looks_the_same() -> None:
    data = jpeg(smooth(1600, 1200))
    whole, part = decoded(data, None), decoded(data, 300)
    assert part.image.size == (800, 600)
    one, two = (np.asarray(d.image.resize((384, 384))).astype(int) for d in (whole, part))
    assert np.abs(one - two).mean() < 1
    hashes = (
        np.unpackbits(np.frombuffer(difference_hash(d.image), np.uint8)) for d in (whole, part)
    )
    assert np.not_equal(*hashes).sum() <= 6


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_facts_are_upright_and_of_the_file(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = jpeg(smooth(800, 600), exif=exif)
    found, whole = decoded(data, 150), decoded(data, None)
    assert found.size == whole.size == whole.image.size
    assert found.image.size == (whole.image.width // 2, whole.image.height // 2)
    assert found.notes == whole.notes


def test_a_small_mark_is_no_blank_picture() -> None:
    image = Image.new("RGB", (1600, 1600), "white")
    image.putpixel((803, 805), (250, 250, 250))
    data = jpeg(image, subsampling=0)
    whole = decode(data, WHOLE)
    assert type(decode(data, limits(100))) is type(whole)
    flat = decode(jpeg(Image.new("RGB", (1600, 1600), "white")), limits(100))
    assert isinstance(flat, DecodeRefusal)
    assert "1600 x 1600" in flat.detail


def test_other_formats_are_decoded_whole() -> None:
    buffer = io.BytesIO()
    smooth(800, 600).save(buffer, "PNG")
    assert decoded(buffer.getvalue(), 100).image.size == (800, 600)


def test_a_cut_file_is_refused_for_the_same_reason() -> None:
    data = jpeg(smooth(1600, 1200))
    for length in (200, len(data) // 2, len(data) - 40):
        part, whole = decode(data[:length], limits(100)), decode(data[:length], WHOLE)
        assert isinstance(part, DecodeRefusal)
        assert isinstance(whole, DecodeRefusal)
        assert part == whole


def test_a_child_decodes_alike() -> None:
    data = jpeg(smooth(801, 603))
    with Guard(30) as guard:
        theirs = guard.decode(data, limits(150))
    ours = decoded(data, 150)
    assert isinstance(theirs, Decoded)
    assert (theirs.size, theirs.notes) == (ours.size, ours.notes)
    assert theirs.image.tobytes() == ours.image.tobytes()
