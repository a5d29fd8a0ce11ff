"""GIF: its blocks, where its frames stand on the canvas, and its end."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.media.formats import Box, Source

SIGNATURE = b"GIF8"
PICTURE, EXTENSION, END = 0x2C, 0x21, 0x3B
_CONTROL = b"\xf9\x04"  # the extension that tells what is transparent, and its only length
_CONTROL_BYTES = 8
_MOST_PARTS, _BYTES_PER_PART = 4096, 64


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of parts of up to 255 bytes, each behind its length, and a 0 at the end."""

    kind: int
    start: int
    last_part: int
    end: int  # past the file's end where it is cut


def header_bytes(data: bytes) -> int:
    """Count the bytes before the first block."""
    return 13 + _palette_bytes(data[10] if len(data) > 10 else 0)


def most_parts(data: bytes) -> int:
    """Give a number of parts that is far above what encoders write."""
    return _MOST_PARTS + len(data) // _BYTES_PER_PART


def is_ended(data: bytes) -> bool:
    """Say whether the end mark is there, or too far away to be looked for."""
    if data.endswith(bytes([END])):
        return True
    return any(block.kind == END for block in _blocks(data))


def boxes(data: bytes) -> Iterator[Box]:
    """Give the places of the frames on the canvas."""
    for block in _blocks(data):
        if block.kind == PICTURE:
            left, top, width, height = (
                int.from_bytes(data[at : at + 2], "little")
                for at in range(block.start + 1, block.start + 9, 2)
            )
            yield left, top, left + width, top + height


def mended(data: bytes) -> Source:
    """Leave out the extensions that decide no pixel; shorten a last part that the file's end cuts.

    A codec waits for the whole part, though the pixels may be in what is there.
    """
    parts, end = [data[: header_bytes(data)]], False
    for block in _blocks(data):
        whole = data[block.start : block.end]
        end = block.kind == END
        if block.kind != EXTENSION or _is_read(whole):
            parts.append(whole)
        if block.kind == PICTURE and block.end > len(data) > block.last_part + 1:
            rest = data[block.last_part + 1 :]
            parts[-1] = data[block.start : block.last_part] + bytes([len(rest)]) + rest
    return Source(b"".join(parts), end)


def _is_read(extension: bytes) -> bool:
    return extension[1:3] == _CONTROL and len(extension) == _CONTROL_BYTES


def _blocks(data: bytes) -> Iterator[_Block]:
    """Walk the blocks to the end mark; it, too, where too many parts stand before it."""
    position, parts, most = header_bytes(data), 0, most_parts(data)
    while position < len(data) and parts <= most and data[position] != END:
        kind, start, parts = data[position], position, parts + 1
        if kind == PICTURE:  # its frame, its colours, the least size of its codes
            flags = data[position + 9] if position + 9 < len(data) else 0
            position += 11 + _palette_bytes(flags)
        elif kind == EXTENSION:
            position += 2
        else:  # a codec steps over anything else
            position += 1
            continue
        last_part = position
        while position < len(data) and data[position] and parts <= most:
            last_part, parts = position, parts + 1
            position += 1 + data[position]
        position += 1
        yield _Block(kind, start, last_part, position)
    if position < len(data):
        yield _Block(END, position, position, position + 1)


def _palette_bytes(flags: int) -> int:
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0
