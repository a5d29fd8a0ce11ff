"""Whose fault a failure was, and what is asked of Ray; without a cluster."""

from collections.abc import Callable
from pathlib import Path

import ray

from flows.engines.engine import EngineError
from flows.engines.placement import Seat
from flows.engines.start_checks import Demands, requirements
from flows.training import ray as ray_train
from flows.training.recipe import PretrainRecipe
from flows.training.worker import TrainingJob


class GroupFailedError(Exception):
    """What Ray Train raises of a group: the failures of its workers, by rank."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__("the group failed")
        self.worker_failures = dict(enumerate(failures))


def test_our_own_error_is_told_from_a_lost_worker() -> None:
    ours = EngineError("a lane gave nothing")
    assert ray_train._own_fault(GroupFailedError(OSError("lost"), ours)) is ours
    assert ray_train._own_fault(GroupFailedError(OSError("lost"))) is None
    assert ray_train._own_fault(RuntimeError("no group at all")) is None


def test_each_worker_is_pinned_to_its_seat(
    recipe: Callable[..., PretrainRecipe], tmp_path: Path
) -> None:
    made = recipe(launch={"kind": "ray", "device": "cpu"})
    job = TrainingJob(made, tmp_path, "fp32", (), tmp_path / "start", 2)
    seats = (Seat("n1", "one", 4.0, 1.0), Seat("n2", "other", 4.0, 1.0))
    with requirements(Demands(str(tmp_path), ())) as checks:
        trainer = ray_train._trainer(job, checks, seats)
    scaling = trainer.scaling_config
    assert scaling.resources_per_worker == {"CPU": 4, "GPU": 1.0}
    assert scaling.label_selector == [{"ray.io/node-id": "n1"}, {"ray.io/node-id": "n2"}]
    assert ray._raylet.RAY_NODE_ID_KEY == "ray.io/node-id"
    assert trainer.backend_config.backend == "gloo"  # of processors, as launch.device says
