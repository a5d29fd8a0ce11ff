"""Bombs are refused from their headers, and no damage to real pictures raises."""

import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.media.decode import Decoded, DecodeLimits, decode, difference_hash
from tests.support.hand_made import png
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


def test_damage_never_raises(real_images: list[bytes]) -> None:
    random_ = random.Random(20220128)
    small = DecodeLimits(min_side=1, max_pixels=1_000_000, max_aspect=10_000)
    outcomes: dict[str, int] = {}
    for data in real_images:
        for _ in range(40):
            found = decode(damaged(data, random_), small)
            outcome = "ok" if isinstance(found, Decoded) else found.reason.value
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if isinstance(found, Decoded):
                assert found.image.mode == "RGB"
                assert len(difference_hash(found.image)) == 32
    assert {"ok", "image_undecodable", "image_truncated"} <= outcomes.keys(), outcomes
