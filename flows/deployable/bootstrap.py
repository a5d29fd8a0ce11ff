"""`bootstrap`: rounds of pre-training, finetuning, cleaning and evaluation, each upon the last."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import PositiveInt

from flows.deployable.approval import ask_a_person
from flows.deployable.flow_run import FlowRun, dated, name_run
from flows.deployable.training import display
from flows.rounds.names import STAGES, Next, Stage

if TYPE_CHECKING:
    from flows.rounds.approval import Answer
    from flows.rounds.ledger import Entry
    from flows.stages.clean import RunListener
    from flows.stages.rounds.bootstrap import RoundsJob
    from flows.stages.summary import Summary
    from flows.training.log import Display


@flow(name="bootstrap", flow_run_name=name_run, persist_result=False)
def bootstrap(
    output: str,
    recipe: str = "",
    web: list[str] | None = None,
    human: list[str] | None = None,
    held_out: list[str] | None = None,
    rounds: PositiveInt | None = None,
    approve: bool | None = None,
    engine: Literal["auto", "ray", "local"] = "auto",
    settings: dict[str, Any] | None = None,
) -> State[Any] | None:
    """Go through the rounds of BLIP's loop; rounds that were cut off are taken up by the same form.

    Args:
        output: The folder of all rounds, new or to be taken up: a whole path all workers reach.
        recipe: Path of a recipe (YAML) on the worker; what is said here goes over it.
        web: Shards of web pairs, to be cleaned; empty is as in the recipe.
        human: Shards of pairs that people annotated, to train on; empty is as in the recipe.
        held_out: Such shards that nothing is trained on: the gate's measure.
        rounds: How many.
        approve: A person lets each next round begin, here or by `capfilt approve`.
        engine: Where the work runs; auto is Ray, where it is installed.
        settings: Every other key of the recipe, as {"pretrain.step.epochs": 2}.
    """
    output, kind = dated(output), None if engine == "auto" else engine
    form = {
        "output": output,
        "web.urls": web or None,
        "human.urls": human or None,
        "held_out.urls": held_out or None,
        "rounds": rounds,
        "approve": approve,
        "engine.kind": kind,
        "launch.kind": kind,
    }
    with FlowRun("bootstrap") as run:
        job = run.stage("prepare", _prepare, recipe, form, settings or {})
        number, then = 0, "next"
        while then == "next":
            number += 1
            for stage in STAGES:
                run.stage(f"round {number}: {stage}", _do_stage, job, number, stage, run)
            then = run.stage(f"round {number}: gate", _judge_round, job, number)
            if then == "ask":
                answer = ask_a_person(run, output, number)
                then = run.stage(f"round {number}: approval", _take_answer, job, number, answer)
        run.end(run.stage("finish", _finish, job))
    return run.state


class _Rounds(NamedTuple):
    """Rounds under way, and the hold on their folder."""

    job: "RoundsJob"
    hold: ExitStack


def _prepare(recipe: str, form: dict[str, Any], settings: dict[str, Any]) -> _Rounds:
    from flows.deployable.parameters import recipe_of
    from flows.lock import lock_folder
    from flows.rounds.recipe import BootstrapRecipe
    from flows.stages.rounds import bootstrap as stages

    job = stages.prepare(recipe_of(BootstrapRecipe, recipe, form, settings))
    hold = ExitStack()
    hold.enter_context(lock_folder(job.folder))
    job.ledger.refresh()
    return _Rounds(job, hold)


def _do_stage(rounds: _Rounds, number: int, stage: Stage, run: FlowRun) -> None:
    from flows.stages.rounds import bootstrap as stages

    stages.do_stage(rounds.job, number, stage, _Callbacks(run))


def _judge_round(rounds: _Rounds, number: int) -> Next:
    from flows.stages.rounds import bootstrap as stages

    return stages.judge_round(rounds.job, number)


def _take_answer(rounds: _Rounds, number: int, answer: "Answer | None") -> Next:
    from flows.stages.rounds import bootstrap as stages

    return stages.take_answer(rounds.job, number, answer)


def _finish(rounds: _Rounds) -> "Summary":
    from flows.stages.summary import of_rounds

    rounds.hold.close()
    return of_rounds(rounds.job.ledger)


class _Callbacks:
    """Shows the work on a stage as the progress of the flow run."""

    def __init__(self, run: FlowRun) -> None:
        self._run = run

    @contextmanager
    def training(self, steps: int) -> "Iterator[Display]":
        yield display(steps, self._run)

    @contextmanager
    def cleaning(self) -> "Iterator[RunListener]":
        from flows.stages.progress import CleanProgress

        yield CleanProgress(self._run.progress)

    def ended(self, number: int, stage: Stage, entry: "Entry", before: bool) -> None:
        from flows.stages.progress import stage_line

        done = "done before" if before else "done"
        self._run.logger.info("round %d: %s %s: %s", number, stage, done, stage_line(stage, entry))
