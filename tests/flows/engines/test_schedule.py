"""Who gets which shard, and what becomes of the shards of those that die."""

import pytest

from flows.engines.engine import EngineError
from flows.engines.schedule import MAX_BAD_STARTS, MAX_DEATHS, Schedule
from shards.inputs.listing import InputShard


class Clock:
    """A time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shards(count: int) -> list[InputShard]:
    return [InputShard(f"/web/{n}.tar", str(n), 10) for n in range(count)]


def schedule(count: int, *workers: str, clock: Clock | None = None) -> Schedule:
    made = Schedule(shards(count), stall_timeout_s=60, clock=clock or Clock())
    for worker in workers:
        made.add(worker)
    return made


def assigned(plan: Schedule) -> list[tuple[str, str]]:
    return [(worker, shard.shard) for worker, shard in plan.assign()]


def held(plan: Schedule) -> dict[str, list[str]]:
    return {name: [s.shard for s in worker.shards] for name, worker in plan.workers.items()}


def test_each_worker_gets_one_shard_before_any_gets_its_second() -> None:
    plan = schedule(5, "a", "b")
    assert assigned(plan) == [("a", "0"), ("b", "1"), ("a", "2"), ("b", "3")]
    assert assigned(plan) == []
    plan.complete("b")
    assert assigned(plan) == [("b", "4")]


def test_a_schedule_ends_when_every_shard_is_done() -> None:
    plan = schedule(3, "a", "b")
    done = 0
    while plan.unfinished:
        list(plan.assign())
        plan.complete(next(name for name, worker in plan.workers.items() if worker.shards))
        done += 1
    assert done == 3
    assert not schedule(0, "a").unfinished


def test_shards_of_a_lost_worker_come_first_in_their_order() -> None:
    plan = schedule(6, "a", "b")
    list(plan.assign())
    plan.complete("a")
    loss = plan.lose("a", "killed")
    assert [s.shard for s in loss.at_work] == ["2"]
    assert [s.shard for s in loss.waiting] == []
    loss = plan.lose("b", "killed", ready=True)
    assert [s.shard for s in (*loss.at_work, *loss.waiting)] == ["1", "3"]
    assert loss.failure is None
    plan.add("c")
    plan.add("d")
    assert assigned(plan) == [("c", "1"), ("d", "3"), ("c", "2"), ("d", "4")]


def test_a_shard_that_costs_too_many_workers_fails_and_the_others_go_on() -> None:
    plan = schedule(3)
    for death in range(1, MAX_DEATHS + 1):
        plan.add("w")
        list(plan.assign())
        loss = plan.lose("w", f"death {death}", ready=True)
        assert (loss.failure is None) == (death < MAX_DEATHS)
    assert loss.failure is not None
    assert loss.failure.shard.shard == "0"
    assert loss.failure.why == f"its worker died {MAX_DEATHS} times; the last: death {MAX_DEATHS}"
    plan.add("w")
    assert [shard for _, shard in assigned(plan)] == ["1", "2"]


def test_deaths_before_a_worker_is_ready_are_not_the_shards_fault() -> None:
    plan = schedule(1)
    failures = []
    for ready in [*[True] * (MAX_DEATHS - 1), False, False, True]:
        plan.add("w")
        list(plan.assign())
        failures.append(plan.lose("w", "out of memory", ready).failure)
    assert [failure is not None for failure in failures] == [False] * (MAX_DEATHS + 1) + [True]


def test_workers_that_cannot_start_end_the_pool() -> None:
    plan = schedule(2)
    for _ in range(MAX_BAD_STARTS - 1):
        plan.add("w")
        list(plan.assign())
        plan.lose("w", "no such module")
    plan.add("w")
    list(plan.assign())
    with pytest.raises(EngineError, match="3 Ray actors in a row could not start: no such module"):
        plan.lose("w", "no such module")
    assert held(plan) == {"w": ["0", "1"]}  # for the record of what is released


def test_a_result_between_bad_starts_forgives_them() -> None:
    plan = schedule(9, "good")
    for _ in range(2 * MAX_BAD_STARTS):
        plan.add("bad")
        list(plan.assign())
        plan.lose("bad", "no such module")
        plan.complete("good")


def test_a_worker_that_finishes_no_sample_stalls() -> None:
    clock = Clock()
    plan = schedule(2, "a", clock=clock)
    list(plan.assign())
    clock.now += 1000
    assert plan.stalled() == []  # still loading its models
    plan.progress("a", (0, 0))
    clock.now += 60
    plan.progress("a", (1, 10))
    clock.now += 60
    plan.progress("a", (1, 10))
    assert plan.stalled() == []
    clock.now += 1
    assert plan.stalled() == ["a"]
    plan.complete("a")
    assert plan.stalled() == []


def test_a_worker_that_had_nothing_to_do_has_not_stalled() -> None:
    clock = Clock()
    plan = schedule(2, "a", "b", clock=clock)
    list(plan.assign())
    plan.progress("a", (0, 0))
    plan.complete("b")
    clock.now += 1000
    plan.progress("a", (3, 30))
    plan.lose("a", "killed")
    assert assigned(plan) == [("b", "0")]
    assert plan.stalled() == []


def test_progress_sums_the_shards_at_work() -> None:
    plan = schedule(4, "a", "b")
    list(plan.assign())
    plan.progress("a", (3, 300))
    plan.progress("b", (2, 250))
    assert plan.under_way == (5, 550)
    plan.complete("a")
    assert plan.under_way == (2, 250)
    plan.lose("b", "killed")
    assert plan.under_way == (0, 0)
