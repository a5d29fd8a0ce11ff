"""A plan's numbers as people read them, and how far a sample is."""

import pytest

from flows.cli.display.plan import SamplingProgress, duration, plan_as_json, print_plan
from flows.engines.engine import ShardDone
from flows.stages.estimate.plan import Plan
from flows.stages.estimate.problems import Problem
from shards.inputs.shard import InputShard
from shards.run.commit import Counts


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.2, "0 s"),
        (179, "179 s"),
        (180, "3.0 min"),
        (7_199, "120.0 min"),
        (7_200, "2.0 h"),
        (100_000, "27.8 h"),
        (1_000_000, "11.6 days"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_problem_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan((Problem("input", "no [bold]a\x1b[2J[/bold]"), Problem("shards", "few", True)))
    print_plan(plan, None)
    shown = capsys.readouterr().out
    assert shown == "problem: input: no [bold]a␛[2J[/bold]\nwarning: shards: few\n"
    assert plan_as_json(plan, 2.0) == {
        "ready": False,
        "problems": [
            {"subject": "input", "message": "no [bold]a\x1b[2J[/bold]", "warning": False},
            {"subject": "shards", "message": "few", "warning": True},
        ],
    }


def test_progress_is_by_pictures_or_by_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.cli.display.progress.LINE_EVERY_S", 0.0)
    progress = SamplingProgress(100, budget_s=None)
    progress.under_way(10, 1)
    progress.ended(ShardDone(InputShard("a", "a", 1), Counts(samples_in=50, kept=50), False))
    shown = capsys.readouterr().err
    assert "sampling: 50 samples" in shown
    assert "s left" in shown
    timed = SamplingProgress(1_000_000, budget_s=1e-9)
    timed.under_way(1, 1)
    assert ", 0 s left" in capsys.readouterr().err
