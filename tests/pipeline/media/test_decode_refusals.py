"""What is no picture, or not one that is wanted, is refused with a reason and never raises."""

import re
import warnings
from typing import Any

import pytest
from PIL import Image

from pipeline.media.decode import Decoded, DecodeLimits, DecodeRefusal, decode
from shards.reasons import SampleReason
from tests.support.hand_made import LIMITS, exif, refusal

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def test_no_bytes() -> None:
    assert refusal(b"").reason == SampleReason.IMAGE_EMPTY


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO", "JPEG2000", "AVIF"])
def test_foreign_formats_are_named(noise: Any, encode: Any, kind: str) -> None:
    found = refusal(encode(noise(), kind))
    assert found.reason == SampleReason.FORMAT_NOT_ALLOWED
    assert kind[:4].lower() in found.detail.replace("-", "")


@pytest.mark.parametrize(
    "data",
    [b"<!DOCTYPE html><html></html>" * 9, b"<svg xmlns=''><script>1</script></svg>", b"\0" * 500],
)
def test_what_is_no_picture(data: bytes) -> None:
    assert refusal(data).reason == SampleReason.IMAGE_UNDECODABLE


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((7, 8), SampleReason.IMAGE_TOO_SMALL),
        ((8, 8), None),
        ((80, 8), None),
        ((81, 8), SampleReason.IMAGE_ASPECT),
        ((8, 81), SampleReason.IMAGE_ASPECT),
        ((100, 100), None),
        ((101, 100), SampleReason.IMAGE_TOO_LARGE),
    ],
)
def test_limits_on_size(noise: Any, encode: Any, size: Any, reason: SampleReason | None) -> None:
    limits = DecodeLimits(min_side=8, max_pixels=10_000, max_aspect=10)
    for kind in ("PNG", "JPEG", "GIF", "WEBP"):
        found = decode(encode(noise(*size), kind), limits)
        assert (found.reason if isinstance(found, DecodeRefusal) else None) == reason


@pytest.mark.parametrize("colour", ["black", "white", (3, 200, 7)])
def test_a_flat_colour_is_blank(encode: Any, colour: Any) -> None:
    image = Image.new("RGB", (40, 40), colour)
    assert refusal(encode(image, "PNG")).reason == SampleReason.IMAGE_BLANK
    image.putpixel((39, 39), (90, 90, 90))
    assert isinstance(decode(encode(image, "PNG"), LIMITS), Decoded)


def test_a_transparent_picture_is_blank(noise: Any, encode: Any) -> None:
    image = noise().convert("RGBA")
    image.putalpha(0)
    assert refusal(encode(image, "PNG")).reason == SampleReason.IMAGE_BLANK


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_picture_cut_off_is_truncated(noise: Any, encode: Any, kind: str, share: float) -> None:
    data = encode(noise(200, 200), kind)
    assert refusal(data[: int(len(data) * share)]).reason == SampleReason.IMAGE_TRUNCATED


def test_a_gif_cut_in_its_only_frame_is_truncated(noise: Any, encode: Any) -> None:
    data = encode(noise(200, 200), "GIF")
    assert refusal(data[: len(data) // 2]).reason == SampleReason.IMAGE_TRUNCATED


def test_damage_is_not_truncation(noise: Any, encode: Any) -> None:
    data = bytearray(encode(noise(200, 200), "PNG"))
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    assert refusal(bytes(data)).reason == SampleReason.IMAGE_UNDECODABLE


def test_a_detail_is_the_same_each_time(noise: Any, encode: Any) -> None:
    whole = encode(noise(200, 200), "JPEG")
    for data in (b"no picture", b"\x89PNG\r\n\x1a\n" + b"x" * 50, whole[:900], whole[:20]):
        kept, details = [], set()  # other objects take up memory in between
        for _ in range(4):
            details.add(refusal(bytes(data)).detail)
            kept.append(bytearray(5000))
        assert len(details) == 1
        assert not re.search(r"0x[0-9a-f]{6,}", details.pop())


def test_warnings_of_pillow_are_no_exceptions(noise: Any, encode: Any) -> None:
    data = encode(noise(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(decode(data, LIMITS), Decoded | DecodeRefusal)


def test_a_full_machine_is_not_the_pictures_fault(
    noise: Any, encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "transpose", full)
    with pytest.raises(MemoryError):
        decode(encode(noise(), "PNG", exif=exif(6)), LIMITS)
