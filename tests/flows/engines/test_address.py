"""Which Ray is joined, and where a submitted job may write."""

import pytest

from flows.engines.address import check_output, join_address
from shards.errors import UsageError


def test_the_recipe_decides_then_the_environment_then_this_machine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert join_address(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert join_address("head:6379") == "head:6379"
    assert caplog.text == ""
    assert join_address(None) == "10.0.0.1:6379"
    assert join_address(None) == "10.0.0.1:6379"
    assert caplog.messages == ["joining the Ray cluster at 10.0.0.1:6379 (RAY_ADDRESS)"]


def test_a_submitted_job_writes_nothing_into_its_copy_of_a_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_output("runs/first")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    check_output("/shared/runs/first")
    check_output("s3://bucket/runs/first")
    with pytest.raises(UsageError, match=r"runs/first is relative.*Give an absolute path"):
        check_output("runs/first")
