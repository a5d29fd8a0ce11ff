"""Reason codes are a promise: each is written down for users, and none is changed or lost."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

from shards.reasons import DecisionReason, SampleReason, TextReason

PAGE = Path(__file__).resolve().parents[2] / "docs" / "run-folder.md"


@pytest.mark.parametrize("reasons", [SampleReason, TextReason, DecisionReason])
def test_every_code_stands_in_the_users_page(reasons: type[StrEnum]) -> None:
    assert set(reasons) <= set(re.findall(r"`([a-z0-9_]+)`", PAGE.read_text(encoding="utf-8")))


def test_a_code_says_one_thing() -> None:
    codes = [*SampleReason, *TextReason, *DecisionReason]
    assert len(codes) == len({str(code) for code in codes})
