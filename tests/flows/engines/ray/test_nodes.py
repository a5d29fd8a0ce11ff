"""Which machines are used; how Ray itself answers is tried on clusters, in end_to_end."""

import time

import pytest

from flows.engines.engine import EngineError
from flows.engines.placement import Machine, Seat, Wish
from flows.engines.ray.nodes import MAX_BAD_STARTS, RayNodes
from shards.errors import UsageError

SEAT = Seat("n1", "gpu-box", 2.0, 0.0)
HERE = Machine("n1", "gpu-box", 2.0, 0.0)


def nodes(wish: Wish) -> RayNodes:
    """The nodes of this machine alone."""
    looked = RayNodes(wish, 60, grows=False)
    looked._machines = (HERE,)
    return looked


def test_a_machine_on_which_workers_cannot_start_is_left_out_by_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looked = nodes(Wish())
    for _ in range(MAX_BAD_STARTS - 1):
        looked.note_start(SEAT, "killed")
    looked.note_start(SEAT, None)  # a good one between forgives them
    for _ in range(MAX_BAD_STARTS - 1):
        looked.note_start(SEAT, "killed")
    assert caplog.text == ""
    looked.note_start(SEAT, "killed")
    assert "gpu-box is left out: 3 workers in a row could not start: killed" in caplog.text
    with pytest.raises(EngineError, match=r"no machine is left .*gpu-box: 3 workers in a row"):
        looked.wait((), running=0, most=5)
    looked.wait((), running=1, most=5)  # one that was there before goes on


def test_one_machine_that_can_never_hold_a_worker_is_bad_usage() -> None:
    with pytest.raises(UsageError, match=r"wanted: a worker with 1 GPU .*gpu-box with 2 proc"):
        nodes(Wish(gpus=1)).wait((HERE,), running=0, most=5)


def test_a_machine_that_holds_all_that_is_wanted_needs_no_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nodes(Wish()).wait((HERE,), running=0, most=5)
    nodes(Wish(workers=2)).wait((HERE,), running=0, most=5)
    assert caplog.text == ""


def test_fewer_workers_than_asked_for_are_told(caplog: pytest.LogCaptureFixture) -> None:
    gpu = Machine("n1", "gpu-box", 4.0, 1.0)
    looked = nodes(Wish(workers=3))
    looked.wait((gpu,), running=1, most=5)
    looked.wait((gpu,), running=1, most=5)
    (line,) = caplog.messages
    assert line.startswith("1 worker runs; wanted: 3 workers with 1 GPU and a processor each")
    assert "gpu-box with 4 processors and 1 GPU free" in line


def test_fewer_shards_than_workers_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    machines = (Machine("n1", "gpu-box", 8.0, 4.0), Machine("n2", "cpu-box", 8.0, 0.0))
    looked = nodes(Wish(gpus=0.5))
    looked.count_room((), shards=3)  # nothing is known of machines that are still to come
    looked.count_room(machines, shards=3)
    looked.count_room(machines, shards=1)  # the last ones of any run have idle workers
    assert caplog.messages == [
        "3 shards for 8 workers: 5 idle; smaller shards use them all",
    ]
    nodes(Wish(gpus=0.5)).count_room(machines, shards=8)
    nodes(Wish(workers=3)).count_room(machines, shards=3)
    assert len(caplog.messages) == 1


def test_the_first_word_comes_on_a_machine_that_has_just_booted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    nodes(Wish(workers=3)).wait((Machine("n1", "gpu-box", 4.0, 1.0),), running=1, most=5)
    assert len(caplog.messages) == 1
