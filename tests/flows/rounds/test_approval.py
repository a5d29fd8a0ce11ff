"""A person's answer in the folder of a round."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.rounds.approval import APPROVAL, Answer, read_answer, write_answer
from shards.errors import UsageError


def test_an_answer_is_read_as_it_was_given(tmp_path: Path) -> None:
    assert read_answer(tmp_path, 1) is None
    no = Answer.now(False, "somebody", "too many “a photo of”")
    assert datetime.now(UTC) - datetime.fromisoformat(no.at) < timedelta(minutes=1)
    write_answer(tmp_path, 1, no)
    assert read_answer(tmp_path, 1) == no
    yes = Answer.now(True, "Prefect", "")
    write_answer(tmp_path, 1, yes)
    assert read_answer(tmp_path, 1) == yes
    assert read_answer(tmp_path, 2) is None
    assert json.loads((tmp_path / "round-1" / APPROVAL).read_text())["round"] == 1


def test_an_answer_without_a_reason_is_that_of_an_older_version(tmp_path: Path) -> None:
    (tmp_path / "round-1").mkdir()
    (tmp_path / "round-1" / APPROVAL).write_text('{"round": 1, "by": "me", "at": "today"}')
    assert read_answer(tmp_path, 1) == Answer(True, "me", "", "today")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"by": "me"}', "null"])
def test_what_is_no_answer_is_said_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "round-1").mkdir()
    (tmp_path / "round-1" / APPROVAL).write_text(text)
    with pytest.raises(UsageError, match=rf"round-1/{APPROVAL} cannot be read .*delete it"):
        read_answer(tmp_path, 1)
