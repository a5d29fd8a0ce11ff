"""`judge`: decide about a run again, by other thresholds, without a model."""

from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.deployable.flow_run import FlowRun, dated, name_run

if TYPE_CHECKING:
    from flows.stages.summary import Summary


@flow(name="judge", flow_run_name=name_run, persist_result=False)
def judge(
    output: str,
    name: str,
    threshold: dict[str, float] | None = None,
    keep_fraction: dict[str, float] | None = None,
    write_shards: bool = False,
) -> State[Any] | None:
    """Make a view of a run: decisions by thresholds of its own, beside the run's.

    Args:
        output: The run folder, as the machines reach it: a whole path, or a URL.
        name: Of the new view; letters, digits, _ and -.
        threshold: For each origin of texts, as {"web": 0.6}; others keep the run's.
        keep_fraction: For each origin the share to keep, the best, as {"synthetic": 0.3}.
        write_shards: Write clean tars too, from the input.
    """
    output = dated(output)
    with FlowRun("judge") as run:
        run.end(
            run.stage(
                "judge", _judge, output, name, threshold or {}, keep_fraction or {}, write_shards
            )
        )
    return run.state


def _judge(
    output: str,
    name: str,
    threshold: dict[str, float],
    keep_fraction: dict[str, float],
    write_shards: bool,
) -> "Summary":
    from flows.stages import judge as stages
    from flows.stages.summary import of_view
    from pipeline.views.request import ViewRequest
    from shards.run.run import Run
    from shards.run.snapshot import open_snapshot

    run = Run.open(output)
    request = ViewRequest(name, threshold, keep_fraction, write_shards)
    return of_view(stages.judge(run, open_snapshot(run, None), request, lambda _: None), output)
