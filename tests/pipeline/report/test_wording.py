"""Every code that a page can show has a meaning."""

from pipeline.report.wording import MEANING
from shards.reasons import DecisionReason, SampleReason, TextReason


def test_every_reason_code_has_a_meaning() -> None:
    codes = {*map(str, SampleReason), *map(str, TextReason), *map(str, DecisionReason)}
    assert codes <= MEANING.keys()
    assert all(MEANING.values())
