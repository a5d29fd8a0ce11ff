"""What Ray is asked for, and how its answers are read; the actors themselves run in end_to_end."""

from ray.exceptions import RayTaskError

from flows.engines.placement import Wish
from flows.engines.ray.pool import cause_of, wish_of
from flows.recipe import EngineConfig
from pipeline.clean.shard import AttemptLost


def test_an_actors_own_exception_is_what_is_raised() -> None:
    lost = AttemptLost("shard 3: a picture hung")
    error = RayTaskError("process", "Traceback ...", lost)
    assert cause_of(error) is lost
    assert cause_of(error.as_instanceof_cause()) is lost


def test_an_exception_that_could_not_travel_is_raised_as_ray_has_it() -> None:
    error = RayTaskError("process", "Traceback ...", "no exception")
    assert cause_of(error) is error


def test_a_recipe_says_what_is_asked_of_the_machines() -> None:
    config = EngineConfig.model_validate({"actors": 3, "gpus_per_actor": 0.5})
    assert wish_of(config, 10) == Wish(workers=3, gpus=0.5, worker_bytes=10)
    assert wish_of(EngineConfig()) == Wish(workers="auto", gpus="auto")
