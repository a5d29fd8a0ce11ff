"""Small files that ask for much work are refused by a count; what encoders write is not."""

import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.media.decode import Decoded, DecodeLimits, DecodeRefusal, decode
from pipeline.media.effort import (
    MOST_EXIF_SEGMENTS,
    MOST_PARTS,
    MOST_SCANNED,
    excess_parts,
    excess_scans,
)
from shards.reasons import SampleReason

LIMITS = DecodeLimits(min_side=1, max_pixels=50_000_000, max_aspect=10)


def segment(kind: int, content: bytes = b"") -> bytes:
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(content) + 2) + content


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def after_start(jpeg: bytes, more: bytes) -> bytes:
    return jpeg[:2] + more + jpeg[2:]


def before_chunk(png: bytes, kind: bytes, more: bytes) -> bytes:
    start = png.index(kind) - 4
    return png[:start] + more + png[start:]


def before_picture(gif: bytes, more: bytes) -> bytes:
    start = 13 + 3 * (2 << (gif[10] & 7))
    return gif[:start] + more + gif[start:]


def scanned(jpeg: bytes, times: int, frame: int = 0xC2) -> bytes:
    """Repeat the last scan of a progressive JPEG, in a frame of that kind."""
    last, end = jpeg.rindex(b"\xff\xda"), len(jpeg) - 2
    more = jpeg[:end] + jpeg[last:end] * times + jpeg[end:]
    return more.replace(b"\xff\xc2", b"\xff" + bytes([frame]), 1)


def refused(data: bytes) -> str:
    """Say why a picture is refused, which takes no time."""
    start = time.process_time()
    answer = decode(data, LIMITS)
    assert time.process_time() - start < 1
    assert isinstance(answer, DecodeRefusal), answer
    assert answer.reason is SampleReason.IMAGE_TOO_LARGE
    return answer.detail


# --- Scans. ---


@pytest.mark.parametrize("side", [1000, 7000])
def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(encode: Any, side: int) -> None:
    jpeg = encode(Image.new("L", (side, side)), "JPEG", progressive=True)
    most = MOST_SCANNED * 1_000_000 // (side * side)
    assert f"scans of {side * side} pixels" in refused(scanned(jpeg, most))
    assert len(scanned(jpeg, most)) < 400_000


def test_an_arithmetic_scan_counts_more(encode: Any) -> None:
    side = 2000
    jpeg = encode(Image.new("L", (side, side)), "JPEG", progressive=True)
    times = MOST_SCANNED * 1_000_000 // (side * side) // 2
    assert excess_scans(scanned(jpeg, times), side * side) is None
    assert excess_scans(scanned(jpeg, times, frame=0xCA), side * side) is not None


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_what_encoders_write_is_far_below(noise: Any, encode: Any, mode: str) -> None:
    jpeg = encode(noise(256, 256).convert(mode), "JPEG", progressive=True, quality=95)
    assert isinstance(decode(jpeg, LIMITS), Decoded)
    # as if it had the most pixels that any command of ours takes
    assert excess_scans(jpeg, 179_000_000) is None or mode == "CMYK"
    assert excess_scans(jpeg, LIMITS.max_pixels) is None


def test_scans_within_a_thumbnail_do_not_count(noise: Any, encode: Any) -> None:
    side = 1000
    small = segment(0xE1, b"\xff\xda" * 30_000)
    jpeg = after_start(encode(noise(side, side), "JPEG"), small)
    assert jpeg.count(b"\xff\xda") * side * side > MOST_SCANNED * 1_000_000
    assert isinstance(decode(jpeg, LIMITS), Decoded)


# --- Parts. ---


