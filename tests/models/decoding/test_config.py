"""Settings of decoding, which load no torch."""

import pytest
from pydantic import ValidationError

from models.decoding.config import Decoding


def test_a_decoding_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValidationError, match="min_tokens 9 is more than max_tokens 3"):
        Decoding(min_tokens=9, max_tokens=3)
    with pytest.raises(ValidationError, match="top_q"):
        Decoding.model_validate({"top_q": 0.9})
