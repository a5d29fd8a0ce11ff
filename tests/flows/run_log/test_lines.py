"""Lines of a run for people elsewhere."""

import logging

import pytest

from flows.run_log.events import heard_by, tell
from flows.run_log.lines import Lines


def test_events_and_warnings_come_as_lines_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_TOKEN", "hush-hush-hush")
    heard: list[tuple[int, str]] = []
    with heard_by(Lines(lambda level, line: heard.append((level, line)))):
        tell("shard_done", "shard 7 is done", shard="7")
        logging.getLogger("shards.store").warning("refused: %s", "hush-hush-hush")
        logging.getLogger("shards.store").debug("nobody reads this")
        logging.getLogger("elsewhere").warning("not ours")
    tell("shard_done", "too late")
    assert heard == [(logging.INFO, "shard 7 is done"), (logging.WARNING, "refused: ***")]
