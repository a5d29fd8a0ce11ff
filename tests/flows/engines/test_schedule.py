"""Who gets which shard, and what becomes of the shards of those that die."""

from flows.engines.schedule import MAX_DEATHS, Schedule
from shards.inputs.shard import InputShard


class Clock:
    """A time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shards(count: int) -> list[InputShard]:
    return [InputShard(f"/web/{n}.tar", str(n), 10) for n in range(count)]


def schedule(count: int, *workers: str, clock: Clock | None = None) -> Schedule[InputShard]:
    made = Schedule(shards(count), stall_timeout_s=60, clock=clock or Clock())
    for worker in workers:
        enter(made, worker)
    return made


def enter(plan: Schedule[InputShard], worker: str) -> None:
    """Take in a worker that has loaded its models."""
    plan.add(worker)
    plan.mark_ready(worker)


def assigned(plan: Schedule[InputShard]) -> list[tuple[str, str]]:
    return [(worker, shard.shard) for worker, shard in plan.assign()]


def held(plan: Schedule[InputShard]) -> dict[str, list[str]]:
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
    loss = plan.lose("a")
    assert [s.shard for s in loss.at_work] == ["2"]
    assert [s.shard for s in loss.waiting] == []
    loss = plan.lose("b")
    assert [s.shard for s in (*loss.at_work, *loss.waiting)] == ["1", "3"]
    assert not loss.deaths
    enter(plan, "c")
    enter(plan, "d")
    assert assigned(plan) == [("c", "1"), ("d", "3"), ("c", "2"), ("d", "4")]


def test_a_shard_that_costs_too_many_workers_fails_and_the_others_go_on() -> None:
    plan = schedule(3)
    deaths = []
    for _ in range(MAX_DEATHS):
        enter(plan, "w")
        list(plan.assign())
        loss = plan.lose("w")
        deaths.append(loss.deaths)
    assert deaths == [0] * (MAX_DEATHS - 1) + [MAX_DEATHS]
    assert [shard.shard for shard in loss.at_work] == ["0"]
    enter(plan, "w")
    assert [shard for _, shard in assigned(plan)] == ["1", "2"]


def test_a_worker_that_is_not_ready_gets_nothing_and_costs_no_shard_a_life() -> None:
    plan = schedule(1)
    for _ in range(2 * MAX_DEATHS):
        plan.add("w")
        assert assigned(plan) == []
        assert plan.lose("w").at_work == ()
    enter(plan, "w")
    assert assigned(plan) == [("w", "0")]


def test_an_idle_worker_takes_what_waits_at_the_one_that_holds_most() -> None:
    plan = schedule(4, "a", "b")
    plan.add("slow")
    list(plan.assign())
    plan.complete("b")
    assert list(plan.steal()) == []  # b has one of its own to do
    plan.complete("b")
    (stolen,) = plan.steal()
    assert stolen[:2] == ("a", "b")
    assert held(plan) == {"a": ["0"], "b": ["2"], "slow": []}
    assert list(plan.steal()) == []  # what is begun stays where it is
    plan.mark_ready("slow")
    assert list(plan.steal()) == []


def test_a_worker_whose_shard_another_has_done_leaves_the_rest() -> None:
    plan = schedule(3, "a")
    list(plan.assign())
    loss = plan.drop("a")
    assert [shard.shard for shard in loss.at_work] == ["0"]
    enter(plan, "b")
    assert assigned(plan) == [("b", "1"), ("b", "2")]
    assert plan.all_begun
    assert plan.unfinished == 2


def test_a_worker_that_finishes_no_sample_stalls() -> None:
    clock = Clock()
    plan = schedule(2, "a", clock=clock)
    list(plan.assign())
    clock.now += 60
    plan.progress("a", (1, 10))
    clock.now += 60
    plan.progress("a", (1, 10))
    assert plan.stalled() == []
    clock.now += 1
    assert plan.stalled() == ["a"]
    assert plan.stalled(after_s=62) == []
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
    plan.lose("a")
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
    plan.lose("b")
    assert plan.under_way == (0, 0)
