"""A source is named in one way; what lies elsewhere is the same sample all the same."""

import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from shards.training.annotation import SourceText
from shards.training.source import PictureLocation, SourceConfig, SourceSample


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"run": "a", "shards": ("b",)},
        {"shards": ("b",), "view": "v"},
        {"shards": ("b",), "read": "clean"},
        {"run": "a", "root": "b"},
        {"run": "a", "repeat": 0},
        {"run": "a", "repeat": float("inf")},
        {"run": "a", "veiw": "v"},
    ],
)
def test_configs_that_are_refused(fields: Any) -> None:
    with pytest.raises(ValidationError):
        SourceConfig(**fields)


def test_a_sample_is_the_same_wherever_it_lies() -> None:
    texts = (SourceText("a ring", "web"),)
    here = SourceSample("s/k", b"image", texts, location=PictureLocation("a.tar", 512, 5))
    there = SourceSample("s/k", b"image", texts, location=PictureLocation("b.tar", 1024, 5))
    assert here == there
    assert here != SourceSample("s/k", b"other", texts)


def test_a_config_crosses_processes() -> None:
    config = SourceConfig(shards=("a.tar",), repeat=0.5)
    assert pickle.loads(pickle.dumps(config)) == config