def many_parts(noise: Any, encode: Any) -> dict[str, bytes]:
    jpeg, png, gif = (encode(noise(64, 64), kind) for kind in ("JPEG", "PNG", "GIF"))
    profile = zlib.compress(bytes(1_000_000))
    return {
        "comments": after_start(jpeg, segment(0xFE) * 1_000_000),
        "exif": after_start(jpeg, segment(0xE1, b"Exif\0\0x") * 1_000_000),
        "large exif": after_start(jpeg, segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 600),
        "fill": after_start(jpeg, b"\xff" * 10_000_000),
        "fill that leads nowhere": b"\xff\xd8" + b"\xff" * 10_000_000 + b"\0",
        "restarts": after_start(jpeg, b"\xff\xd0" * 5_000_000),
        "chunks": before_chunk(png, b"IDAT", chunk(b"abCd") * 1_000_000),
        "chunks behind": before_chunk(png, b"IEND", chunk(b"abCd") * 1_000_000),
        "empty pixels": before_chunk(png, b"IDAT", chunk(b"IDAT") * 1_000_000),
        "profiles": before_chunk(png, b"IDAT", chunk(b"iCCP", b"k\0\0" + profile) * 10_000),
        "blocks": before_picture(gif, b"!\xfe" + b"\1x" * 5_000_000 + b"\0"),
        "extensions": before_picture(gif, b"!\xfe\1x\0" * 3_000_000),
        "blocks behind": gif[:-1] + b"!\xfe" + b"\1x" * 5_000_000 + b"\0" + gif[-1:],
        "nothing": before_picture(gif, bytes(5_000_000)),
        "webp chunks": webp_of(*[(b"JUNK", b"")] * 1_000_000),
        "webp frames": webp_of(*[(b"ANMF", b"")] * 1_000_000),
    }


def webp_of(*chunks: tuple[bytes, bytes]) -> bytes:
    canvas = (b"VP8X", bytes(4) + (63).to_bytes(3, "little") * 2)
    body = b"".join(
        kind + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
        for kind, content in (canvas, *chunks)
    )
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body


def test_a_file_cut_into_many_parts_is_refused(noise: Any, encode: Any) -> None:
    for name, data in many_parts(noise, encode).items():
        assert "more than " in refused(data), name


def test_a_few_odd_parts_change_nothing(noise: Any, encode: Any) -> None:
    jpeg, png, gif = (encode(noise(64, 64), kind) for kind in ("JPEG", "PNG", "GIF"))
    half = MOST_PARTS // 2
    for data in (
        after_start(jpeg, segment(0xFE, b"words") * half + b"\xff" * half),
        after_start(jpeg, segment(0xE1, b"Exif\0\0" + bytes(60_000)) * (MOST_EXIF_SEGMENTS // 2)),
        before_chunk(png, b"IDAT", chunk(b"tEXt", b"a\0b") * half),
        before_picture(gif, b"!\xfe" + b"\4word" * half + b"\0"),
    ):
        assert isinstance(decode(data, LIMITS), Decoded)


def test_large_files_may_have_as_many_parts_as_their_encoders_write(encode: Any) -> None:
    pixels = chunk(b"IDAT", bytes(8192)) * 20_000  # libpng's size
    png = before_chunk(encode(Image.new("L", (9, 9)), "PNG"), b"IDAT", pixels)
    assert excess_parts(png) is None
    side = 3000
    gif = encode(Image.effect_noise((side, side), 90), "GIF")
    assert len(gif) // 255 > MOST_PARTS
    assert excess_parts(gif) is None
    frames = [(b"ANMF", bytes(40))] * 15_000  # of one colour each, as small as they can be
    assert excess_parts(webp_of(*frames)) is None


def test_frames_behind_the_first_picture_do_not_count(noise: Any, encode: Any) -> None:
    frames = [noise(16, 16).rotate(90 * turn) for turn in range(4)]
    gif = encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    second = gif.index(b"!\xf9", gif.index(b"!\xf9") + 1)
    many = gif[:-1] + gif[second:-1] * 10_000 + gif[-1:]
    answer = decode(many, LIMITS)
    assert isinstance(answer, Decoded)
    assert answer.notes == ("first_frame_used",)


def test_real_pictures_pass(data_dir: Path) -> None:
    paths = list((data_dir / "pairs" / "images").glob("*"))
    assert paths
    for path in paths:
        data = path.read_bytes()
        assert excess_parts(data) is None
        assert excess_scans(data, LIMITS.max_pixels) is None
