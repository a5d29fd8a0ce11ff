"""Pictures written by hand, and what decoding makes of them."""

import struct
import zlib

import numpy as np
from PIL import Image

from pipeline.media.decode import Decoded, DecodeLimits, DecodeRefusal, decode
from shards.reasons import SampleReason

LIMITS = DecodeLimits(min_side=8, max_pixels=50_000_000, max_aspect=10)
ANY_SIZE = DecodeLimits(min_side=1, max_pixels=50_000_000, max_aspect=10_000)


def picture(data: bytes, limits: DecodeLimits = LIMITS) -> Decoded:
    """Decode what should be decoded."""
    decoded = decode(data, limits)
    assert isinstance(decoded, Decoded), decoded
    assert decoded.image.mode == "RGB"
    return decoded


def refusal(data: bytes, limits: DecodeLimits = LIMITS) -> DecodeRefusal:
    """Decode what should be refused."""
    decoded = decode(data, limits)
    assert isinstance(decoded, DecodeRefusal), decoded
    return decoded


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """Write a PNG by hand, chunk by chunk."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + end


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


def check_cuts(data: bytes, *, end_mark_bytes: int, most: int = 100) -> int:
    """Cut a file at each place in its last bytes; count those that leave every pixel there.

    Such a picture comes with a note; any other is truncated, and never half a picture.
    """
    whole, kept = picture(data, ANY_SIZE), 0
    for cut in range(1, most):
        found = decode(data[:-cut], ANY_SIZE)
        if isinstance(found, DecodeRefusal):
            assert found.reason == SampleReason.IMAGE_TRUNCATED, (cut, found)
            assert cut > end_mark_bytes, (cut, found)
            continue
        assert found.image.tobytes() == whole.image.tobytes(), cut
        assert found.notes == (*whole.notes, "end_mark_missing"), cut
        kept += 1
    return kept
