"""What a file is that is none of ours: by its content, whatever its name."""

import gzip
import json
from typing import Any

import pytest

from pipeline.media.formats.foreign import foreign_format, other_content
from shards.reasons import SampleReason
from tests.support.hand_made import refusal


def box(brand: bytes, *others: bytes) -> bytes:
    content = b"ftyp" + brand + bytes(4) + b"".join(others)
    return (len(content) + 4).to_bytes(4) + content + bytes(100)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>'
DECLARED = b'<?xml version="1.0" encoding="UTF-8"?>\n'
DOCTYPE = b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd" [ <!ENTITY a "b"> ]>\n'

FORMATS = {
    "tiff": [b"II*\0" + bytes(99), b"MM\0*" + bytes(99)],
    "BigTIFF": [b"II+\0\x08\0\0\0" + bytes(99), b"MM\0+\0\x08\0\0" + bytes(99)],
    "psd": [b"8BPS\0\1" + bytes(99)],
    "psb": [b"8BPS\0\2" + bytes(99)],
    "ico": [b"\0\0\1\0\1\0" + bytes(99)],
    "cur": [b"\0\0\2\0\1\0" + bytes(99)],
    "jxl": [b"\xff\x0a" + bytes(99), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99)],
    "jp2": [b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99)],
    "j2k": [b"\xff\x4f\xff\x51" + bytes(99)],
    "avif": [box(b"avif", b"mif1"), box(b"avis"), box(b"mif1", b"miaf", b"avif")],
    "heic": [box(b"heic", b"mif1"), box(b"heix"), box(b"mif1", b"heic")],
    "heif": [box(b"mif1", b"miaf"), box(b"msf1")],
    "mp4": [box(b"isom", b"mp42"), box(b"mp42")],
    "mov": [box(b"qt  ")],
    "webm": [b"\x1a\x45\xdf\xa3" + bytes(99)],
    "avi": [b"RIFF\x10\0\0\0AVI LIST" + bytes(99)],
    "pdf": [b"%PDF-1.7\n" + bytes(99)],
    "eps": [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6" + bytes(99)],
    "exr": [b"\x76\x2f\x31\x01\2\0\0\0" + bytes(99)],
    "qoi": [b"qoif\0\0\0\x09" + bytes(99)],
    "dds": [b"DDS \x7c\0\0\0" + bytes(140)],
    "bmp": [b"BM" + bytes(12) + bytes([size]) + bytes(99) for size in (12, 40, 108, 124)],
    "pcx": [b"\x0a\5\1\x08" + bytes(200)],
    "svg": [
        *(SVG, DECLARED + SVG, b"\xef\xbb\xbf" + SVG, b"\n\t " + SVG, DECLARED + DOCTYPE + SVG),
        *(b"<!-- drawn by hand -->\n" + SVG, b"\xff\xfe" + SVG.decode().encode("utf-16-le")),
        *(b"\xfe\xff" + SVG.decode().encode("utf-16-be"), gzip.compress(DECLARED + SVG, mtime=0)),
        SVG.replace(b"<svg", b"<svg:svg"),
    ],
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_named(name: str) -> None:
    for data in FORMATS[name]:
        found = refusal(data)
        assert found.reason == SampleReason.FORMAT_NOT_ALLOWED, data[:20]
        assert name in found.detail
        assert "is not read; convert it to JPEG, PNG, WebP or GIF" in found.detail


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO", "JPEG2000", "AVIF", "PCX", "DDS", "PDF"])
def test_what_pillow_writes_is_named(noise: Any, encode: Any, kind: str) -> None:
    name = {"JPEG2000": "jpeg-2000"}.get(kind, kind.lower())
    assert (foreign_format(encode(noise(), kind)) or "").startswith(name)


PAGES = [
    b"<!DOCTYPE html><html></html>",
    b"<!doctype HTML>\n<p>404",
    b"\xef\xbb\xbf\r\n<html><head>",
    b"<!-- cache --><!DOCTYPE html PUBLIC '-//W3C//DTD XHTML 1.0//EN' 'x.dtd'><html>",
    b'<?xml version="1.0"?><!DOCTYPE html><html xmlns="x">',
    b"<HEAD><TITLE>Access denied</TITLE>",
    b"<script>location='/login'</script>",
    b"\xff\xfe" + "<html>é".encode("utf-16-le"),
    gzip.compress(b"<!doctype html><html>" + bytes(100_000), mtime=0),
]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_no_picture(page: bytes) -> None:
    found = refusal(page)
    assert found.reason == SampleReason.IMAGE_UNDECODABLE
    assert "HTML page" in found.detail
    assert "failed download" in found.detail


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"error": "not found"}, {"code": 403, "nested": [{"a": None}]}],
)
def test_an_answer_is_no_picture(answer: Any) -> None:
    for data in (json.dumps(answer).encode(), json.dumps(answer, indent=1).encode("utf-8-sig")):
        found = refusal(data)
        assert found.reason == SampleReason.IMAGE_UNDECODABLE
        assert "JSON" in found.detail


def test_a_document_is_no_picture() -> None:
    found = refusal(DECLARED + b"<Error><Code>AccessDenied</Code></Error>")
    assert found.reason == SampleReason.IMAGE_UNDECODABLE
    assert "XML" in found.detail


def test_a_drawing_with_a_script_is_no_picture_of_any_format() -> None:
    found = refusal(DECLARED + SVG.replace(b"<circle", b"<Script>x()</Script><circle"))
    assert found.reason == SampleReason.IMAGE_UNDECODABLE
    assert "SVG" in found.detail


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\0", b"BMW is no bitmap, and this is text", b"[not json", b"{" * 5000),
        *(b"<", b"< svg", b"<!--" * 1000, b"<?" * 2000, b"\x1f\x8b" + bytes(99), b"\xff\xfe\xd8"),
        *(b"plain words", b"\x0a\x09\1\x08" + bytes(200), b"a<svg>", bytes(500)),
        b"<!doctype svg [" + b"] " * 2000,
    ],
)
def test_what_cannot_be_told(data: bytes) -> None:
    assert foreign_format(data) is None
    assert other_content(data) is None
