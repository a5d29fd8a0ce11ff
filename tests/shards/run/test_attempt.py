"""Attempts leave records that outlive their process, and say how each one ended."""

import json
from typing import Any

import pytest

from shards.run.attempt import (
    Ending,
    end_attempt,
    end_attempts_of,
    quarantine,
    read_attempts,
    read_quarantined,
    start_attempt,
)
from tests.shards.conftest import MakeRun


def test_each_attempt_is_recorded(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url, committed=False)
    shard = run.shards[0]
    assert read_attempts(run, shard) == []
    ids = [start_attempt(run, shard), start_attempt(run, shard, safe=True, worker="w")]
    found = read_attempts(run, shard)
    assert [one.attempt for one in found] == ids
    assert [(one.safe, one.worker, one.lost) for one in found] == [
        (False, None, True),
        (True, "w", True),
    ]
    assert read_attempts(run, run.shards[1]) == []


@pytest.mark.parametrize("ending", list(Ending))
def test_an_ending_is_recorded_once_for_its_attempt(
    any_url: str, make_run: MakeRun, ending: Ending
) -> None:
    run = make_run(any_url, committed=False)
    shard = run.shards[0]
    mine, other = start_attempt(run, shard), start_attempt(run, shard)
    end_attempt(run, shard, mine, ending, "why")
    found = {one.attempt: one for one in read_attempts(run, shard)}
    assert (found[mine].ending, found[mine].detail) == (ending, "why")
    assert found[mine].lost is (ending is Ending.DIED)
    assert found[other].ending is None


def test_a_worker_ends_its_own_attempts_only(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url, committed=False)
    shard = run.shards[0]
    ended = start_attempt(run, shard, worker="dead")
    end_attempt(run, shard, ended, Ending.FAILED)
    open_, others = start_attempt(run, shard, worker="dead"), start_attempt(run, shard, worker="b")
    end_attempts_of(run, shard, "dead", Ending.DIED, "killed")
    found = {one.attempt: one.ending for one in read_attempts(run, shard)}
    assert found == {ended: Ending.FAILED, open_: Ending.DIED, others: None}


def test_a_torn_record_is_left_out(any_url: str, make_run: MakeRun, caplog: Any) -> None:
    run = make_run(any_url, committed=False)
    shard, attempt = run.shards[0], start_attempt(run, run.shards[0])
    run.store.put(f"attempts/{shard}/ffff.json", b'{"shard": ')
    assert [one.attempt for one in read_attempts(run, shard)] == [attempt]
    assert "ffff.json" in caplog.text


def test_a_shard_is_put_aside_once(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url, committed=False)
    shard = run.shards[0]
    assert read_quarantined(run) == {}
    for _ in range(2):
        end_attempt(run, shard, start_attempt(run, shard, safe=True), Ending.DIED, "SIGKILL")
    deaths = read_attempts(run, shard)
    aside = quarantine(run, shard, deaths)
    again = quarantine(run, shard, deaths)
    assert "SIGKILL" in aside.why
    assert read_quarantined(run)[shard] == aside != again
    record = json.loads(run.store.read(f"quarantine/{shard}.json"))
    assert record["attempts"] == [one.attempt for one in deaths]


def test_a_torn_quarantine_counts_as_none(any_url: str, make_run: MakeRun, caplog: Any) -> None:
    run = make_run(any_url, committed=False)
    run.store.put(f"quarantine/{run.shards[0]}.json", b'{"shard": ')
    assert read_quarantined(run) == {}
    assert "quarantine" in caplog.text
