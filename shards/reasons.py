"""Reason codes: why a sample is rejected, has no usable text, or a text is kept or not.

Each is stable across versions: add, do not change.
"""

import re
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
    LANGUAGE = "text_language"


class DecisionReason(StrEnum):
    """Why a text is kept or not.

    Those that lie in the text stand at every threshold; so does a run's own score that is not
    finite, unless another score decides.
    """

    KEPT = "kept"
    ITM_BELOW_THRESHOLD = "itm_below_threshold"
    SCORE_BELOW_THRESHOLD = "score_below_threshold"
    TEXT_TOO_SHORT = "text_too_short"
    REPETITIVE = "repetitive"
    BANNED_WORD = "banned_word"
    DUPLICATE_TEXT = "duplicate_text"
    CAPTION_EMPTY = "caption_empty"
    CAPTION_REFUSED = "caption_refused"
    SCORE_NOT_FINITE = "score_not_finite"
    NOT_PREFERRED = "not_preferred"


class DownloadReason(StrEnum):
    """Why a row of a list of addresses came to no picture."""

    NULL_VALUE = "null_value"
    BAD_URL = "bad_url"
    DUPLICATE_URL = "duplicate_url"
    BLOCKED_ADDRESS = "blocked_address"
    OPTED_OUT = "opted_out"
    HTTP_ERROR = "http_error"
    CONNECTION_ERROR = "connection_error"
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    TRUNCATED_BODY = "truncated_body"
    HASH_MISMATCH = "hash_mismatch"


_PASSING = frozenset(
    {
        DownloadReason.HTTP_ERROR,
        DownloadReason.CONNECTION_ERROR,
        DownloadReason.TIMEOUT,
        DownloadReason.TRUNCATED_BODY,
        DownloadReason.HASH_MISMATCH,
    }
)
_LASTING_STATUS = re.compile(r"(?!408|425|429)4\d\d\b")  # of HTTP: not there, or not for us


def is_worth_a_retry(reason: str | None, detail: str | None) -> bool:
    """Check whether a row that failed so may go better another time.

    The rest would be asked in vain, or against somebody's will.
    """
    if reason == DownloadReason.HTTP_ERROR and _LASTING_STATUS.match(detail or ""):
        return False
    return reason in _PASSING
