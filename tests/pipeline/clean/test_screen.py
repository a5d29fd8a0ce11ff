"""Screening: rules between reasons, and hostile texts and sidecars that do no harm."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.clean.screen import ScreenConfig, screen
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
    assert (facts["reason"], facts["text_reason"]) == (None, None)
    assert facts["notes"] == ["text_cleaned"]


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


# --- Texts and sidecars. ---


def test_a_text_without_a_token_is_none(noise: Any, encode: Any) -> None:
    """The scorer would read nothing, and give the picture's own number to any such text."""
    data = encode(noise(), "PNG")
    raw = sample(data, b"\xe2\x80\x8b...")
    signs = screen(raw, CONFIG, count_tokens=lambda text: len(text.strip(".")))
    assert signs.ok
    assert (signs.facts["text_reason"], signs.facts["web_text"]) == (TextReason.EMPTY, None)
    assert signs.facts["notes"] == ["text_cleaned"]
    refused = screen(raw, REJECT, count_tokens=lambda _: 0)
    assert refused.facts["reason"] == TextReason.EMPTY
    assert screen(raw, CONFIG, count_tokens=lambda _: 1).facts["web_text"] == "..."


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


# --- Languages. ---

GERMAN = "Ein brauner Hund läuft bei Sonnenuntergang am Strand".encode()


@pytest.mark.parametrize(
    ("text", "language"),
    [(b"A brown dog runs along the beach", "en"), (GERMAN, "de"), (b"IMG_4711", "und")],
)
def test_the_language_of_the_web_text_is_told(
    noise: Any, encode: Any, text: bytes, language: str
) -> None:
    found = screen(sample(encode(noise(70, 50), "PNG"), text), CONFIG)
    assert (found.ok, found.facts["language"], found.facts["text_reason"]) == (True, language, None)


def test_a_text_in_another_language_is_kept_out_and_stays_on_record(
    noise: Any, encode: Any
) -> None:
    image = encode(noise(70, 50), "PNG")
    for others in ("caption", "reject"):
        for bad in ("caption", "reject"):
            config = ScreenConfig.model_validate(
                {"languages": {"keep": ["en"], "others": others}, "on_bad_text": bad}
            )
            found = screen(sample(image, GERMAN), config)
            assert found.ok == (others == "caption")
            assert found.facts["text_reason"] == TextReason.LANGUAGE
            assert found.facts["reason"] == (None if found.ok else TextReason.LANGUAGE)
            assert found.facts["web_text"] == GERMAN.decode()
            for text in (b"A brown dog runs along the beach", b"IMG_4711", b"Hund", b"7"):
                assert screen(sample(image, text), config).facts["text_reason"] is None


def test_languages_are_written_in_three_ways() -> None:
    short, listed, whole = (
        ScreenConfig.model_validate({"languages": written})
        for written in ("en", ["en"], {"keep": ["en"], "others": "caption"})
    )
    assert short == listed == whole
    assert "languages" not in CONFIG.model_dump(mode="json")  # as in runs that were made before
    for wrong in ("english", [], ["en", "und"], {"others": "caption"}):
        with pytest.raises(ValidationError, match="languages"):
            ScreenConfig.model_validate({"languages": wrong})
