"""What Ray is asked for, and how its answers are read; the actors themselves run in end_to_end."""

import pytest
from ray.exceptions import RayTaskError

from flows.engines.ray_pool import ActorShare, cause_of, divide
from flows.recipe import EngineConfig
from pipeline.clean.shard import AttemptLost


@pytest.mark.parametrize(
    ("cpus", "gpus", "asked", "shards", "share"),
    [
        (16, 0, {}, 100, ActorShare(8, 2, 0)),
        (16, 0, {}, 3, ActorShare(3, 5, 0)),  # whole processors
        (1, 0, {}, 9, ActorShare(1, 1, 0)),
        (16, 4, {}, 100, ActorShare(4, 4, 1)),
        (16, 4, {"gpus_per_actor": 0.5}, 100, ActorShare(8, 2, 0.5)),
        (16, 4, {"gpus_per_actor": 0}, 100, ActorShare(8, 2, 0)),
        (2, 0, {"actors": 3}, 100, ActorShare(3, 0.6667, 0)),
        (2, 0, {"actors": 3}, 0, ActorShare(1, 2, 0)),
    ],
)
def test_a_cluster_is_divided(
    cpus: float, gpus: float, asked: dict[str, float], shards: int, share: ActorShare
) -> None:
    assert divide(cpus, gpus, EngineConfig.model_validate(asked), shards) == share


def test_shares_never_ask_for_more_than_there_is() -> None:
    for cpus in (1, 2, 7, 64):
        for shards in (1, 2, 50):
            share = divide(cpus, 0, EngineConfig(), shards)
            assert share.actors * share.cpus <= cpus


def test_an_actors_own_exception_is_what_is_raised() -> None:
    lost = AttemptLost("shard 3: a picture hung")
    error = RayTaskError("process", "Traceback ...", lost)
    assert cause_of(error) is lost
    assert cause_of(error.as_instanceof_cause()) is lost


def test_an_exception_that_could_not_travel_is_raised_as_ray_has_it() -> None:
    error = RayTaskError("process", "Traceback ...", "no exception")
    assert cause_of(error) is error
