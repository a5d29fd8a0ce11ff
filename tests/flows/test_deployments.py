"""What is given to Prefect: forms, schedules, chains; the end-to-end tests have a real server."""

import json
import math
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deployments import (
    CHAINS,
    FLOWS,
    Placement,
    check_server,
    make_deployment,
    put,
    recipe_defaults,
)
from flows.engines.engine import EngineError
from flows.recipe import RecipeError
from tests.support.http_server import in_thread

HERE = Placement()


@pytest.mark.parametrize("flow", FLOWS)
def test_every_field_of_a_form_says_what_it_is(flow: str) -> None:
    schema = FLOWS[flow].parameters
    assert [name for name, field in schema.properties.items() if not field.get("description")] == []
    assert FLOWS[flow].description


def test_a_form_has_bounds() -> None:
    threshold = FLOWS["clean"].parameters.properties["threshold_web"]
    number = next(kind for kind in threshold["anyOf"] if kind["type"] == "number")
    assert (number["minimum"], number["maximum"]) == (0, 1)
    assert FLOWS["clean"].parameters.required == ["input", "output"]


def test_a_deployment_is_found_by_its_module_wherever_a_worker_stands() -> None:
    made = make_deployment("clean", "nightly", {"output": "/runs/{date}"}, Placement(pool="gpus"))
    assert made.entrypoint == "flows.deployable.clean.clean"
    assert (made.full_name, made.work_pool_name) == ("clean/nightly", "gpus")
    assert made.parameters == {"output": "/runs/{date}"}
    assert made.job_variables["env"]["PYTHONSAFEPATH"] == "1"
    assert made.tags == ["capfilt"]


def test_schedules() -> None:
    given = {"input": ["/web"], "output": "/runs/{date}"}
    cron = Placement(cron="0 3 * * *", timezone="Europe/Paris", tags=("nightly",), limit=1)
    made = make_deployment("clean", "x", given, cron)
    assert made.schedules is not None
    (schedule,) = made.schedules
    assert isinstance(schedule.schedule, CronSchedule)
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 3 * * *", "Europe/Paris")
    assert (made.tags, made.concurrency_limit) == (["capfilt", "nightly"], 1)
    every = make_deployment("clean", "x", given, Placement(every_s=20)).schedules
    assert every is not None
    assert isinstance(every[0].schedule, IntervalSchedule)
    assert every[0].schedule.interval == timedelta(seconds=20)


@pytest.mark.parametrize(
    ("flow", "given", "placement", "after", "why"),
    [
        ("clean", {"ouput": "/x"}, HERE, None, "clean has no parameter ouput; did you mean output"),
        ("clean", {}, Placement(every_s=20), None, "it needs input, output: give --param input="),
        ("judge", {}, HERE, "clean", "it needs name"),
        ("clean", {"threshold_web": "high"}, HERE, None, "'threshold_web'"),
        ("judge", {"threshold": 0.8}, HERE, None, "'threshold'"),
        ("clean", {"output": "runs/{time}"}, HERE, None, "output is 'runs/{time}'; a worker"),
        ("clean", {"output": "/runs/{tme}"}, HERE, None, "output has {tme}"),
        ("clean", {}, HERE, "pretrain", "clean after pretrain is no chain that is known"),
        ("clean", {"input": ["x" * 600_000]}, HERE, None, "Give a pattern"),
    ],
)
def test_what_nobody_could_run_is_refused(
    flow: str, given: dict[str, Any], placement: Placement, after: str | None, why: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        make_deployment(flow, "x", given, placement, after)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("name", "placement", "why"),
    [
        ("x", Placement(cron="nonsense"), 'Invalid cron string: "nonsense"'),
        ("x", Placement(cron="0 3 * * *", timezone="Mars/Base"), "Mars/Base"),
        ("x", Placement(every_s=math.inf), "no deployment of it"),
        ("x", Placement(every_s=1e300), "no deployment of it"),
        ("", HERE, "'' names no deployment"),
        ("a/b", HERE, "'a/b' names no deployment"),
    ],
)
def test_a_time_or_a_name_that_is_none_is_refused(
    name: str, placement: Placement, why: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        make_deployment("clean", name, {"input": ["/web"], "output": "/run"}, placement)
    assert why in str(refused.value)


def test_a_server_that_is_none_is_told() -> None:
    class Rubbish(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"rubbish")

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    made = make_deployment("clean", "x", {}, HERE)
    with in_thread(ThreadingHTTPServer(("127.0.0.1", 0), Rubbish)) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/api"
        with (
            temporary_settings({PREFECT_API_URL: url}),
            pytest.raises(EngineError, match="did not take it"),
        ):
            put([made], None)


def test_a_password_in_an_address_is_not_told() -> None:
    url = "http://me:hush-hush@127.0.0.1:1/api"
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(EngineError) as told:
        check_server()
    assert "127.0.0.1:1/api" in str(told.value)
    assert "hush" not in str(told.value)


@pytest.mark.parametrize(("flow", "after"), CHAINS)
def test_a_chain_gives_parameters_that_its_flow_has(flow: str, after: str) -> None:
    assert after in FLOWS
    assert CHAINS[flow, after].keys() <= FLOWS[flow].parameters.properties.keys()


def test_a_recipe_fills_in_what_a_form_must_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Path("recipe.yaml")
    values = {"input": {"urls": ["web/{0..7}.tar", "s3://b/x"]}, "output": "runs/first"}
    recipe.write_text(json.dumps(values))
    assert recipe_defaults("clean", recipe) == {
        "recipe": str(tmp_path / "recipe.yaml"),
        "input": [str(tmp_path / "web/{0..7}.tar"), "s3://b/x"],
        "output": str(tmp_path / "runs/first"),
    }
    recipe.write_text(json.dumps({name: {"urls": [name]} for name in ("web", "human")}))
    assert recipe_defaults("bootstrap", recipe)["human"] == [str(tmp_path / "human")]
    recipe.write_text("task: filter")
    assert recipe_defaults("finetune", recipe)["task"] == "filter"
    recipe.write_text("{}")
    assert recipe_defaults("pretrain", recipe) == {"recipe": str(tmp_path / "recipe.yaml")}
