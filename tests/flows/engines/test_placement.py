"""How many workers of which size the machines of a cluster hold."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.engines.placement import Machine, Seat, Wish, explain, free_seats, seats

MANY = 1000
GIB = 2**30


def machines(*sizes: tuple[float, float]) -> list[Machine]:
    return [Machine(f"n{n}", f"host{n}", cpus, gpus) for n, (cpus, gpus) in enumerate(sizes)]


def sizes(found: list[Seat]) -> dict[str, list[tuple[float, float]]]:
    by_host: dict[str, list[tuple[float, float]]] = {}
    for seat in found:
        by_host.setdefault(seat.host, []).append((seat.cpus, seat.gpus))
    return by_host


@pytest.mark.parametrize(
    ("cluster", "wish", "expected"),
    [
        # a head without a GPU, and a worker with one: never the sum of both
        ([(2, 0), (2, 1)], Wish(), {"host1": [(2, 1)]}),
        ([(128, 8)], Wish(), {"host0": [(16, 1)] * 8}),
        ([(16, 0)], Wish(), {"host0": [(2, 0)] * 8}),
        ([(1, 0)], Wish(), {"host0": [(1, 0)]}),
        ([(4, 0), (8, 0)], Wish(), {"host0": [(2, 0)] * 2, "host1": [(2, 0)] * 4}),
        ([(64, 8), (4, 1)], Wish(), {"host0": [(8, 1)] * 8, "host1": [(4, 1)]}),
        ([(2, 0), (8, 2)], Wish(gpus=0.5), {"host1": [(2, 0.5)] * 4}),
        ([(8, 2)], Wish(gpus=0.75), {"host0": [(4, 0.75)] * 2}),  # no two share a GPU
        ([(8, 4)], Wish(gpus=2), {"host0": [(4, 2)] * 2}),
        ([(2, 0), (2, 1)], Wish(gpus=0), {"host0": [(2, 0)], "host1": [(2, 0)]}),
        ([(2, 0)], Wish(workers=3), {"host0": [(0.6666, 0)] * 3}),
        ([(4, 0), (2, 0)], Wish(workers=3), {"host0": [(2, 0)] * 2, "host1": [(2, 0)]}),
        ([(8, 8)], Wish(workers=2), {"host0": [(4, 1)] * 2}),
        ([(2, 1)], Wish(workers=2), {"host0": [(2, 1)]}),
        ([(2, 0)], Wish(gpus=1), {}),
        ([(2, 1)], Wish(gpus=8), {}),
        ([(0, 1), (2, 0)], Wish(), {}),
        ([], Wish(), {}),
    ],
)
def test_workers_are_sized_by_the_machine_that_holds_them(
    cluster: list[tuple[float, float]],
    wish: Wish,
    expected: dict[str, list[tuple[float, float]]],
) -> None:
    assert sizes(seats(machines(*cluster), wish, MANY)) == expected


def test_there_are_no_more_workers_than_shards_and_they_spread() -> None:
    assert sizes(seats(machines((8, 4), (8, 4)), Wish(), 2)) == {
        "host0": [(8, 1)],
        "host1": [(8, 1)],
    }
    assert seats(machines((8, 4)), Wish(), 0) == []


def test_memory_bounds_the_workers_of_a_machine_but_leaves_it_one() -> None:
    small = [Machine("a", "a", 64, 0, 10 * GIB), Machine("b", "b", 64, 0, 1 * GIB)]
    held = Counter(seat.host for seat in seats(small, Wish(worker_bytes=3 * GIB), MANY))
    assert held == {"a": 3, "b": 1}
    gpus = [Machine("a", "a", 64, 8, 10 * GIB)]
    assert len(seats(gpus, Wish(worker_bytes=3 * GIB), MANY)) == 3


def test_a_seat_that_is_free_is_no_larger_than_what_is_left() -> None:
    (machine,) = machines((4, 0))
    taken = [Seat(machine.id, machine.host, 1.0, 0.0)]
    assert list(free_seats([machine], Wish(), MANY, taken)) == [Seat("n0", "host0", 2.0, 0.0)]
    taken = [Seat(machine.id, machine.host, 3.0, 0.0)]
    assert list(free_seats([machine], Wish(), MANY, taken)) == [Seat("n0", "host0", 1.0, 0.0)]
    # as when a machine is lost, and the others already give all that they have
    taken = [Seat(machine.id, machine.host, 2.0, 0.0)] * 2
    assert list(free_seats([machine], Wish(workers=4), MANY, taken)) == []
    gone = [Seat("n7", "host7", 2.0, 0.0)] * 2
    assert len(list(free_seats([machine], Wish(), MANY, gone))) == 2


@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(0, 8)), max_size=5),
    st.sampled_from(["auto", 1, 3, 20]),
    st.sampled_from(["auto", 0, 0.25, 0.4, 1, 2]),
    st.integers(0, 40),
)
def test_no_machine_is_asked_for_more_than_it_has(
    cluster: list[tuple[float, float]], workers: int, gpus: float, most: int
) -> None:
    there, wish = machines(*cluster), Wish(workers, gpus)
    found = seats(there, wish, most)
    assert len(found) <= most
    for machine in there:
        ours = [seat for seat in found if seat.machine == machine.id]
        assert math.fsum(seat.cpus for seat in ours) <= machine.cpus
        assert math.fsum(seat.gpus for seat in ours) <= machine.gpus + 1e-9
        assert all(seat.cpus > 0 for seat in ours)
    if most and any(m.cpus and m.gpus >= 2 for m in there):
        assert found  # whatever is asked for here fits on two GPUs


def test_what_is_wanted_what_there_is_and_what_to_do_is_said() -> None:
    said = explain(machines((2, 0), (4, 1)), Wish(gpus=2))
    assert "wanted: a worker with 2 GPUs and a processor each" in said
    assert "host0 with 2 processors and 0 GPUs free; host1 with 4 processors and 1 GPU free" in said
    assert "set engine.gpus_per_actor" in said
    said = explain(machines((0, 0)), Wish(workers=3, gpus=0), ["gpu-node"])
    assert "3 workers with a processor each" in said
    assert said.endswith("On their way: gpu-node")
