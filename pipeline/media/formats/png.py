"""PNG: the chunks that decide its pixels, without all others.

Texts and colour profiles are read by nobody here. A codec that reads them inflates them first, and
refuses whole pictures for one that is damaged or too large. As in libpng, a chunk that can be done
without, and whose checksum is wrong, counts as absent.
"""

import zlib
from dataclasses import dataclass

from pipeline.media.formats import Source

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_TURNING = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # texts that may tell an orientation
_MOST_TURNING_BYTES = 1 << 20  # inflated; Pillow refuses more
_GREY, _RGB, _PALETTE = 0, 2, 3
_KEY_BYTES = {_GREY: 2, _RGB: 6}


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: bytes
    whole: bytes

    @property
    def content(self) -> bytes:
        return self.whole[8:-4]

    @property
    def is_intact(self) -> bool:
        return zlib.crc32(self.whole[4:-4]) == int.from_bytes(self.whole[-4:])


def bare(data: bytes, *, is_still: bool = False) -> Source:
    """Leave out what decides no pixel; `is_still`: the frames behind the first, too."""
    view, parts = memoryview(data), [memoryview(SIGNATURE)]
    header = _Header(data)
    position, is_ended, is_same = len(SIGNATURE), False, True
    while position + 8 <= len(data) and not is_ended:
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4])
        if not kind.isalpha():  # the codec decides whether it has all it needs
            parts.append(view[position:])
            is_ended = data.find(b"IEND", position) >= 0
            break
        is_ended = kind == b"IEND" and end <= len(data)
        if kind[:1].isupper() or (kind == b"fdAT" and not is_still):
            parts.append(view[position:end])
        else:
            chunk = _Chunk(kind, data[position:end])
            if kind in _ANIMATION and not is_still and not chunk.is_intact:
                return bare(data, is_still=True)
            kept = b"" if kind in _ANIMATION and is_still else header.kept(chunk)
            is_same = is_same and kept is chunk.whole
            parts.append(memoryview(kept))
        header.seen.add(kind)
        position = end
    return Source(data if is_same else b"".join(parts), is_ended, header.significant_bits)


class _Header:
    """What a PNG's first chunk says, and which kinds of chunks have come so far."""

    def __init__(self, data: bytes) -> None:
        self.seen: set[bytes] = set()
        self._turning: set[bytes] = set()
        self.significant_bits: int | None = None
        self._depth, self._colour = (data[24], data[25]) if len(data) > 25 else (0, 0)

    def kept(self, chunk: _Chunk) -> bytes:
        """Return a chunk that can be done without as the codec should read it, or nothing."""
        if not chunk.is_intact:
            return b""
        if chunk.kind == b"sBIT" and self._colour == _GREY and chunk.content:
            self.significant_bits = chunk.content[0]
        if chunk.kind == b"tRNS":
            return self._key(chunk)
        is_read = chunk.kind in (*_ANIMATION, b"eXIf") or self._may_turn(chunk)
        return chunk.whole if is_read else b""

    def _may_turn(self, chunk: _Chunk) -> bool:
        """Say whether a text may tell an orientation: the first of its kind, if it is no bomb."""
        keyword = chunk.content.partition(b"\0")[0]
        if chunk.kind not in _TEXTS or keyword not in _TURNING or keyword in self._turning:
            return False
        self._turning.add(keyword)
        return _inflates_well(chunk)

    def _key(self, chunk: _Chunk) -> bytes:
        """Bring the transparent colour to the 8 bits in which it is looked for."""
        if self._colour == _PALETTE:
            return chunk.whole if chunk.content else b""
        size = _KEY_BYTES.get(self._colour)
        if size is None or len(chunk.content) < size or b"IDAT" in self.seen:
            return b""
        levels = [int.from_bytes(chunk.content[at : at + 2]) for at in range(0, size, 2)]
        if self._colour == _GREY and self._depth in (2, 4):
            levels = [level * 255 // ((1 << self._depth) - 1) for level in levels]
        if self._colour == _RGB and self._depth == 16:
            levels = [level >> 8 for level in levels]
        return _written(b"tRNS", b"".join(level.to_bytes(2) for level in levels))


def _inflates_well(text: _Chunk) -> bool:
    content = text.content.partition(b"\0")[2]
    if text.kind == b"tEXt" or (text.kind == b"iTXt" and content[:1] == b"\0"):
        return len(content) <= _MOST_TURNING_BYTES
    inflating = zlib.decompressobj()
    if text.kind == b"zTXt" and content[:1] != b"\0":  # no method that there is
        return False
    packed = content[1:] if text.kind == b"zTXt" else content[2:].split(b"\0", 2)[-1]
    try:
        inflating.decompress(packed, _MOST_TURNING_BYTES)
    except zlib.error:
        return False
    return not inflating.unconsumed_tail


def _written(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return len(content).to_bytes(4) + kind + content + check.to_bytes(4)
