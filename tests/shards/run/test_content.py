"""The hash of content follows what was found and decided, and no score."""

from typing import Any

import pytest

from shards.run.content import SCORES, TEXT_CONTENT, ContentHash
from shards.schema import TEXTS

ROW = {"shard": "s", "index": 3, "text_no": 1, "origin": "synthetic", "text": "a dot", "itm": 0.5}
CLEAN: dict[str, Any] = {
    "key": "s/k",
    "ext": "jpg",
    "image_sha256": "1a",
    "record": {"key": "k", "texts": [{"text": "a dot", "itm": 0.5, "itc": 0.1}], "run": "r"},
    "text": "a dot",
}


def of_text(**change: Any) -> str:
    content = ContentHash()
    content.add_text(ROW | change)
    return content.hexdigest()


def of_clean(**change: Any) -> str:
    content = ContentHash()
    content.add_clean(**(CLEAN | change))
    return content.hexdigest()


def test_every_column_is_content_or_a_score() -> None:
    assert sorted([*TEXT_CONTENT, *SCORES]) == sorted(TEXTS.names)


@pytest.mark.parametrize("name", SCORES)
def test_scores_do_not_count(name: str) -> None:
    assert of_text(**{name: 0.25}) == of_text(**{name: float("nan")}) == of_text()
    texts = [CLEAN["record"]["texts"][0] | {name: 0.25}]
    assert of_clean(record=CLEAN["record"] | {"texts": texts}) == of_clean()


@pytest.mark.parametrize(
    "change", [{"text": "a dog"}, {"index": 4}, {"tokens": 3}, {"truncated": False}]
)
def test_all_else_of_a_text_counts(change: dict[str, Any]) -> None:
    assert of_text(**change) != of_text()
    assert of_text(author=None) == of_text(), "a column that is not given is null"


@pytest.mark.parametrize(
    "change",
    [
        *({"key": "s/l"}, {"ext": "png"}, {"image_sha256": "2b"}, {"text": "a dog"}),
        {"record": CLEAN["record"] | {"run": "other"}},
        {"record": CLEAN["record"] | {"texts": []}},
    ],
)
def test_all_else_of_a_sample_counts(change: dict[str, Any]) -> None:
    assert of_clean(**change) != of_clean()


def test_order_counts() -> None:
    one, two = ContentHash(), ContentHash()
    rows = [ROW, ROW | {"text_no": 2}]
    for content, order in ((one, rows), (two, rows[::-1])):
        for row in order:
            content.add_text(row)
    assert one.hexdigest() != two.hexdigest()
