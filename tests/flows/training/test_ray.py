"""How a training divides a cluster, and whose fault a failure was; without a cluster."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.engines.engine import EngineError
from flows.recipe import RecipeError
from flows.training import ray as ray_train
from flows.training.recipe import PretrainRecipe
from flows.training.worker import TrainingJob

Share = Callable[..., tuple[int, int, bool]]


@pytest.fixture
def share(
    recipe: Callable[..., PretrainRecipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Share:
    """Divide a cluster of so many processors and GPUs, as Ray would tell of it."""

    def divide(resources: dict[str, float], **launch: Any) -> tuple[int, int, bool]:
        monkeypatch.setattr("ray.cluster_resources", lambda: resources)
        made = recipe(launch={"kind": "ray"} | launch)
        return ray_train._share(TrainingJob(made, tmp_path, "fp32", (), tmp_path / "start", 2))

    return divide


def test_a_worker_for_each_gpu_and_the_processors_among_them(share: Share) -> None:
    assert share({"CPU": 16.0, "GPU": 2.0}) == (2, 8, True)
    assert share({"CPU": 16.0}) == (1, 16, False)
    assert share({"CPU": 16.0}, workers=3) == (3, 5, False)
    assert share({"CPU": 16.0, "GPU": 2.0}, cpus_per_worker=3) == (2, 3, True)


def test_more_than_this_machine_has_is_refused_and_a_cluster_may_grow(share: Share) -> None:
    for resources, launch in (
        ({"CPU": 4.0}, {"workers": 3, "cpus_per_worker": 2}),
        ({"CPU": 8.0, "GPU": 1.0}, {"workers": 2}),
    ):
        with pytest.raises(RecipeError, match=r"this machine has .* Take fewer workers"):
            share(resources, **launch)
        assert share(resources, address="ray://head:1", **launch)[0] == launch["workers"]


def test_workers_that_do_not_divide_the_lanes_are_refused(share: Share) -> None:
    with pytest.raises(RecipeError, match=r"data\.lanes is 6, which 4 workers do not divide"):
        share({"CPU": 16.0}, workers=4)


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
