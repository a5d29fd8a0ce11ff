"""Deployments of the flows: what Prefect's page launches, schedules, and starts one by another."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import Flow, get_client, serve
from prefect.automations import (
    AutomationCore,
    ChangeFlowRunState,
    EventTrigger,
    Posture,
    RunDeployment,
)
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import DeploymentApplyError, RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Interval, Schedule
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from prefect.types import BANNED_CHARACTERS
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.schema_tools.validation import ValidationError, validate
from prefect.workers.process import ProcessWorker

from flows.deployable.bootstrap import bootstrap
from flows.deployable.clean import clean
from flows.deployable.download import download
from flows.deployable.finetune import finetune
from flows.deployable.judge import judge
from flows.deployable.parameters import check_places, check_size
from flows.deployable.pretrain import pretrain
from flows.engines.engine import EngineError
from flows.following.parameters import place
from flows.following.server import call
from flows.recipe import RecipeError, read_yaml
from flows.run_log.redaction import Redactor

FLOWS: Mapping[str, Flow[..., Any]] = {
    flow.name: flow for flow in (clean, download, judge, pretrain, finetune, bootstrap)
}
TAG = "capfilt"
LISTS = {"clean": ("input",), "bootstrap": ("web", "human", "held_out")}  # of shards, in a recipe
_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")
HEARTBEAT_S, MISSED_S = 30, 120
ANSWER_S = 5.0  # within which a server that lives answers
ENVIRONMENT = {
    "PYTHONSAFEPATH": "1",  # or a models/ in the folder of a worker would be imported as ours
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "THP_MEM_ALLOC_ENABLE": "1",  # torch asks for large pages, where the system gives them
}


@dataclass(frozen=True, slots=True)
class Placement:
    """When and where the runs of deployments are started."""

    pool: str | None = None  # none: this process starts them, as long as it lives
    cron: str | None = None
    every_s: float | None = None
    timezone: str | None = None
    tags: tuple[str, ...] = ()
    limit: int | None = None  # of runs of one deployment at a time; others wait

    def schedule(self) -> Schedule | None:
        """Say when runs are to start by themselves, if they are."""
        if self.cron is not None:
            return Cron(self.cron, timezone=self.timezone)
        return None if self.every_s is None else Interval(timedelta(seconds=self.every_s))


def _json(template: str) -> dict[str, Any]:
    """Make a parameter that is no text: a plain template would stay one."""
    return {"__prefect_kind": "json", "value": {"__prefect_kind": "jinja", "template": template}}


# What a flow is given when another has finished: (this one, after that one).
CHAINS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("clean", "download"): {
        "input": _json("[{{ event.payload.output | tojson }}]"),
        "output": "{{ event.payload.output }}-clean",
    },
    ("pretrain", "clean"): {
        "runs": _json("[{{ event.payload.output | tojson }}]"),
        "output": "{{ event.payload.output }}-pretrain",
    },
    ("bootstrap", "clean"): {
        "web": _json("{{ event.payload.input | tojson }}"),
        "output": "{{ event.payload.output }}-rounds",
    },
    ("finetune", "pretrain"): {
        "start": "{{ event.payload.numbers.model }}",
        "output": "{{ event.payload.output }}-finetune",
    },
    ("judge", "clean"): {"output": "{{ event.payload.output }}"},
}


def make_deployment(
    flow: str,
    name: str,
    parameters: Mapping[str, Any],
    placement: Placement,
    after: str | None = None,
) -> RunnerDeployment:
    """Describe a deployment, which may be run after another flow.

    Raises RecipeError for parameters that the flow does not have, that are more than Prefect
    takes, or that nobody will be there to give; and for a name or a time that is none.
    """
    check_size(parameters)
    if not name or any(character in name for character in BANNED_CHARACTERS):
        raise RecipeError(f"{name!r} names no deployment: it is empty, or has one of /%&<>")
    _check_parameters(flow, parameters, placement, after)
    try:
        return RunnerDeployment.from_flow(
            FLOWS[flow],
            name,
            schedule=placement.schedule(),
            concurrency_limit=placement.limit,
            parameters=dict(parameters),
            tags=[TAG, *placement.tags],
            job_variables={"env": ENVIRONMENT} if placement.pool else None,
            work_pool_name=placement.pool,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    except (ValueError, OverflowError) as error:
        raise RecipeError(f"Prefect makes no deployment of it: {error}") from error


def check_server() -> None:
    """Raise where no server is set, or none answers."""
    if not (address := PREFECT_API_URL.value()):
        raise RecipeError(
            "no Prefect server is set, and deployments live in one. Start one (prefect server "
            "start), and name it: prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    try:  # once; Prefect's client would try for minutes
        call(address, ANSWER_S)
    except httpx.HTTPError as error:
        told = Redactor()(f"at {address} does not answer ({error})")  # an address has passwords
        raise EngineError(
            f"Prefect's server {told}. Start it (prefect server start), or name another by "
            "PREFECT_API_URL"
        ) from error


def put(deployments: Sequence[RunnerDeployment], pool: str | None) -> list[UUID]:
    """Make deployments, or change those of the same name; in a pool, which is made if missing."""
    try:
        if pool is not None:
            _make_pool(pool)
        ids = [deployment.apply() for deployment in deployments]
    except (DeploymentApplyError, httpx.HTTPError, ValueError) as error:
        raise EngineError(f"Prefect's server did not take it: {error}") from error
    return [made for made in ids if isinstance(made, UUID)]  # and no coroutine: nothing is async


def page_of(deployment: UUID) -> str:
    """Name the page of a deployment, where its form is."""
    return f"{PREFECT_UI_URL.value()}/deployments/deployment/{deployment}"


def serve_here(deployments: Sequence[RunnerDeployment]) -> None:
    """Start runs as long as this process lives; schedules stay as they are when it ends."""
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    serve(*deployments, pause_on_shutdown=False)


def end_runs_without_heartbeat() -> None:
    """Let the server call runs crashed whose process is gone, and told nobody.

    A runner that is stopped kills its runs without a word: they would be Running for ever.
    """
    ended = {f"prefect.flow-run.{how}" for how in ("Completed", "Failed", "Cancelled", "Crashed")}
    _put_automation(
        AutomationCore(
            name="capfilt: runs that are gone",
            description="Flow runs without a heartbeat for two minutes are called crashed.",
            trigger=EventTrigger(
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.heartbeat", *ended},
                match={"prefect.resource.id": ["prefect.flow-run.*"]},
                match_related={
                    "prefect.resource.id": f"prefect.tag.{TAG}",
                    "prefect.resource.role": "tag",
                },
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=MISSED_S),
            ),
            actions=[
                ChangeFlowRunState(state="CRASHED", message="no heartbeat: its process is gone")
            ],
        )
    )


def _check_parameters(
    flow: str, parameters: Mapping[str, Any], placement: Placement, after: str | None
) -> None:
    schema = FLOWS[flow].parameters
    if unknown := sorted(parameters.keys() - schema.properties.keys()):
        near = difflib.get_close_matches(unknown[0], schema.properties, n=1)
        hint = f"; did you mean {near[0]}?" if near else f", but {', '.join(schema.properties)}"
        raise RecipeError(f"{flow} has no parameter {unknown[0]}{hint}")
    try:
        validate(dict(parameters), schema.model_dump_for_openapi(), True, True, True)
    except ValidationError as error:
        raise RecipeError(f"{flow}: {error}") from error
    check_places(parameters)
    for unknown_field in {*_FIELD.findall(str(parameters.get("output", "")))} - {"date", "time"}:
        raise RecipeError(
            f"output has {{{unknown_field}}}, which nothing is put into; there are {{date}} and "
            "{time}"
        )
    if after is not None and (flow, after) not in CHAINS:
        chains = ", ".join(f"{this} after {that}" for this, that in CHAINS)
        raise RecipeError(f"{flow} after {after} is no chain that is known; there are: {chains}")
    alone = after is not None or placement.cron is not None or placement.every_s is not None
    given = parameters.keys() | CHAINS.get((flow, after or ""), {}).keys()
    if alone and (missing := [name for name in schema.required or () if name not in given]):
        raise RecipeError(
            f"nobody fills in a form when {flow} starts by itself, and it needs "
            f"{', '.join(missing)}: give --param {missing[0]}=…, or a recipe that says it"
        )


def start_after(flow: str, deployment: UUID, name: str, other: str) -> None:
    """Let a deployment be run when a run of another flow has finished, on what that one made."""
    _put_automation(
        AutomationCore(
            name=f"capfilt: {flow}/{name} after {other}",
            trigger=EventTrigger(
                expect={f"capfilt.{other}.finished"},
                match={"prefect.resource.id": "capfilt.run.*"},
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[
                RunDeployment(
                    source="selected",
                    deployment_id=deployment,
                    parameters=dict(CHAINS[flow, other]),
                )
            ],
        )
    )


def recipe_defaults(flow: str, recipe: Path) -> dict[str, Any]:
    """Read what a form must ask from a recipe, so that it stands there filled in."""
    values = read_yaml(recipe)
    defaults: dict[str, Any] = {"recipe": place(str(recipe))}
    if output := values.get("output"):
        defaults["output"] = place(str(output))
    for name in LISTS.get(flow, ()):
        section = values.get(name)
        if isinstance(section, dict) and isinstance(urls := section.get("urls"), list):
            defaults[name] = [place(str(url)) for url in urls]
    if flow == "finetune" and values.get("task"):
        defaults["task"] = str(values["task"])
    return defaults


def _make_pool(name: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(
                WorkPoolCreate(name=name, type="process", base_job_template=template)
            )


def _put_automation(automation: AutomationCore) -> None:
    """Make an automation, in the place of an earlier one of its name."""
    with get_client(sync_client=True) as client:
        earlier = client.read_automations_by_name(automation.name)
        client.create_automation(automation)
        for old in earlier:
            client.delete_automation(old.id)
