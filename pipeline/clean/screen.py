"""Screen one raw sample: is there a picture to caption, and a web text to score?

The result is the row of the samples table, complete for rejected samples too, and the picture.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import AfterValidator, Field, model_validator

from pipeline.clean.lists import BlockList
from pipeline.clean.text.language import CODES, UNKNOWN, detect_language
from pipeline.clean.text.web_text import WebText, read_web_text
from pipeline.config import Config
from pipeline.media.decode import Decoded, DecodeLimits, DecodeRefusal, decode, difference_hash
from shards.inputs.reader import RawSample
from shards.inputs.sidecar import read_sidecar
from shards.reasons import SampleReason, TextReason
from shards.schema import SampleRow

Decode = Callable[[bytes, DecodeLimits], Decoded | DecodeRefusal]
CountTokens = Callable[[str], int]

# Above this Pillow refuses to open a picture, whatever we allow.
PILLOW_MAX_PIXELS = 178_956_970
NOTHING = BlockList()


def _known(code: str) -> str:
    if code not in CODES:
        raise ValueError(
            f"{code!r} is no language that is told apart; expected an ISO 639 code such as en, de "
            f"or zh, of: {', '.join(sorted(CODES))}"
        )
    return code


class LanguagesConfig(Config):
    """Which languages a web text may have; one whose language is not clear may stay."""

    keep: tuple[Annotated[str, AfterValidator(_known)], ...] = Field(min_length=1)
    others: Literal["caption", "reject"] = "caption"

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, written: Any) -> Any:  # noqa: ANN401 - whatever a recipe holds
        """Take `[en, de]`, or `en`, for what it means."""
        if isinstance(written, str):
            return {"keep": (written,)}
        return {"keep": tuple(written)} if isinstance(written, list | tuple) else written

    def keeps(self, language: str) -> bool:
        """Whether a text of this language goes to the filter."""
        return language in (UNKNOWN, *self.keep)


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
    block_hashes: str | None = Field(
        default=None, description="list of pictures that must never show"
    )
    languages: LanguagesConfig | None = Field(
        default=None,
        exclude_if=lambda languages: languages is None,  # so that older runs keep their fingerprint
        description="of web texts, those that the filter reads",
    )


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


def screen(
    raw: RawSample,
    config: ScreenConfig,
    decode: Decode = decode,
    count_tokens: CountTokens | None = None,
    wanted_side: int | None = None,
    blocked: BlockList = NOTHING,
) -> ScreenedSample:
    """Decode and check one sample; the first fault in the order of the reason codes decides.

    `decode` may be a guard's, which works in a child process; `count_tokens` says how many tokens
    of a text the scorer reads; `wanted_side`, how large the picture is wanted at most. Of a picture
    that is blocked nothing is told but its hash, nor of what stands beside it.
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
    hashed: SampleRow = {}
    if raw.image is not None:
        hashed = {"bytes": len(raw.image), "sha256": hashlib.sha256(raw.image).hexdigest()}
        if hashed["sha256"] in blocked.sha256:
            return ScreenedSample(facts | hashed | {"reason": SampleReason.IMAGE_BLOCKED})
    web = _web_text(raw.text, config, count_tokens)
    sidecar = read_sidecar(raw.meta)
    bare = facts | hashed
    facts = bare | {"web_text": web.text, "text_reason": web.reason, "language": web.language}
    facts |= {"meta": sidecar.meta, "url": sidecar.url}
    facts["notes"] = notes = [*web.notes, *sidecar.notes]
    if raw.image is None:
        return ScreenedSample(facts | {"reason": SampleReason.IMAGE_MISSING})
    limits = DecodeLimits(config.min_side, config.max_pixels, config.max_aspect, wanted_side)
    decoded = decode(raw.image, limits)
    if isinstance(decoded, DecodeRefusal):
        return ScreenedSample(facts | {"reason": decoded.reason, "detail": decoded.detail})
    facts |= _image_facts(decoded, notes)
    if blocked.looks_like_any(facts["phash"] or b""):
        return ScreenedSample(bare | {"reason": SampleReason.IMAGE_BLOCKED})
    if web.reason is not None and _on_bad_text(web.reason, config) == "reject":
        return ScreenedSample(facts | {"reason": web.reason})
    return ScreenedSample(facts | {"status": "ok"}, decoded.image, raw.image)


def _web_text(
    data: bytes | None, config: ScreenConfig, count_tokens: CountTokens | None
) -> WebText:
    """Read the web text, and its language.

    One without a token (`...`) would be scored as if nothing stood there.
    """
    web = read_web_text(data, config.max_text_bytes)
    if web.text is not None and count_tokens is not None and count_tokens(web.text) == 0:
        return WebText(reason=TextReason.EMPTY, notes=web.notes)
    if web.text is not None:
        web.language = detect_language(web.text)
        if config.languages is not None and not config.languages.keeps(web.language):
            web.reason = TextReason.LANGUAGE
    return web


def _on_bad_text(reason: TextReason, config: ScreenConfig) -> Literal["caption", "reject"]:
    if reason == TextReason.LANGUAGE and config.languages is not None:
        return config.languages.others
    return config.on_bad_text


def _image_facts(decoded: Decoded, notes: list[str]) -> SampleRow:
    return {
        "width": decoded.size[0],
        "height": decoded.size[1],
        "format": decoded.format,
        "phash": difference_hash(decoded.image),
        "notes": [*decoded.notes, *notes],
    }
