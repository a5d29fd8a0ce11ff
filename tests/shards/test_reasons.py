"""Reason codes are a promise: each is written down for users, and none is changed or lost."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

from shards.reasons import (
    DecisionReason,
    DownloadReason,
    SampleReason,
    TextReason,
    is_worth_a_retry,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "run-folder.md"


@pytest.mark.parametrize("reasons", [SampleReason, TextReason, DecisionReason])
def test_every_code_stands_in_the_users_page(reasons: type[StrEnum]) -> None:
    assert set(reasons) <= set(re.findall(r"`([a-z0-9_]+)`", PAGE.read_text(encoding="utf-8")))


def test_a_code_says_one_thing() -> None:
    codes = [*SampleReason, *TextReason, *DecisionReason]
    assert len(codes) == len({str(code) for code in codes})


@pytest.mark.parametrize(
    ("reason", "detail", "expected"),
    [
        (DownloadReason.HTTP_ERROR, "404 Not Found", False),
        (DownloadReason.HTTP_ERROR, "410 Gone", False),
        (DownloadReason.HTTP_ERROR, "403 Forbidden", False),
        (DownloadReason.HTTP_ERROR, "429 Too Many Requests", True),
        (DownloadReason.HTTP_ERROR, "408 Request Timeout", True),
        (DownloadReason.HTTP_ERROR, "503 Service Unavailable", True),
        (DownloadReason.HTTP_ERROR, "4040 is no status", True),
        (DownloadReason.HTTP_ERROR, None, True),
        (DownloadReason.TIMEOUT, "404 s of silence", True),
        (DownloadReason.OPTED_OUT, None, False),
        (DownloadReason.BAD_URL, "404 Not Found", False),
        (None, None, False),
    ],
)
def test_what_will_be_the_same_the_next_time_is_not_asked_for_again(
    reason: str | None, detail: str | None, expected: bool
) -> None:
    assert is_worth_a_retry(reason, detail) is expected
