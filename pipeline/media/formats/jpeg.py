"""JPEG: its segments, those among them that decide its pixels, and whether all pixels are there."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from pipeline.media.formats import Source

SIGNATURE = b"\xff\xd8"
END = b"\xff\xd9"
ALONE, START, SCAN, APP1, COMMENT = 0x01, 0xD8, 0xDA, 0xE1, 0xFE
_END = 0xD9
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_APPLICATION = range(0xE0, 0xF0)

# What decides colours and orientation, and how long it must be for that.
_READ = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12), APP1: (b"Exif\0\0", 14)}
_XMP = b"http://ns.adobe.com/xap/1.0/\0"

# Stand for the bytes that may be missing at the end; each begins with a bit that zeros are not.
_TAILS = (bytes.fromhex("b6da2c93") * 16, bytes.fromhex("9c4be517d2") * 12)
_LAST_BYTES = 24  # something in so many decides a pixel: they fill up no cut picture
_PIXELS_ZEROS = 2  # at most, at their end
DECODINGS = 1 + 2 * len(_TAILS)  # as many as `is_whole` may need


@dataclass(frozen=True, slots=True)
class Segment:
    """A marker, and where what follows it stands."""

    kind: int
    skipped_bytes: int  # between the one before it and this one
    start: int  # of its content, behind its length


def segments(data: bytes) -> Iterator[Segment]:
    """Walk a JPEG as its codec does: from marker to marker, to the end after a first scan."""
    position, is_scanned = 2, False
    while marker := _MARKER.search(data, position):
        kind, start = data[marker.end() - 1], marker.end() + 2
        if kind == _END and is_scanned:
            return
        yield Segment(kind, marker.start() - position, start)
        is_scanned = is_scanned or kind == SCAN
        length = int.from_bytes(data[start - 2 : start])
        position = start - 2 if kind in (ALONE, START, _END) else start - 2 + length
    yield Segment(_END, max(0, len(data) - position), len(data))


def is_ended(data: bytes) -> bool:
    """Say whether the end mark is there."""
    if data.endswith(END):
        return True
    return all(segment.kind != _END or segment.start < len(data) for segment in segments(data))


def mended(data: bytes) -> Source:
    """Leave out the segments that decide no pixel; a missing end mark is added, and told."""
    parts, kept_to = [], 0
    for segment in segments(data):
        if segment.kind == SCAN:
            break
        if not _is_read(segment, data):
            parts.append(data[kept_to : segment.start - 4])
            kept_to = segment.start - 2 + _length(data, segment)
    body = b"".join([*parts, data[kept_to:]])
    if is_ended(data):
        return Source(body)
    return Source(_unfilled(body) + END, is_ended=False)


def _unfilled(data: bytes) -> bytes:
    """Take off what may stand behind the last pixel: half a marker, and zeros that fill up a file.

    Pixels may end in a zero or two, and have one behind each 0xFF.
    """
    stripped = data.rstrip(b"\0")
    zeros = len(data) - len(stripped)
    if zeros == 0:
        return data.rstrip(b"\xff")
    if zeros <= _PIXELS_ZEROS:
        return data
    # a zero too many could end the last block before its time
    return stripped + b"\0" if stripped.endswith(b"\xff") else stripped


def _length(data: bytes, segment: Segment) -> int:
    return int.from_bytes(data[segment.start - 2 : segment.start])


def _is_read(segment: Segment, data: bytes) -> bool:
    """Say whether a segment decides pixels, or may tell the orientation."""
    kind, start = segment.kind, segment.start
    if kind != COMMENT and kind not in _APPLICATION:
        return True
    if kind == APP1 and data.startswith(_XMP, start):
        return True
    name, least = _READ.get(kind, (b"\0", 1 << 16))
    return data.startswith(name, start) and _length(data, segment) - 2 >= least


def is_whole(data: bytes) -> bool:
    """Say whether all pixels stand in a JPEG whose end mark was added.

    A codec fills up what is missing, and does not tell. So other bytes are put in its place: where
    a pixel depends on them, it was not there.
    """
    if not _all_scans(data):
        return False
    body = data.removesuffix(END)
    pixels = _pixels(data)
    if any(_pixels(body + tail + END) != pixels for tail in _TAILS):
        return False
    last_scan = max(found.start + _length(data, found) for found in segments(data))
    if len(body) - last_scan <= _LAST_BYTES:
        return True  # no room for a filling
    body = _unfilled(body[:-_LAST_BYTES])
    return any(_pixels(body + tail + END) != pixels for tail in _TAILS)


def _pixels(data: bytes) -> bytes | None:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as opened:
            return opened.tobytes()
    except MemoryError:
        raise
    except Exception:
        return None


def _all_scans(data: bytes) -> bool:
    """Say whether every coefficient of every colour came in its last bit."""
    missing: set[tuple[int, int]] = set()
    for segment in segments(data):
        content = data[segment.start : segment.start + 64]
        if segment.kind in _FRAMES and len(content) > 5:
            colours = content[6 : 6 + 3 * content[5] : 3]
            missing = {(colour, frequency) for colour in colours for frequency in range(64)}
        if segment.kind == SCAN and content and len(content) > 3 + 2 * content[0]:
            count = content[0]
            first, last, bits = content[1 + 2 * count : 4 + 2 * count]
            if not bits & 15:
                scanned = content[1 : 1 + 2 * count : 2]
                missing -= {(colour, at) for colour in scanned for at in range(first, last + 1)}
    return not missing
