"""The flows on a real Prefect server: launched, refused, cancelled, approved, chained."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from tests.support.driving import wait_until
from tests.support.prefect_server import POOL, Prefect, prefect_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TINY = {"captioner": "tiny-captioner", "filter": "tiny-filter", "engine": "local"}


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server with all flows in a pool, and a worker."""
    home = tmp_path_factory.mktemp("prefect")
    quick = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3"}
    with prefect_server(home, **quick) as server:
        done = server.capfilt("deploy", "--pool", POOL)
        assert done.returncode == 0, done.stderr
        server.start_worker()
        yield server


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs in three shards."""
    folder = tmp_path_factory.mktemp("web")
    write_toy_world(folder, ToyWorldConfig(samples=12, samples_per_shard=4))
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs that take a minute."""
    folder = tmp_path_factory.mktemp("many")
    write_toy_world(folder, ToyWorldConfig(samples=3000, samples_per_shard=50))
    return folder


def commits(run: Path) -> list[Path]:
    return list(run.glob("commits/*.json"))


@pytest.mark.slow
def test_a_cleaning_is_launched_by_its_form(prefect: Prefect, web: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = prefect.launch(
        "clean/capfilt",
        input=[str(web)],
        output=str(out),
        threshold_web=0.25,
        settings={"caption.top_p": 0.8, "dtype": "fp32"},
        **TINY,
    )
    done = prefect.wait(run, "Completed")
    recipe = json.loads((out / "run.json").read_text())["identity"]
    assert recipe["judge"]["threshold"] == {"web": 0.25, "synthetic": 0.5}
    assert recipe["caption"]["top_p"] == 0.8
    stats = json.loads(prefect.capfilt("stats", out, "--json").stdout)
    assert done["name"] == f"clean {out}"
    assert done["state"]["message"] == f"{stats['kept']} of 12 samples kept"
    tasks = {task["name"].rpartition("-")[0] for task in prefect.of("task_runs", run)}
    assert tasks == {"prepare", "clean the shards", "finish"}
    artifacts = {artifact["key"]: artifact for artifact in prefect.of("artifacts", run)}
    numbers = json.loads(artifacts["clean-numbers"]["data"])
    assert {"number": "kept", "value": stats["kept"]} in numbers
    assert artifacts["clean-progress"]["data"] == 100
    assert f"{out}/report/index.html" in artifacts["clean-report"]["data"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"threshold_web": 7}, "7 is greater than the maximum of 1"),
        ({"engine": "spark"}, "'spark' is not one of"),
        ({"input": "web"}, "'web' is not of type 'array'"),
    ],
)
def test_a_bad_parameter_is_refused_before_a_run(
    prefect: Prefect, changed: dict[str, Any], why: str
) -> None:
    answer = prefect.ask("clean/capfilt", **{"input": ["/web"], "output": "/out"} | changed)
    assert answer.status_code == 409
    assert why in answer.json()["detail"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"input": ["web"]}, "input.urls is 'web'; a worker stands in a folder of its own"),
        ({"settings": {"caption.topp": 0.9}}, "Did you mean caption.top_p?"),
        ({"input": ["/no/such/place"]}, "there is no /no/such/place"),
    ],
)
def test_what_only_the_flow_can_check_fails_by_its_message(
    prefect: Prefect, tmp_path: Path, changed: dict[str, Any], why: str
) -> None:
    asked = {"input": [str(tmp_path)], "output": str(tmp_path / "run"), **TINY} | changed
    run = prefect.launch("clean/capfilt", **asked)
    assert why in prefect.wait(run, "Failed")["state"]["message"]
    told = [log["message"] for log in prefect.of("logs", run)]
    ours = [line for line in told if not line.startswith("Engine execution exited")]
    assert [line for line in ours if "Traceback" in line] == []


@pytest.mark.nightly
def test_a_cancelled_run_is_taken_up_by_the_same_form(
    prefect: Prefect, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    asked = {"input": [str(many)], "output": str(out), **TINY}
    run = prefect.launch("clean/capfilt", **asked)
    wait_until(lambda: len(commits(out)) >= 3)
    prefect.cancel(run)
    began = time.monotonic()
    cancelled = prefect.wait(run, "Cancelled")
    assert time.monotonic() - began < 30
    assert "a run goes on by it" in cancelled["state"]["message"]
    endings = [json.loads(path.read_text())["ending"] for path in out.glob("attempts/*/*.json")]
    assert endings.count("released") == 1  # what was under way
    before = {path: path.stat().st_mtime_ns for path in commits(out)}
    assert len(before) < 60
    again = prefect.launch("clean/capfilt", **asked)
    prefect.wait(again, "Completed")
    assert len(commits(out)) == 60
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


@pytest.mark.nightly
def test_what_another_flow_made_starts_the_next(
    prefect: Prefect, web: Path, tmp_path: Path
) -> None:
    chained = prefect.capfilt(
        "deploy", "judge", f"--pool={POOL}", "--name=chain", "--after=clean", "--param=name=strict"
    )
    assert chained.returncode == 0, chained.stderr
    made = prefect.deployment("judge/chain")
    out = tmp_path / "run"
    prefect.wait(
        prefect.launch("clean/capfilt", input=[str(web)], output=str(out), **TINY), "Completed"
    )
    started: list[Any] = []

    def has_started() -> bool:
        wanted = {"deployments": {"id": {"any_": [made["id"]]}}}
        started[:] = prefect.post("flow_runs/filter", **wanted).json()
        return any(run["parameters"]["output"] == str(out) for run in started)

    wait_until(has_started, 60)
    (run,) = [run for run in started if run["parameters"]["output"] == str(out)]
    assert run["created_by"]["type"] == "AUTOMATION"
    prefect.wait(run["id"], "Completed")
    assert (out / "views/strict").is_dir()
