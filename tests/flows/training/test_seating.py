"""Which machines a training takes, and when it gives up; on machines as Ray would tell of them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.engines.engine import EngineError
from flows.engines.placement import Machine, Seat, Wish
from flows.engines.ray.nodes import RayNodes
from flows.engines.start_checks import Demands, requirements
from flows.recipe import RecipeError
from flows.training.recipe import PretrainRecipe
from flows.training.seating import SETTLED_AFTER_S, Seating

ONE, OTHER = Machine("n1", "one", 2.0), Machine("n2", "other", 2.0)
GPU_BOX = Machine("n3", "gpu-box", 10.0, 5.0)
Sit = Callable[..., Seating]


@pytest.fixture
def sit(recipe: Callable[..., PretrainRecipe], tmp_path: Path) -> Sit:
    """The seating of an attempt: of the first one, or where `before` workers were before."""

    def make(before: int = 0, waited_s: float = 0, lanes: int = 6, **launch: Any) -> Seating:
        made = recipe(launch={"kind": "ray"} | launch, data__lanes=lanes)
        nodes = RayNodes(Wish(), 60, grows=False)
        with requirements(Demands(str(tmp_path), ())) as checks:
            seating = Seating(made, nodes, checks, before)
        seating._began = time.monotonic() - waited_s
        return seating

    return make


def hosts(seats: tuple[Seat, ...]) -> list[str]:
    return [seat.host for seat in seats]


def test_a_number_that_was_asked_for_waits_for_room(sit: Sit) -> None:
    assert hosts(sit(workers=2, cpus_per_worker=2)._plan([ONE, OTHER])) == ["one", "other"]
    assert sit(workers=2, cpus_per_worker=2, waited_s=99)._plan([ONE]) == ()


def test_after_a_loss_it_goes_on_with_what_has_room_once_all_has_settled(sit: Sit) -> None:
    lost = {"before": 2, "workers": 2, "cpus_per_worker": 2}
    assert sit(**lost)._plan([ONE]) == ()
    settled = sit(**lost, waited_s=SETTLED_AFTER_S + 1)
    assert hosts(settled._plan([ONE])) == ["one"]
    assert hosts(settled._plan([ONE, OTHER])) == ["one", "other"]  # it is back
    assert settled._plan([]) == ()


def test_what_does_not_divide_ends_with_what_to_do(sit: Sit) -> None:
    lost = sit(before=6, workers=6, cpus_per_worker=1, waited_s=SETTLED_AFTER_S + 1)
    with pytest.raises(EngineError, match=r"hold 4 of 6 workers.*--workers 3\)"):
        lost._plan([ONE, OTHER])


def test_auto_is_a_worker_for_each_gpu_as_far_as_they_divide_the_lanes(sit: Sit) -> None:
    assert len(sit()._plan([ONE, GPU_BOX])) == 3  # of 5 GPUs: 5 and 4 do not divide 6
    assert hosts(sit()._plan([ONE])) == ["one"]
    again = sit(before=3, waited_s=SETTLED_AFTER_S + 1)
    assert len(again._plan([Machine("n4", "smaller", 4.0, 2.0)])) == 2


def test_workers_that_do_not_divide_the_lanes_are_refused(sit: Sit) -> None:
    with pytest.raises(RecipeError, match=r"data\.lanes is 6, which 4 workers do not divide"):
        sit(workers=4)._plan([GPU_BOX])


def test_more_than_this_machine_has_is_refused_at_once(sit: Sit) -> None:
    with pytest.raises(RecipeError, match=r"this machine alone: wanted: 3 workers .*one with 2"):
        sit(workers=3)._wait([ONE], grows=False)


def test_machines_that_are_unfit_are_named(sit: Sit) -> None:
    seating = sit(workers=2)
    seating._nodes.leave_out(Seat("n2", "other", 1.0, 0.0), "no training folder there")
    with pytest.raises(EngineError, match="Left out: other: no training folder there"):
        seating._wait([ONE], grows=True)


def test_waiting_is_told_in_words_and_has_an_end(
    sit: Sit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flows.engines.ray.head.Head.launched", lambda _: [])
    monkeypatch.setattr("flows.engines.ray.head.Head.request", lambda *_: None)
    sit(workers=2, waited_s=5)._wait([ONE], grows=True)
    assert caplog.text == ""
    sit(workers=2, waited_s=20)._wait([ONE], grows=True)
    assert "waiting for machines; wanted: 2 workers with a processor each" in caplog.text
    assert "one with 2 processors and 0 GPUs free" in caplog.text
    with pytest.raises(EngineError, match=r"no machine .* in 30 s; what was saved is safe"):
        sit(before=2, workers=2, waited_s=31)._wait([], grows=True)
    with pytest.raises(EngineError, match=r"no machine .* in 600 s"):
        sit(workers=2, waited_s=601)._wait([ONE], grows=True)
