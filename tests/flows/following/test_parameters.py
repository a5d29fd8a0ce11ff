"""What a command says it was asked to do, for people elsewhere to read."""

from pathlib import Path

import pytest

from flows.following.parameters import MOST_SHOWN, place, shortened


def test_a_place_can_be_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert place("runs/first") == str(tmp_path / "runs/first")
    assert place("~/runs") == "/home/somebody/runs"
    assert place("/data/runs") == "/data/runs"
    assert place("s3://bucket/run") == "s3://bucket/run"


def test_a_long_list_is_cut_and_says_so() -> None:
    items = [f"{number}.tar" for number in range(2000)]
    assert shortened(items[:MOST_SHOWN]) == items[:MOST_SHOWN]
    assert shortened(items) == [*items[:MOST_SHOWN], "and 1,900 more"]
