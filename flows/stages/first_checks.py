"""What a mistyped command is told at once: checks that load no library of seconds."""

from dataclasses import dataclass

from flows.engines.address import check_output, check_reachable, join_address
from flows.recipe import Recipe
from flows.run_log.log import RunLog
from models.checkpoints import locate
from shards.inputs.listing import InputShard, list_inputs
from shards.store import Store


@dataclass(frozen=True, slots=True)
class Checked:
    """The places of a cleaning, as they were found: where it goes, what tells of it, its inputs."""

    store: Store
    log: RunLog
    inputs: tuple[InputShard, ...]


def check_cleaning(recipe: Recipe) -> Checked:
    """Find what a cleaning names: run folder, inputs, checkpoints, and the cluster it joins."""
    check_output(recipe.output)
    store = Store(recipe.output)
    log = RunLog(store, recipe.engine.forward_env)
    with log.hearing():
        for model in (recipe.caption, recipe.score):
            locate.find_here(model.model, model.revision)
        inputs = tuple(list_inputs(list(recipe.input.urls), recipe.input.root))
        check_cluster(recipe.engine.kind, recipe.engine.address)
    return Checked(store, log, inputs)


def check_cluster(kind: str, address: str | None) -> None:
    """Refuse the address of a cluster where none answers."""
    if kind != "local" and (joined := join_address(address)):
        check_reachable(joined)
