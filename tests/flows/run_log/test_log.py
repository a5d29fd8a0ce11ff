"""The log of a run: each line is JSON, whatever is told, and holds no secret."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.run_log.events import tell
from flows.run_log.log import ENDED, MOST_LINE_BYTES, RunLog
from shards.run import log as log_file
from shards.run.log import FOLDER
from shards.store import Store
from tests.support.driving import wait_until

_log = logging.getLogger("pipeline.clean.shard")
HOSTILE = 'a"\\\n\r\x00\x1b[2J\x7f\x9b\u2028\u202e\ud800é'


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(Store(str(tmp_path)))


def raw(folder: Path) -> list[bytes]:
    (path,) = (folder / FOLDER).iterdir()
    return path.read_bytes().splitlines(keepends=True)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in raw(folder)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name != "capfilt.run"]


def test_events_and_warnings_are_lines_of_json(log: RunLog, tmp_path: Path) -> None:
    with log.recording():
        tell("shard_done", "shard 00000 is done", shard="00000", seconds=1.5)
        _log.warning("%s is torn", "a commit")
    event, warning = lines(tmp_path)
    assert event.keys() == {"at", "level", "event", "shard", "seconds"}
    assert (event["level"], event["event"], event["seconds"]) == ("info", "shard_done", 1.5)
    assert warning == {
        "at": warning["at"],
        "level": "warning",
        "message": "a commit is torn",
        "logger": "pipeline.clean.shard",
    }
    assert event["at"] <= warning["at"]
    assert len(event["at"]) == len("2026-11-28T20:38:47.815Z")
    assert event["at"].endswith("Z")


def test_nothing_is_made_before_the_run_is_there_and_nothing_is_forgotten(
    log: RunLog, tmp_path: Path
) -> None:
    with log.hearing():
        _log.warning("while preparing")
    assert list(tmp_path.iterdir()) == []
    with log.recording():
        tell("begun", "it begins")
    _log.warning("between")
    with log.recording():
        tell(ENDED, "it ends")
    told = [line.get("event") or line["message"] for line in lines(tmp_path)]
    assert told == ["while preparing", "begun", "ended"]


def test_no_text_breaks_a_line_or_reaches_a_terminal(
    log: RunLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = logging.getLogger("pipeline")
    monkeypatch.setattr(pipeline, "propagate", False)  # pytest cannot take half a character
    with log.recording():
        _log.warning("%s", HOSTILE)
        tell("shard_failed", "it fails", shard=HOSTILE, why={"a": [HOSTILE, float("nan"), {1}]})
        tell("odd", "", deep=[[[[[[[[1]]]]]]]], more=list(range(1000)), path=Path("/a"))
    for line in raw(tmp_path):
        assert set(line[:-1]) <= set(range(0x20, 0x7F))
    warning, failed, odd = lines(tmp_path)
    assert warning["message"] == failed["shard"] == failed["why"]["a"][0] == HOSTILE
    assert failed["why"]["a"][1] == "nan"
    assert (len(odd["more"]), odd["path"]) == (100, "/a")


def test_a_line_has_its_bounds(log: RunLog, tmp_path: Path) -> None:
    six: dict[str, Any] = {f"why{number}": "\x1b" * 1_900 for number in range(6)}
    ninety: dict[str, Any] = {f"why{number}": HOSTILE * 1_000 for number in range(90)}
    with log.recording():
        _log.warning("%s", "x" * 5_000_000)
        tell("shard_failed", "", shard="s", **six)
        tell("huge", "", **ninety)
    assert max(map(len, raw(tmp_path))) <= MOST_LINE_BYTES
    long, many, huge = lines(tmp_path)
    assert long["message"] == "x" * 2_000 + "…"
    assert many["shard"] == "s"
    assert many["why5"] == "\x1b" * 200 + "…"
    assert (huge["event"], huge["level"]) == ("huge", "info")
    assert huge["cut"] > MOST_LINE_BYTES


def test_credentials_stand_in_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_LOGIN", "vErY-s3cret")
    monkeypatch.setenv("OTHER_PASSWORD", "an0ther-one")
    with RunLog(Store(str(tmp_path)), ["STORE_LOGIN"]).recording():
        tell("begun", "", command=["capfilt", "--set=x=vErY-s3cret"], n={"a": "an0ther-one"})
        _log.warning("403 for %s", "https://me:vErY-s3cret@host/x?sig=abcdef")
    text = b"".join(raw(tmp_path)).decode()
    assert not [part for part in ("vErY", "s3cret", "an0ther", "abcdef", "me:") if part in text]
    assert lines(tmp_path)[1]["message"] == "403 for https://***@host/x?sig=***"


def test_a_record_that_cannot_be_written_out_is_counted(
    log: RunLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_log, "propagate", False)  # pytest's own handler would raise
    monkeypatch.setattr(_log, "handlers", [log])
    with log.recording():
        _log.warning("%d and %d", "no number")
        tell(ENDED, "it ends")
    ended, missing = lines(tmp_path)
    assert ended["event"] == "ended"
    assert missing["event"] == "incomplete"
    assert (missing["dropped"], missing["unwritten"], missing["unreadable"]) == (0, 0, 1)


def test_a_full_log_says_at_its_end_what_is_missing(
    log: RunLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "MOST_BYTES", 1_000)
    monkeypatch.setattr(log_file, "MOST_WITH_WARNINGS_BYTES", 1_500)
    with log.recording():
        for number in range(50):
            tell("shard_done", "", shard=f"{number:05}")
        _log.warning("still heard")
        tell(ENDED, "it ends")
    *done, warning, ended, missing = lines(tmp_path)
    assert {line["event"] for line in done} == {"shard_done"}
    assert 5 < len(done) < 15
    assert (warning["message"], ended["event"]) == ("still heard", "ended")
    assert missing["dropped"] == 50 - len(done)


def test_a_log_that_cannot_be_written_is_said_once_and_ends_nothing(
    log: RunLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FOLDER).write_text("a file in the folder's place")
    with log.recording():
        for number in range(3):
            tell("shard_done", "", shard=str(number))
    (message,) = warnings(caplog)
    assert message.startswith(f"{tmp_path}/{log.name_in_run} cannot be written: ")
    assert message.endswith(". The run goes on without its log")


class Down(Store):
    def put(self, name: str, data: bytes) -> None:
        raise PermissionError(f"403 for {name}: {len(data)} bytes")

    def survey(self, folder: str = "") -> Any:
        raise PermissionError(f"403 for {folder}")


def test_a_store_that_is_down_is_said_once_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = RunLog(Down("memory://down/run"))
    with log.recording():
        tell("begun", "")
        wait_until(lambda: bool(warnings(caplog)), 5)
        tell(ENDED, "")
    (message,) = warnings(caplog)
    assert f"{log.name_in_run} cannot be written: 403 for {log.name_in_run}: " in message


@pytest.fixture
def logs(tmp_path: Path) -> Callable[[], list[str]]:
    return lambda: sorted(path.name for path in (tmp_path / FOLDER).iterdir())


def test_each_command_has_a_file_of_its_own_and_old_ones_go(
    tmp_path: Path, logs: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "KEPT_FILES", 1)
    monkeypatch.setattr(log_file, "KEPT_S", 0)
    for number in range(3):
        with RunLog(Store(str(tmp_path))).recording():
            tell("begun", "", number=number)
    assert len(logs()) == 2  # the newest of those before, and this one
