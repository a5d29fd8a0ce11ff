"""What is said once."""

import pytest

from shards.files.notice import tell_once


def test_a_thing_is_told_once_and_another_too(caplog: pytest.LogCaptureFixture) -> None:
    for message in ("tests: 100 % odd", "tests: 100 % odd", "tests: other"):
        tell_once(message)
    assert caplog.messages == ["tests: 100 % odd", "tests: other"]


def test_names_of_files_move_no_cursor(caplog: pytest.LogCaptureFixture) -> None:
    tell_once("a\x1b[2J\u202eb\udcff.tar\né")
    assert caplog.messages == ["a\\x1b[2J\\u202eb\\udcff.tar\\né"]
