"""Settings of a training, which load no torch."""

from typing import Any

import pytest
from pydantic import ValidationError

from models.training.config import AugmentConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": (0, 1)},
        {"crop": (0.8, 0.5)},
        {"crop": (0.5, 1.5)},
        {"flip": 1.5},
        {"operations": -1},
        {"magnitude": 11},
        {"hue": 0.1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AugmentConfig(**wrong)
