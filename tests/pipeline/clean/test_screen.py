"""Screening: rules between reasons, and hostile texts and sidecars that do no harm."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.clean.screen import ScreenConfig, clean_text, read_meta, screen
from shards.inputs.reader import RawSample
from shards.reasons import SampleReason, TextReason
from shards.schema import SAMPLES, arrow_rows

CONFIG = ScreenConfig()
REJECT = ScreenConfig(on_bad_text="reject")


def sample(
    image: bytes | None, text: bytes | None = b"a cat", meta: bytes | None = None
) -> RawSample:
    return RawSample(0, "k", image, "png", text, meta, None, None, 0)


# --- Rules between the reasons. ---


def test_a_fault_of_the_image_stands_before_one_of_the_text() -> None:
    for config in (CONFIG, REJECT):
        found = screen(sample(b"no picture", None), config)
        assert found.facts["reason"] == SampleReason.IMAGE_UNDECODABLE
        assert found.facts["text_reason"] == TextReason.MISSING


def test_of_members_that_were_not_read_nothing_is_said() -> None:
    raw = RawSample(3, "k", None, None, None, None, "duplicate_key", "why", 0)
    assert screen(raw, CONFIG).facts == {
        "index": 3,
        "key": "k",
        "status": "rejected",
        "reason": "duplicate_key",
        "detail": "why",
        "notes": [],
    }


def test_facts_of_a_good_sample(noise: Any, encode: Any) -> None:
    data = encode(noise(70, 50), "PNG")
    meta = b'{"url": "https://example.org/a.png", "n": 1}'
    found = screen(sample(data, "  Caf\u0065\u0301\n au  lait\t".encode(), meta), CONFIG)
    assert found.ok
    assert found.original == data
    facts = found.facts
    assert (facts["width"], facts["height"], facts["format"]) == (70, 50, "png")
    hashes = (len(facts["sha256"] or ""), len(facts["phash"] or b""))
    assert (facts["bytes"], hashes) == (len(data), (64, 32))
    assert facts["web_text"] == "Caf\u00e9 au lait"
    assert facts["url"] == "https://example.org/a.png"
    assert facts["meta"] == meta.decode()
    assert (facts["reason"], facts["text_reason"], facts["notes"]) == (None, None, [])


def test_limits_come_from_the_recipe(noise: Any, encode: Any) -> None:
    data = encode(noise(64, 48), "PNG")
    for setting, reason in (
        ({"min_side": 49}, SampleReason.IMAGE_TOO_SMALL),
        ({"max_pixels": 64 * 48 - 1}, SampleReason.IMAGE_TOO_LARGE),
        ({"max_aspect": 1.3}, SampleReason.IMAGE_ASPECT),
    ):
        assert screen(sample(data), ScreenConfig(**setting)).facts["reason"] == reason
    with pytest.raises(ValidationError, match="max_pixels"):
        ScreenConfig(max_pixels=10**9)


# --- Texts. ---


@pytest.mark.parametrize(
    ("data", "text", "notes"),
    [
        (b"a cat", "a cat", []),
        (b"\xef\xbb\xbfa cat", "a cat", ["bom_stripped"]),
        (b"a\r\ncat\n\non a\tmat ", "a cat on a mat", []),
        (b"\x1b[31mred\x1b[0m\x07 cat\x00", "[31mred [0m cat", ["text_cleaned"]),
        ("a\u0085cat\u2028sat".encode(), "a cat sat", []),
        (
            "\u202eevil\u202c \u2066x\u2069 a\u200eb \u061cz".encode(),
            "evil x ab z",
            ["text_cleaned"],
        ),
        ("👩\u200d👩\u200d👧 family".encode(), "👩\u200d👩\u200d👧 family", []),  # joiners stay
        ("e\u0301".encode(), "\u00e9", []),
    ],
)
def test_text_is_one_clean_line(data: bytes, text: str, notes: list[str]) -> None:
    found = clean_text(data, 1000)
    assert (found.text, found.reason, found.notes) == (text, None, notes)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, TextReason.MISSING),
        (b"", TextReason.EMPTY),
        (b" \r\n\t ", TextReason.EMPTY),
        (b"\xef\xbb\xbf", TextReason.EMPTY),
        ("\u200e\u202e\x07 ".encode(), TextReason.EMPTY),
        ("café".encode("latin-1"), TextReason.NOT_UTF8),
        ("a cat".encode("utf-16"), TextReason.NOT_UTF8),
        ("a cat".encode("utf-16-le"), TextReason.NOT_UTF8),  # each byte of it is UTF-8 too
        ("a cat".encode("utf-16-be"), TextReason.NOT_UTF8),
        ("a cat".encode("utf-32-le"), TextReason.NOT_UTF8),
        (b"\xed\xa0\x80", TextReason.NOT_UTF8),  # a lone surrogate
        (b"x" * 1000, None),
        (b"x" * 1001, TextReason.TOO_LONG),
        (b" " * 1001, TextReason.TOO_LONG),
    ],
)
def test_texts_that_cannot_be_used(data: bytes | None, reason: TextReason | None) -> None:
    found = clean_text(data, 1000)
    assert found.reason == reason
    assert (found.text is None) == (reason is not None)


@given(
    st.binary(max_size=80) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_text_comes_out_harmless(data: bytes) -> None:
    web = clean_text(data, 1000)
    assert (web.text is None) == (web.reason is not None)
    if web.text is not None:
        assert web.text == web.text.strip() != ""
        assert web.text.encode()  # no lone surrogates
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in web.text)
        assert not set(web.text) & set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2069")
        assert clean_text(web.text.encode(), 1000).text == web.text


# --- Sidecars. ---


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (b"", "json_unreadable"),
        (b'{"url": "x"', "json_unreadable"),
        (b"[1]", "json_unreadable"),
        (b"null", "json_unreadable"),
        (b'{"a": NaN}', "json_unreadable"),
        (b'{"a": -Infinity}', "json_unreadable"),
        (b'{"a": "\xff"}', "json_unreadable"),
        (b'{"a": ' + b"9" * 5000 + b"}", "json_unreadable"),
        (b'{"a":' + b"[" * 32_000 + b"]" * 32_000 + b"}", "json_unreadable"),
        (b'{"a":' * 12_000 + b"1" + b"}" * 12_000, "json_too_large"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "json_too_large"),
        (b'{"a": "' + b"x" * 65_536 + b'"}', "json_too_large"),
        (json.dumps({"a": 1}).encode("utf-16"), "json_unreadable"),
    ],
)
def test_hostile_sidecars_are_dropped_and_noted(data: bytes, note: str) -> None:
    assert read_meta(data) == (None, None, [note])


def test_a_sidecar_of_just_the_limit() -> None:
    data = b'{"a": "' + b"x" * (65_536 - 9) + b'"}'
    assert len(data) == 65_536
    assert read_meta(data) == (data.decode(), None, [])


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ('"https://a.b/ü?x=1"', "https://a.b/ü?x=1"),
        (r'"a\ud800b"', "a?b"),
        (r'"a\u001b[31m\u0000\u202eb"', "a?[31m??b"),
        ("3", None),
        ("null", None),
        ('["x"]', None),
    ],
)
def test_the_url(value: str, url: str | None) -> None:
    data = f'{{"url": {value}}}'.encode()
    assert read_meta(data) == (data.decode(), url, [])


def test_a_bad_sidecar_costs_no_sample(noise: Any, encode: Any) -> None:
    found = screen(sample(encode(noise(), "PNG"), b"\xef\xbb\xbfa cat", b"{"), CONFIG)
    assert found.ok
    assert found.facts["notes"] == ["bom_stripped", "json_unreadable"]


# --- Anything at all. ---


def _hostile(count: int) -> Iterator[RawSample]:
    random_ = random.Random(5)
    heads = [
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\x20\0\0\0WEBPVP8 ",
        b"BM",
    ]
    for _ in range(count):
        parts = [random_.choice(heads) + random_.randbytes(random_.randrange(90)) for _ in range(3)]
        yield sample(*[None if random_.random() < 0.1 else part for part in parts])


def test_any_bytes_make_a_row() -> None:
    rows = [{**screen(raw, CONFIG).facts, "shard": "s"} for raw in _hostile(500)]
    table = arrow_rows(rows, SAMPLES)
    assert set(table["reason"].to_pylist()) <= {reason.value for reason in SampleReason}
