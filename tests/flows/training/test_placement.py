"""How a training divides a cluster, as arithmetic."""

from flows.engines.placement import Machine, Seat
from flows.training.placement import count_room, equal_seats, explain, largest_division

HEAD, GPU_BOX = Machine("n0", "head", 2.0), Machine("n1", "gpu-box", 2.0, 1.0)
EIGHT = Machine("n2", "eight", 128.0, 8.0)


def placed(seats: tuple[Seat, ...]) -> list[tuple[str, float, float]]:
    return [(seat.machine, seat.cpus, seat.gpus) for seat in seats]


def test_a_worker_is_no_larger_than_one_machine() -> None:
    assert placed(equal_seats([HEAD, GPU_BOX], 1, 1.0)) == [("n1", 2.0, 1.0)]
    assert placed(equal_seats([HEAD, GPU_BOX], 1, 0.0)) == [("n0", 2.0, 0.0)]
    assert equal_seats([HEAD, GPU_BOX], 1, 0.0, cpus=3) == ()


def test_where_gpus_are_used_a_machine_without_has_no_worker() -> None:
    assert count_room([HEAD, GPU_BOX, EIGHT], 1.0, "auto") == 9
    assert equal_seats([HEAD, GPU_BOX], 2, 1.0) == ()
    assert count_room([Machine("n", "half", 4.0, 0.5)], 1.0, "auto") == 0


def test_all_workers_are_as_large_as_the_smallest_must_be() -> None:
    assert placed(equal_seats([EIGHT], 8, 1.0)) == [("n2", 16.0, 1.0)] * 8
    nine = placed(equal_seats([GPU_BOX, EIGHT], 9, 1.0))
    assert nine == [("n2", 2.0, 1.0)] * 8 + [("n1", 2.0, 1.0)]
    assert {size for _, size, _ in placed(equal_seats([EIGHT], 3, 0.0))} == {42.0}


def test_workers_spread_where_that_makes_them_larger_and_else_sit_together() -> None:
    two = [HEAD, Machine("n3", "other", 2.0)]
    assert placed(equal_seats(two, 2, 0.0)) == [("n0", 2.0, 0.0), ("n3", 2.0, 0.0)]
    assert placed(equal_seats(two, 2, 0.0, cpus=1)) == [("n0", 1.0, 0.0)] * 2
    assert equal_seats(two, 5, 0.0) == ()


def test_workers_must_share_out_the_lanes() -> None:
    assert [largest_division(most, 12) for most in (0, 1, 5, 7, 100)] == [0, 1, 4, 6, 12]


def test_what_has_no_room_is_explained() -> None:
    said = explain([HEAD], (2, 4, 1.0))
    assert said.startswith("wanted: 2 workers with 4 processors and 1 GPU each")
    assert "There are: head with 2 processors and 0 GPUs free. Add machines" in said
    assert "launch.workers" in said
    assert explain([], ("auto", "auto", 0.0), ["gpu"]).endswith("no machine. On their way: gpu")
