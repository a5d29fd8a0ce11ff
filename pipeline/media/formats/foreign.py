"""What a file is that is none of the pictures that we read, told by its content."""

import json
import re
import zlib

# First bytes of formats that are images, or hold them, but that we hand to no codec.
_MAGIC = {
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff (BigTIFF)",
    b"MM\0+": "tiff (BigTIFF)",
    b"8BPS\0\x01": "psd",
    b"8BPS\0\x02": "psb",
    b"\0\0\x01\0": "ico",
    b"\0\0\x02\0": "cur",
    b"\xff\x0a": "jpeg-xl (jxl)",
    b"\0\0\0\x0cJXL ": "jpeg-xl (jxl)",
    b"\0\0\0\x0cjP  ": "jpeg-2000 (jp2)",
    b"\xff\x4f\xff\x51": "jpeg-2000 (j2k)",
    b"%PDF-": "pdf",
    b"%!PS": "eps",
    b"\xc5\xd0\xd3\xc6": "eps",
    b"\x76\x2f\x31\x01": "exr",
    b"qoif": "qoi",
    b"DDS ": "dds",
    b"\x1a\x45\xdf\xa3": "webm or matroska video",
}
_BRANDS = {  # of the ISO media format, as its `ftyp` says
    **dict.fromkeys((b"avif", b"avis"), "avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "heic (heif)"),
    **dict.fromkeys((b"mif1", b"mif2", b"msf1", b"heif"), "heif"),
    b"qt  ": "mov video",
}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_LOOKED_AT_BYTES = 4096
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_PROLOGUE = re.compile(r"\s*(<\?.*?\?>|<!--.*?-->)?", re.DOTALL)
_DOCTYPE = re.compile(r"<!doctype\s+(\w+)[^>[]*(\[.*?\]\s*)?>\s*", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<([a-z][\w:-]*)", re.IGNORECASE)
_HTML_TAGS = re.compile(
    "a|b|body|br|center|div|font|form|h[1-6]|head|hr|html|i|iframe|img|link|meta|p|pre|script|span"
    "|style|table|title"
)


def foreign_format(data: bytes) -> str | None:
    """Name the format of an image, document or video that is not read; None for all else."""
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    if data[4:8] == b"ftyp":
        return _media_format(data)
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi video"
    # maker, version, run lengths, bits; and zeros where nothing is told
    if len(data) > 128 and data[0] == 10 and data[1] < 6 and data[2] == 1 and data[64] == 0:
        return "pcx" if data[3] in (1, 2, 4, 8) else None
    return "svg" if _is_svg(data) else None


def other_content(data: bytes) -> str | None:
    """Name what is no image at all, as downloads bring it; None where it cannot be told."""
    text = _text(data).lstrip()
    root = _root(text)
    if root and _HTML_TAGS.fullmatch(root):
        return "an HTML page, not a picture: what a failed download often leaves"
    if root == "svg":  # one that has a script
        return "an SVG with a script"
    if root is not None:
        return "an XML document, not a picture: what a failed download often leaves"
    if text[:1] in ("{", "[") and _is_json(data):
        return "a JSON answer, not a picture: what a failed download often leaves"
    return None


def _media_format(data: bytes) -> str:
    size = min(int.from_bytes(data[:4]), 256)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, size, 4))]
    names = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    # the general brand may come first
    return next((name for name in names if name != "heif"), names[0] if names else "mp4 video")


def _is_svg(data: bytes) -> bool:
    """A drawing; one with a script is a program, and no picture of any format."""
    return _root(_text(data)) == "svg" and b"<script" not in data.lower()


def _root(text: str) -> str | None:
    """Find the first element of a document: in lower case, without its namespace."""
    at = 0
    while (prologue := _PROLOGUE.match(text, at)) and prologue.end() > at:
        at = prologue.end()
    if doctype := _DOCTYPE.match(text, at):
        return doctype[1].lower()
    tag = _TAG.match(text, at)
    return tag[1].lower().rpartition(":")[2] if tag else None


def _text(data: bytes) -> str:
    """Read a file's beginning as text, out of a gzip as well."""
    start = data[:_LOOKED_AT_BYTES]
    if start.startswith(b"\x1f\x8b"):
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, _LOOKED_AT_BYTES)
        except zlib.error:
            return ""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return start.removeprefix(mark).decode(encoding, "replace")
    return start.decode("latin-1")


def _is_json(data: bytes) -> bool:
    if len(data) > _LOOKED_AT_BYTES * 16:
        return False
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
