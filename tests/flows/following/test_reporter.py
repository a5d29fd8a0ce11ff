"""How a command tells Prefect what it does; tests/end_to_end/test_following.py has whole runs."""

import logging
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from flows.following.reporter import PrefectReporter, Unreported, is_server_set, reporting
from tests.support.driving import wait_until

CLOSED = "http://127.0.0.1:9/api"  # nobody listens there


def followers() -> list[psutil.Process]:
    mine = psutil.Process().children(recursive=True)
    return [process for process in mine if "flows.following.follower" in command(process)]


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie, too
        return []


def test_directly_nothing_is_started() -> None:
    with reporting("clean", direct=True) as report:
        assert isinstance(report, Unreported)
        assert followers() == []
        report.begin({"output": "/run"})
        with report.stage("prepare") as stage:
            stage.result = "made"
        report.progress(0.5, "half")
        assert not report.is_alive()


def test_the_death_of_who_reports_is_told_once_and_costs_no_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", CLOSED)
    with reporting("clean", direct=False) as report:
        assert isinstance(report, PrefectReporter)
        (follower,) = followers()
        report.begin({"output": "/run"})
        assert report.is_alive()
        os.kill(follower.pid, signal.SIGKILL)
        wait_until(lambda: not report.is_alive(), 10)
        wait_until(lambda: bool(caplog.records), 10)
        with report.stage("prepare"):
            report.progress(1.0, "all")
        began = time.monotonic()
    assert time.monotonic() - began < 2
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    why = "the process that reports to Prefect has ended; the work is done without it"
    assert record.getMessage() == why


def test_what_fails_before_the_flow_run_begins_leaves_at_once_and_says_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", CLOSED)
    began = time.monotonic()
    with pytest.raises(ValueError, match="no recipe"), reporting("clean", direct=False):
        raise ValueError("no recipe")
    assert time.monotonic() - began < 5
    wait_until(lambda: not followers(), 10)
    assert caplog.records == []


def test_with_nothing_to_do_the_end_waits_for_no_server_of_its_own(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with reporting("clean", direct=False) as report:
        report.begin({"input": ["x.tar"], "output": "/run"})
        with report.stage("prepare"):
            report.nothing_to_do()
        began = time.monotonic()
    assert time.monotonic() - began < 2
    wait_until(lambda: not followers(), 30)
    assert caplog.records == []


@pytest.mark.nightly
def test_trouble_from_before_the_flow_run_is_told_when_it_begins(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://ho\nst/api")
    with reporting("clean", direct=False) as report:
        wait_until(lambda: not report.is_alive(), 60)
        assert caplog.records == []
        report.begin({"output": "/run"})
        (record,) = caplog.records
    assert "non-printable" in record.getMessage()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("profiles", "environment", "expected"),
    [
        (None, {}, False),
        (None, {"PREFECT_API_URL": CLOSED}, True),
        ('active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://x/api"', {}, True),
        ('active = "b"\n[profiles.a]\nPREFECT_API_URL = "x"\n[profiles.b]', {}, False),
        (
            'active = "b"\n[profiles.a]\nPREFECT_API_URL = "x"\n[profiles.b]',
            {"PREFECT_PROFILE": "a"},
            True,
        ),
        ("this is no TOML", {}, False),
        ("active = 3", {}, False),
    ],
)
def test_a_server_that_prefect_is_told_of_is_seen_without_prefect(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    profiles: str | None,
    environment: dict[str, str],
    expected: bool,
) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"PREFECT_HOME": str(tmp_path)} | environment).items():
        monkeypatch.setenv(name, value)
    if profiles is not None:
        (tmp_path / "profiles.toml").write_text(profiles)
    assert is_server_set() == expected
