"""Every config of a verb: it does not change, and a key that it does not know is an error."""

import pytest
from pydantic import Field, ValidationError

from pipeline.config import Config


class _Pace(Config):
    batch_size: int = Field(32, ge=1)


def test_a_config_does_not_change_and_knows_its_keys() -> None:
    pace = _Pace(batch_size=2)
    with pytest.raises(ValidationError, match="frozen"):
        pace.batch_size = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="batchsize"):
        _Pace.model_validate({"batchsize": 3})
    assert pace == _Pace.model_validate({"batch_size": 2})
