"""Screen one raw sample: is there a picture to caption, and a web text to score?

The result is the row of the samples table, complete for rejected samples too, and the picture.
"""

import hashlib
import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image
from pydantic import Field

from pipeline.config import Config
from pipeline.media.decode import Decoded, DecodeLimits, DecodeRefusal, decode, difference_hash
from shards.inputs.reader import RawSample
from shards.reasons import SampleReason, TextReason
from shards.schema import SampleRow

Decode = Callable[[bytes, DecodeLimits], Decoded | DecodeRefusal]

MAX_META_BYTES = 64 * 1024

# Marks that reorder the text around them: harmless in a model, treacherous on a terminal.
BIDI_CONTROLS = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}

# Above this Pillow refuses to open a picture, whatever we allow.
PILLOW_MAX_PIXELS = 178_956_970


class ScreenConfig(Config):
    """What a sample must be to reach the models."""

    min_side: int = Field(default=32, ge=1, description="pixels of the shorter side")
    max_pixels: int = Field(
        default=50_000_000,
        ge=1,
        le=PILLOW_MAX_PIXELS,
        description="width x height, from the header",
    )
    max_aspect: float = Field(default=10, ge=1, description="longer side / shorter side")
    max_text_bytes: int = Field(default=10_000, ge=1)
    on_bad_text: Literal["caption", "reject"] = "caption"


@dataclass(slots=True)
class ScreenedSample:
    """A sample after screening: its row of the samples table (but `shard`), and its picture."""

    facts: SampleRow
    image: Image.Image | None = None
    original: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether the models will see it."""
        return bool(self.facts["status"] == "ok")


@dataclass(slots=True)
class _WebText:
    text: str | None = None
    reason: TextReason | None = None
    notes: list[str] = field(default_factory=list)


def screen(raw: RawSample, config: ScreenConfig, decode: Decode = decode) -> ScreenedSample:
    """Decode and check one sample; the first fault in the order of the reason codes decides.

    `decode` may be a guard's, which works in a child process.
    """
    facts: SampleRow = {
        "index": raw.index,
        "key": raw.key or None,  # damage can hide it
        "status": "rejected",
        "reason": raw.reason,
        "detail": raw.detail,
        "notes": [],
    }
    if raw.reason is not None:  # its members were not read: nothing can be said about them
        return ScreenedSample(facts)
    web = clean_text(raw.text, config.max_text_bytes)
    meta, url, meta_notes = read_meta(raw.meta)
    facts |= {"web_text": web.text, "text_reason": web.reason, "meta": meta, "url": url}
    facts["notes"] = notes = [*web.notes, *meta_notes]
    if raw.image is None:
        return ScreenedSample(facts | {"reason": SampleReason.IMAGE_MISSING})
    facts |= {"bytes": len(raw.image), "sha256": hashlib.sha256(raw.image).hexdigest()}
    limits = DecodeLimits(config.min_side, config.max_pixels, config.max_aspect)
    decoded = decode(raw.image, limits)
    if isinstance(decoded, DecodeRefusal):
        return ScreenedSample(facts | {"reason": decoded.reason, "detail": decoded.detail})
    facts |= _image_facts(decoded, notes)
    if web.reason is not None and config.on_bad_text == "reject":
        return ScreenedSample(facts | {"reason": web.reason})
    return ScreenedSample(facts | {"status": "ok"}, decoded.image, raw.image)


def _image_facts(decoded: Decoded, notes: list[str]) -> SampleRow:
    return {
        "width": decoded.image.width,
        "height": decoded.image.height,
        "format": decoded.format,
        "phash": difference_hash(decoded.image),
        "notes": [*decoded.notes, *notes],
    }


def clean_text(data: bytes | None, max_bytes: int) -> _WebText:
    """Read a web text as UTF-8 on one line without control characters, or say why it is unusable.

    NUL bytes are the mark of UTF-16 that happens to decode.
    """
    if data is None:
        return _WebText(reason=TextReason.MISSING)
    if len(data) > max_bytes:
        return _WebText(reason=TextReason.TOO_LONG)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return _WebText(reason=TextReason.NOT_UTF8)
    if text.count("\0") * 4 > len(text):
        return _WebText(reason=TextReason.NOT_UTF8)
    notes = []
    if text.startswith("\ufeff"):
        text = text.removeprefix("\ufeff")
        notes.append("bom_stripped")
    printable = "".join(_visible(character) for character in text)
    if printable != text:
        notes.append("text_cleaned")
    line = " ".join(unicodedata.normalize("NFC", printable).split())
    if not line:
        return _WebText(reason=TextReason.EMPTY, notes=notes)
    return _WebText(line, notes=notes)


def _visible(character: str) -> str:
    if character.isspace():
        return character
    if ord(character) in BIDI_CONTROLS:
        return ""  # it has no width, so it parts no words
    return " " if unicodedata.category(character) == "Cc" else character


def read_meta(data: bytes | None) -> tuple[str | None, str | None, list[str]]:
    """Read the sidecar JSON as (its text, its `url`, notes); an unreadable one is noted, not fatal.

    A sidecar may be hostile: nested deep enough to exhaust the stack, or with numbers of thousands
    of digits, which Python refuses with a ValueError.
    """
    if data is None:
        return None, None, []
    if len(data) > MAX_META_BYTES:
        return None, None, ["json_too_large"]
    try:
        text = data.decode("utf-8")
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None, None, ["json_unreadable"]
    if not isinstance(parsed, dict):
        return None, None, ["json_unreadable"]
    return text, _url(parsed.get("url")), []


def _url(value: object) -> str | None:
    """Keep what can be printed: JSON escapes can spell control characters and lone surrogates."""
    if not isinstance(value, str):
        return None
    return "".join(character if character.isprintable() else "?" for character in value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
