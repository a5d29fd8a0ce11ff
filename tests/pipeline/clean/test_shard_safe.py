"""Attempts that are lost lead to safe mode, where a picture that kills costs itself alone."""

import time
from pathlib import Path
from typing import Any

import pytest

import pipeline.clean.prepare
from pipeline.clean.line.attempt import AttemptLost
from pipeline.clean.prepare import ExecutionConfig
from pipeline.media.decode import decode
from shards.run.attempt import (
    SAFE_FROM,
    Ending,
    Quarantine,
    end_attempt,
    read_attempts,
    read_quarantined,
    start_attempt,
)
from shards.run.commit import Commit
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.run.verify.run import verify_run
from shards.statistics import run_statistics
from tests.support.bench import Bench

POISON = Path(__file__).parents[2] / "support" / "poison"


def lose(run: Run, times: int, safe: bool = False, ending: Ending | None = None) -> None:
    """Leave attempts behind as killed processes do, or as those who saw it note them."""
    for _ in range(times):
        attempt = start_attempt(run, run.shards[0], safe)
        if ending is not None:
            end_attempt(run, run.shards[0], attempt, ending, "killed by SIGKILL")


@pytest.fixture
def poisoned(
    noise: Any, encode: Any, tar_of: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Make a shard of 9 samples, three of them deadly to the codec of this test's children."""
    monkeypatch.setenv("PYTHONPATH", str(POISON))
    faults = {2: b"poison: segfault", 4: b"poison: hang", 7: b"poison: eat"}
    members = []
    for n in range(9):
        picture = encode(noise(60 + n, 48, seed=n), "JPEG", comment=faults.get(n, b""))
        members += [(f"k{n}.jpg", picture), (f"k{n}.txt", f"{n} grey cats".encode())]
    return bench.put("00000", tar_of(members))


@pytest.mark.slow
def test_each_deadly_picture_costs_itself(bench: Bench, poisoned: Path) -> None:
    whole = bench.clean(poisoned)  # this process has a codec without faults
    run, config = bench.run(poisoned)
    lose(run, SAFE_FROM)
    cleaner = bench.cleaner(run, config, pace=ExecutionConfig(stall_timeout_s=25))
    done = cleaner.clean(run.inputs[0], bench.ignore)
    assert isinstance(done, Commit)
    assert done.environment["safe_mode"] is True
    assert verify_run(run).problems == ()
    rows, expected = bench.rows(run, "samples"), bench.rows(whole, "samples")
    assert {row["key"]: row["reason"] for row in rows if row["reason"]} == {
        "k2": "decoder_crash",
        "k4": "decode_timeout",
        "k7": "decoder_crash",
    }
    healthy = [n for n in range(9) if n not in (2, 4, 7)]
    assert [rows[n] for n in healthy] == [expected[n] for n in healthy]
    for ours, theirs in zip(
        bench.rows(run, "texts"),
        [row for row in bench.rows(whole, "texts") if row["index"] in healthy],
        strict=True,
    ):
        assert (ours["index"], ours["text"]) == (theirs["index"], theirs["text"])
        assert ours["itm"] == pytest.approx(theirs["itm"], abs=1e-5)


def test_a_shard_done_in_safe_mode_names_the_same_snapshot(bench: Bench, shard: Path) -> None:
    whole = bench.clean(shard)
    run, config = bench.run(shard)
    lose(run, SAFE_FROM)
    done = bench.cleaner(run, config).clean(run.inputs[0], bench.ignore)
    assert isinstance(done, Commit)
    assert done.environment["safe_mode"] is True
    ours, theirs = write_snapshot(run), write_snapshot(whole)
    assert ours.id == theirs.id
    one, two = ([row["itm"] for row in bench.rows(r, "texts")] for r in (run, whole))
    assert one == pytest.approx(two, abs=1e-5, nan_ok=True)
    assert verify_run(run).problems == ()


def test_safe_mode_begins_with_the_third_loss(bench: Bench, shard: Path) -> None:
    for losses in range(SAFE_FROM + 1):
        run, config = bench.run(shard)
        lose(run, losses)
        done = bench.cleaner(run, config).clean(run.inputs[0], bench.ignore)
        assert isinstance(done, Commit)
        assert done.environment["safe_mode"] is (losses >= SAFE_FROM)


@pytest.mark.parametrize("ending", [Ending.RELEASED, Ending.FAILED])
def test_an_attempt_that_ended_for_a_reason_is_not_lost(
    bench: Bench, shard: Path, ending: Ending
) -> None:
    run, config = bench.run(shard)
    lose(run, 5, ending=ending)
    done = bench.cleaner(run, config).clean(run.inputs[0], bench.ignore)
    assert isinstance(done, Commit)
    assert done.environment["safe_mode"] is False


def test_deaths_in_safe_mode_put_the_shard_aside(bench: Bench, shard: Path) -> None:
    run, config = bench.run(shard)
    lose(run, SAFE_FROM)
    lose(run, 2, safe=True, ending=Ending.DIED)
    aside = bench.cleaner(run, config).clean(run.inputs[0], bench.ignore)
    assert isinstance(aside, Quarantine)
    assert "SIGKILL" in aside.why
    assert read_quarantined(run) == {run.shards[0]: aside}
    shards = run_statistics(run)["shards"]
    assert (shards["quarantined"], shards["pending"], shards["committed"]) == (1, 0, 0)


def test_losses_that_nobody_saw_put_nothing_aside(bench: Bench, shard: Path) -> None:
    """A machine may be taken away again and again; that says nothing about the shard."""
    run, config = bench.run(shard)
    lose(run, SAFE_FROM)
    lose(run, 20, safe=True)
    assert isinstance(bench.cleaner(run, config).clean(run.inputs[0], bench.ignore), Commit)


def test_a_commit_outranks_a_quarantine(bench: Bench, shard: Path) -> None:
    run = bench.clean(shard)
    lose(run, 2, safe=True, ending=Ending.DIED)
    aside = read_attempts(run, run.shards[0])
    assert len([one for one in aside if one.ending is Ending.DIED]) == 2
    run.store.create(
        f"quarantine/{run.shards[0]}.json",
        Quarantine(shard=run.shards[0], why="", attempts=(), written="").model_dump_json().encode(),
    )
    assert run_statistics(run)["shards"]["quarantined"] == 0


def test_a_stalled_thread_is_left_and_the_attempt_lost(
    bench: Bench, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(data: bytes, limits: Any) -> Any:
        if data.startswith(b"RIFF"):
            time.sleep(30)
        return decode(data, limits)

    monkeypatch.setattr(pipeline.clean.prepare, "decode", stuck)
    run, config = bench.run(shard)
    cleaner = bench.cleaner(run, config, pace=ExecutionConfig(stall_timeout_s=1))
    began = time.monotonic()
    with pytest.raises(AttemptLost, match=r"'k02'.* 1 s"):
        cleaner.clean(run.inputs[0], bench.ignore)
    assert time.monotonic() - began < 10
    assert [one.ending for one in read_attempts(run, run.shards[0])] == [Ending.DIED]
    assert run.store.list("data") == []


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (KeyboardInterrupt, Ending.RELEASED),
        (SystemExit, Ending.RELEASED),
        (ValueError, Ending.FAILED),
        (MemoryError, Ending.DIED),
    ],
)
def test_an_error_stands_in_the_attempt(
    bench: Bench, shard: Path, error: type[BaseException], ending: Ending
) -> None:
    def report(_: int, __: int) -> None:
        raise error("so it is")

    run, config = bench.run(shard)
    with pytest.raises(AttemptLost if error is MemoryError else error):
        bench.cleaner(run, config).clean(run.inputs[0], report)
    (one,) = read_attempts(run, run.shards[0])
    assert (one.ending, one.detail) == (ending, "so it is")
