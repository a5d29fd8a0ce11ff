"""WebP: its chunks, where its frames stand on the canvas, and its end."""

from collections.abc import Iterator

from pipeline.media.formats import Box, Source

_PIXELS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
_EXIF, _EXIF_FLAG, _METADATA_FLAGS = b"EXIF", 0x08, 0x2C  # profile, EXIF, XMP


def is_webp(data: bytes) -> bool:
    """Say whether the file begins as a WebP does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def is_cut(data: bytes) -> bool:
    """Compare the size in the header with the bytes there are; the codec tells no cause."""
    return int.from_bytes(data[4:8], "little") + 8 > len(data)


def mended(data: bytes) -> Source:
    """Leave out the chunks that decide no pixel, and add the last byte that makes sizes even.

    Where a chunk of pixels is cut the file stays as it is.
    """
    parts = []
    for kind, content, is_whole in _chunks(data):
        if kind in _PIXELS and not is_whole:
            return Source(data)
        if kind in _PIXELS or (kind == _EXIF and is_whole):
            parts.append((kind, content))
    flags = _EXIF_FLAG if _EXIF in dict(parts) else 0
    body = b"WEBP" + b"".join(_written(kind, content, flags) for kind, content in parts)
    return Source(b"RIFF" + len(body).to_bytes(4, "little") + body, not is_cut(data))


def boxes(data: bytes) -> Iterator[Box]:
    """Give the places of the frames on the canvas; none where it is no animation."""
    for kind, content, _ in _chunks(data):
        if kind == b"ANMF":
            left, top, width, height = (
                int.from_bytes(content[at : at + 3], "little") for at in range(0, 12, 3)
            )
            yield 2 * left, 2 * top, 2 * left + width + 1, 2 * top + height + 1


def chunk_places(data: bytes) -> Iterator[tuple[int, int]]:
    """Say where each chunk begins and ends, without the byte that makes sizes even."""
    position = 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + size
        yield position, end
        position = end + size % 2


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Walk the chunks: the kind, the content, whether that is whole."""
    for position, end in chunk_places(data):
        yield data[position : position + 4], data[position + 8 : end], end <= len(data)


def _written(kind: bytes, content: bytes, metadata_flags: int) -> bytes:
    if kind == b"VP8X" and content:
        content = bytes([content[0] & ~_METADATA_FLAGS | metadata_flags]) + content[1:]
    return kind + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
