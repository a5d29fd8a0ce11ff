"""Bombs are refused from their headers, and no damage to real pictures raises."""

import random
import re
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.media.decode import Decoded, DecodeLimits, decode, difference_hash, is_whole
from pipeline.media.effort import MOST_SCANNED
from pipeline.media.formats import jpeg
from tests.support.hand_made import chunk, exif, png
from tests.support.tars import read_members

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

# --- Memory. ---

_MEASURE = """
import re, sys
from pathlib import Path
from pipeline.media.decode import DecodeLimits, decode
limits = DecodeLimits(8, 50_000_000, 10)
def peak():  # of this process alone; ru_maxrss would begin at the parent's
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
data = [Path(name).read_bytes() for name in sys.argv[1:]]
before = peak()
print([decode(one, limits).reason.value for one in data])
print(peak() - before)
"""


def bombs(noise: Any, encode: Any) -> dict[str, bytes]:
    """Give small files whose headers promise more pixels than memory should ever hold."""
    side = 16_000
    webp = bytearray(encode(noise(16, 16), "WEBP", lossless=True))
    start = webp.index(b"VP8L") + 9  # 14 bits each: width - 1, height - 1
    bits = int.from_bytes(webp[start : start + 4], "little") & ~((1 << 28) - 1)
    webp[start : start + 4] = (bits | (side - 1) | (side - 1) << 14).to_bytes(4, "little")
    jpeg = bytearray(encode(noise(16, 16), "JPEG"))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = struct.pack(">HH", side, side)
    gif = bytearray(encode(noise(16, 16), "GIF"))
    gif[6:10] = struct.pack("<HH", side, side)
    frame = bytearray(encode(noise(16, 16), "GIF"))  # the frame is larger than its canvas
    start = frame.index(b",\0\0\0\0\x10\0\x10\0") + 5
    frame[start : start + 4] = struct.pack("<HH", side, side)
    row = bytes(1 + side // 8)
    return {
        "png": png(side, side, 1, 0, row * side),
        "png_below_pillows_limit": png(9000, 9000, 1, 0, bytes(1 + 9000 // 8) * 9000),
        "webp": bytes(webp),
        "jpeg": bytes(jpeg),
        "gif": bytes(gif),
        "gif_frame": bytes(frame),
    }


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_bomb_is_refused_from_its_header(noise: Any, encode: Any, tmp_path: Path) -> None:
    names = []
    for name, data in bombs(noise, encode).items():
        path = tmp_path / name
        path.write_bytes(data)
        names.append(str(path))
    command = [sys.executable, "-c", _MEASURE, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    reasons, grown = done.stdout.splitlines()
    assert reasons == str(["image_too_large"] * len(names))
    assert int(grown) < 40_000_000  # any of them decoded would take 81 MB at the very least
    assert done.stderr == ""


# --- Work. ---


def test_a_costly_picture_without_its_end_is_not_decoded_again_and_again(
    noise: Any, encode: Any
) -> None:
    data = encode(noise(), "JPEG", progressive=True)
    scans = sum(segment.kind == jpeg.SCAN for segment in jpeg.segments(data))
    most = MOST_SCANNED * 1_000_000 // (scans * jpeg.DECODINGS)
    assert is_whole(data, most // 3)
    assert not is_whole(data, most * 2)
    assert is_whole(encode(noise(), "PNG")[:-12], most * 2)


# --- Fuzz. ---


@pytest.fixture(scope="module")
def real_images(bad_inputs: Path, data_dir: Path) -> list[bytes]:
    """Give real pictures of all formats, the odd ones of the bad inputs among them."""
    images = []
    for path in sorted(bad_inputs.glob("img_*.tar")):
        members = read_members(path)
        images += [data for name, data in members if not name.endswith((".txt", ".json"))]
    pairs = sorted((data_dir / "pairs" / "images").glob("*"), key=lambda path: path.stat().st_size)
    images += [path.read_bytes() for path in pairs[:4]]
    return [data for data in images if data]


def damaged(data: bytes, random_: random.Random) -> bytes:
    """Cut, overwrite, drop or double some bytes, more often near the header."""
    changed = bytearray(data)
    for _ in range(random_.choice([1, 2, 8, 40])):
        reach = random_.choice([30, 300, len(changed)])
        start = random_.randrange(max(1, min(reach, len(changed))))
        how = random_.randrange(4)
        if how == 0:
            changed[start : start + 1] = bytes([random_.randrange(256)])
        elif how == 1:
            changed[start : start + 4] = random_.choice(
                [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"]
            )
        elif how == 2:
            del changed[start : start + random_.randrange(1, 9)]
        else:
            changed[start:start] = changed[start : start + 50]
    return bytes(
        changed[: random_.randrange(len(changed) + 1)] if random_.random() < 0.3 else changed
    )


def odd_images(noise: Any, encode: Any) -> list[bytes]:
    """Make small pictures that go every way through the decoder."""
    frames = [Image.new("RGB", (24, 18), "navy"), *(noise(24, 18, seed=n) for n in range(3))]
    metadata = {"exif": exif(6), "xmp": b"<x/>" * 20, "icc_profile": b"profile" * 20}
    images = [
        encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=40, **options)
        for kind, options in (("GIF", {}), ("PNG", metadata), ("WEBP", metadata))
    ]
    images += [
        encode(frames[1], kind, **metadata, **options)
        for kind, options in (
            ("PNG", {}),
            ("WEBP", {"lossless": True}),
            ("JPEG", {"progressive": True, "comment": b"words"}),
        )
    ]
    levels = np.random.default_rng(2).integers(0, 4000, (18, 24)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    more = chunk(b"sBIT", b"\x0c"), chunk(b"tRNS", b"\0\7"), chunk(b"zTXt", b"k\0\0x")
    images += [png(24, 18, 16, 0, rows, *more), encode(frames[1].convert("CMYK"), "JPEG")]
    return [*images, *(data[:-2] for data in images)]


def counted(images: list[bytes], rounds: int, seed: int) -> dict[str, int]:
    """Decode each picture with so many kinds of damage; count what came of them."""
    random_ = random.Random(seed)
    small = DecodeLimits(min_side=1, max_pixels=1_000_000, max_aspect=10_000)
    outcomes: dict[str, int] = {}
    for data in images:
        for _ in range(rounds):
            start = time.process_time()
            found = decode(damaged(data, random_), small)
            assert time.process_time() - start < 5
            outcome = "ok" if isinstance(found, Decoded) else found.reason.value
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if isinstance(found, Decoded):
                assert found.image.mode == "RGB"
                assert len(difference_hash(found.image)) == 32
    return outcomes


def test_damage_never_raises(real_images: list[bytes]) -> None:
    outcomes = counted(real_images, 40, seed=20220128)
    assert {"ok", "image_undecodable", "image_truncated"} <= outcomes.keys(), outcomes


def test_damage_to_odd_pictures_never_raises(noise: Any, encode: Any) -> None:
    outcomes = counted(odd_images(noise, encode), 60, seed=20261129)
    assert {"ok", "image_undecodable", "image_truncated"} <= outcomes.keys(), outcomes


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("seed", [1, 2])
def test_20000_damaged_pictures(
    noise: Any, encode: Any, real_images: list[bytes], seed: int
) -> None:
    images = odd_images(noise, encode) * 4 + real_images
    counted(images, 2, seed=0)  # what is loaded once
    peak_bytes = _peak()
    outcomes = counted(images, 10_000 // len(images) + 1, seed)
    assert sum(outcomes.values()) >= 10_000, outcomes
    assert _peak() - peak_bytes < 100_000_000


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024
