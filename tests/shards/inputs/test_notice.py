"""What is said once."""

import pytest

from shards.inputs.notice import tell_once


def test_a_thing_is_told_once_and_another_too(caplog: pytest.LogCaptureFixture) -> None:
    for message in ("tests: 100 % odd", "tests: 100 % odd", "tests: other"):
        tell_once(message)
    assert caplog.messages == ["tests: 100 % odd", "tests: other"]
