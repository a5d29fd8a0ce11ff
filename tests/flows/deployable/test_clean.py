"""The flow of a cleaning: its stages, what it refuses, and that it goes on."""

from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from flows.deployable.clean import clean
from tests.support.driving import Models, committed, wait_until

WHOLE = {"dtype": "fp32"}


def run(models: Models, web: Path, out: Path, **more: Any) -> Any:
    """Clean by the form."""
    parameters = {
        "input": [str(web)],
        "output": str(out),
        "captioner": str(models.captioner),
        "filter": str(models.filter),
        "engine": "local",
        "settings": WHOLE,
    }
    return clean(**parameters | more, return_state=True)


@pytest.mark.usefixtures("prefect")
def test_a_form_cleans_reports_and_is_taken_up(
    toy_models: Models, one_shard: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = run(toy_models, one_shard, out, threshold_web=0.0, threshold_synthetic=0.0, report=True)
    assert (done.name, done.message) == ("Completed", "6 of 6 samples kept")
    assert committed(out) == {"00000"}
    assert list(out.rglob("index.html")) != []
    again = run(toy_models, one_shard, out, threshold_web=0.0, threshold_synthetic=0.0)
    assert again.message == f"nothing was left to do: {done.message}"
    assert len(list((out / "attempts/00000").iterdir())) == 1
    other = run(toy_models, one_shard, out, threshold_web=1.0)
    assert other.name == "Failed"
    assert "judge.threshold.web" in other.message


def test_its_tasks_are_its_stages(
    prefect: SyncPrefectClient, toy_models: Models, one_shard: Path, tmp_path: Path
) -> None:
    run_id = run(toy_models, one_shard, tmp_path / "run").state_details.flow_run_id

    def names() -> set[str]:
        mine = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        tasks = prefect.read_task_runs(flow_run_filter=mine)
        return {task.name.rpartition("-")[0] for task in tasks}

    # a server hears of them as events, a moment later
    wait_until(lambda: names() == {"prepare", "clean the shards", "finish"}, 30)
