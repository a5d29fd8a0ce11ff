"""How much work a picture asks for beyond its pixels, counted from its bytes, never timed.

A few bytes can cost a codec as much as a whole picture: a scan of a progressive JPEG goes over
every pixel and takes 11 bytes, a segment, chunk or block 2 to 12. So a file of some MB could hold a
worker for minutes. The counts depend on nothing but the bytes, so that a run's result does not
depend on the machine.
"""

from collections.abc import Iterator

from pipeline.media.formats import jpeg, webp

# 0.6 ms a megapixel and scan, measured: at most 3 s. 178 megapixels in ten scans of one to three
# colours, as encoders write them, come to 2,500.
MOST_SCANNED = 4000  # scans of a colour times megapixels
ARITHMETIC = 4  # such a scan costs so many times as much
MOST_PARTS = 4096  # and more in a large file, whose pixels are cut into parts
MOST_EXIF_SEGMENTS = 256  # each is appended to those before it

_ARITHMETIC_FRAMES = (0xC9, 0xCA)
_PNG_PIXELS = (b"IDAT", b"fdAT", b"fcTL")
_BYTES_PER_CHUNK, _BYTES_PER_BLOCK = 256, 64  # where a file has more parts than MOST_PARTS


def excess_parts(data: bytes) -> str | None:
    """Say what is too much in how a file is cut up, or None; to be asked before it is opened."""
    if data.startswith(b"\xff\xd8"):
        return _excess_segments(data)
    if data.startswith(b"\x89PNG"):
        return _excess_chunks(data)
    most = MOST_PARTS + len(data) // _BYTES_PER_BLOCK
    if data.startswith(b"GIF8"):
        return _excess("blocks", most, _blocks(data))
    if webp.is_webp(data):
        return _excess("chunks", most, webp.chunk_places(data))
    return None


def excess_scans(data: bytes, pixels: int) -> str | None:
    """Say what is too much in the scans of a JPEG of so many pixels, or None."""
    most = MOST_SCANNED * 1_000_000
    # the bytes of a scan's marker may also stand elsewhere, so that this is an upper bound
    if not data.startswith(b"\xff\xd8") or (
        data.count(b"\xff\xda") * 4 * ARITHMETIC * pixels <= most
    ):
        return None
    scans, colours, cost = 0, 0, 1
    for segment in jpeg.segments(data):
        if segment.kind in _ARITHMETIC_FRAMES:
            cost = ARITHMETIC
        if segment.kind == jpeg.SCAN:
            scans += 1
            colours += cost * data[segment.start] if segment.start < len(data) else 0
    if colours * pixels <= most:
        return None
    return f"{scans} scans of {pixels} pixels, far more than an encoder writes"


def _excess_segments(data: bytes) -> str | None:
    """Count what stands before the first scan: Pillow reads that in Python."""
    segments = exif = skipped_bytes = 0
    for segment in jpeg.segments(data):
        segments += 1
        exif += segment.kind == jpeg.APP1 and data.startswith(b"Exif\0\0", segment.start)
        skipped_bytes += segment.skipped_bytes
        if segment.kind == jpeg.SCAN or segments > MOST_PARTS:
            break
    for what, count, most in (
        ("segments", segments, MOST_PARTS),
        ("EXIF segments", exif, MOST_EXIF_SEGMENTS),
        ("bytes between segments", skipped_bytes, 1 << 16),
    ):
        if count > most:
            return f"more than {most} {what}"
    return None


def _excess_chunks(data: bytes) -> str | None:
    chunks = others = 0
    most = MOST_PARTS + len(data) // _BYTES_PER_CHUNK
    position = 8
    while position + 8 <= len(data) and chunks <= most and others <= MOST_PARTS:
        chunks += 1
        others += data[position + 4 : position + 8] not in _PNG_PIXELS
        position += 12 + int.from_bytes(data[position : position + 4])
    if others > MOST_PARTS:
        return f"more than {MOST_PARTS} chunks without pixels"
    return f"more than {most} chunks in {len(data)} bytes" if chunks > most else None


def _blocks(data: bytes) -> Iterator[None]:
    """Walk the blocks of a GIF until its second picture."""
    position = 13 + (3 * (2 << (data[10] & 7)) if len(data) > 10 and data[10] & 0x80 else 0)
    pictures = 0
    while position < len(data) and pictures < 2:
        introducer = data[position]
        yield None
        if introducer == 0x2C:  # a picture: its frame, its colours, the least size of its codes
            pictures += 1
            flags = data[position + 9] if position + 9 < len(data) else 0
            position += 11 + (3 * (2 << (flags & 7)) if flags & 0x80 else 0)
        elif introducer == 0x21:  # an extension, and its kind
            position += 2
        else:  # Pillow steps over anything else
            position += 1
            continue
        while position < len(data) and data[position]:
            yield None
            position += 1 + data[position]
        position += 1


def _excess(what: str, most: int, parts: Iterator[object]) -> str | None:
    for count, _ in enumerate(parts, 1):
        if count > most:
            return f"more than {most} {what}"
    return None
