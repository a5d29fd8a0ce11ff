"""Reason codes: why a sample is rejected, has no usable text, or a text is kept or not.

Each is stable across versions: add, do not change.
"""

from enum import StrEnum


class SampleReason(StrEnum):
    """Why a sample was rejected; each is stable across versions."""

    UNSAFE_MEMBER = "unsafe_member"
    DUPLICATE_KEY = "duplicate_key"
    NOT_ADJACENT = "not_adjacent"
    SHARD_TRUNCATED = "shard_truncated"
    SHARD_CORRUPT = "shard_corrupt"
    IMAGE_MISSING = "image_missing"
    IMAGE_EMPTY = "image_empty"
    IMAGE_UNDECODABLE = "image_undecodable"
    IMAGE_TRUNCATED = "image_truncated"
    FORMAT_NOT_ALLOWED = "format_not_allowed"
    IMAGE_TOO_SMALL = "image_too_small"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_ASPECT = "image_aspect"
    IMAGE_BLANK = "image_blank"
    IMAGE_BLOCKED = "image_blocked"
    DECODE_TIMEOUT = "decode_timeout"
    DECODER_CRASH = "decoder_crash"
    DUPLICATE_IMAGE = "duplicate_image"
    SKIPPED = "skipped"


class TextReason(StrEnum):
    """Why a sample has no usable web text."""

    MISSING = "text_missing"
    EMPTY = "text_empty"
    NOT_UTF8 = "text_not_utf8"
    TOO_LONG = "text_too_long"


class DecisionReason(StrEnum):
    """Why a text is kept or not; all but the first two stand at every threshold."""

    KEPT = "kept"
    ITM_BELOW_THRESHOLD = "itm_below_threshold"
    TEXT_TOO_SHORT = "text_too_short"
    REPETITIVE = "repetitive"
    BANNED_WORD = "banned_word"
    DUPLICATE_TEXT = "duplicate_text"
    CAPTION_EMPTY = "caption_empty"
    SCORE_NOT_FINITE = "score_not_finite"
