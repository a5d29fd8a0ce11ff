"""What follows a training: each new line of its numbers reaches display and trackers once."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.training import log
from flows.training.log import tail_metrics
from flows.training.recipe import PretrainRecipe
from flows.training.worker import TrainingJob


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    data = {"sources": [{"shards": ["none"]}]}
    recipe = PretrainRecipe.model_validate(
        {"output": str(tmp_path), "data": data, "trackers": ["tensorboard"]}
    )
    return TrainingJob(recipe, tmp_path, "fp32", (), tmp_path / "start", 9)


def line(step: int) -> dict[str, Any]:
    return {"step": step, "loss": step / 2}


def write(job: TrainingJob, text: str) -> None:
    with (job.folder / "metrics.jsonl").open("a") as file:
        file.write(text)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_new_lines_come_once_and_old_ones_are_passed_over(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "POLL_S", 0.01)
    write(job, json.dumps(line(3)) + "\n")
    shown: list[Any] = []
    with tail_metrics(job, shown.append):
        assert shown == [{"step": 3}]  # where it goes on from
        first, second = (json.dumps(line(step)) + "\n" for step in (4, 5))
        write(job, first + second[:7])
        wait_for(lambda: len(shown) == 2)
        write(job, second[7:])
        wait_for(lambda: len(shown) == 3)
    assert shown[1:] == [line(4), line(5)]


def test_what_is_written_at_last_is_shown_and_tracked(job: TrainingJob) -> None:
    shown: list[Any] = []
    with pytest.raises(KeyboardInterrupt), tail_metrics(job, shown.append):  # noqa: PT012
        write(job, json.dumps(line(1)) + "\n")
        raise KeyboardInterrupt
    assert shown == [{"step": 0}, line(1)]
    (events,) = (job.folder / "trackers" / job.folder.name).iterdir()
    assert b"loss" in events.read_bytes()
