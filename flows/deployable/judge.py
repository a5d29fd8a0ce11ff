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
    by: str | None = None,
    where: str | None = None,
    prefer: list[str] | None = None,
) -> State[Any] | None:
    """Make a view of a run: decisions by thresholds of its own, beside the run's.

    Args:
        output: The run folder, as the machines reach it: a whole path, or a URL.
        name: Of the new view; letters, digits, _ and -.
        threshold: For each origin of texts, as {"web": 0.6}; others keep the run's.
        keep_fraction: For each origin the share to keep, the best, as {"synthetic": 0.3}.
        write_shards: Write clean tars too, from the input.
        by: The score that thresholds are on; itm, or such as siglip2.prob.
        where: A condition on scores and columns, as itm >= 0.5 and siglip2.prob >= 0.2.
        prefer: Origins; of a sample, only texts of the first that passes stay.
    """
    output = dated(output)
    with FlowRun("judge") as run:
        asked = (threshold or {}, keep_fraction or {}, write_shards, by, where, tuple(prefer or ()))
        run.end(run.stage("judge", _judge, output, name, *asked))
    return run.state


def _judge(
    output: str,
    name: str,
    threshold: dict[str, float],
    keep_fraction: dict[str, float],
    write_shards: bool,
    by: str | None,
    where: str | None,
    prefer: tuple[str, ...],
) -> "Summary":
    from flows.stages import judge as stages
    from flows.stages.summary import of_view
    from pipeline.views.request import ViewRequest
    from shards.run.run import Run
    from shards.run.snapshot import open_snapshot

    run = Run.open(output)
    request = ViewRequest(name, threshold, keep_fraction, write_shards, by, where, prefer)
    return of_view(stages.judge(run, open_snapshot(run, None), request, lambda _: None), output)
