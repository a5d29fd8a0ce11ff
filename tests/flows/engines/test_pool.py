"""The pool on a cluster of plain objects: every shard is done once, whatever dies."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.engines.clean_worker import CleanRecords
from flows.engines.engine import ShardDone, ShardFailed, ShardQuarantined, ShardResult
from flows.engines.pool import Event, Pool, TaskDone, WorkerLost, WorkerReady
from flows.engines.schedule import MAX_DEATHS
from shards.inputs.shard import InputShard
from shards.run.attempt import Ending, quarantine, read_attempts, start_attempt
from shards.run.commit import Counts
from shards.run.run import Run
from shards.store import Store

SHARDS = [InputShard(f"/web/{n}.tar", str(n), 10, mtime=0.0) for n in range(6)]


class DeathError(Exception):
    """What a worker dies of."""


class Cluster:
    """Workers in this process; a task is done when it is waited for, by `work(shard)`."""

    def __init__(self, run: Run, size: int, work: Callable[[InputShard], ShardResult]) -> None:
        self.run, self.size, self.work = run, size, work
        self.tasks: dict[str, deque[InputShard]] = {}
        self.events: deque[Event[ShardResult]] = deque()
        self.stuck = ""  # a shard at which its worker hangs, until that is ended
        self.slow: set[str] = set()  # workers that never get ready
        self.slow_starts = 0  # of the first ones
        self.counts = (0, 0)
        self.names: list[str] = []
        self.done_by: dict[str, str] = {}

    def grow(self, unfinished: int, name: Callable[[], str]) -> Iterator[str]:
        while len(self.tasks) < min(self.size, unfinished):
            worker = name()
            self.names.append(worker)
            self.tasks[worker] = deque()
            if len(self.names) <= self.slow_starts:
                self.slow.add(worker)
            else:
                self.events.append(WorkerReady(worker, "here", "cpu"))
            yield worker

    def submit(self, worker: str, shard: InputShard) -> None:
        assert worker not in self.slow
        self.tasks[worker].append(shard)

    def withdraw(self, worker: str) -> None:
        self.tasks[worker].pop()

    def wait(self, timeout_s: float) -> list[Event[ShardResult]]:
        if self.events:
            return [self.events.popleft()]
        for worker, tasks in list(self.tasks.items()):
            if not tasks or tasks[0].shard == self.stuck:
                continue
            start_attempt(self.run, tasks[0].shard, worker=worker)
            try:
                result = self.work(tasks[0])
            except DeathError as error:
                del self.tasks[worker]
                return [WorkerLost(worker, str(error))]
            self.done_by[tasks.popleft().shard] = worker
            return [TaskDone(worker, result)]
        time.sleep(min(timeout_s, 0.01))
        return []

    def progress(self, worker: str) -> tuple[int, int] | None:
        return self.counts if worker in self.tasks else None

    def end(self, worker: str) -> None:
        self.stuck = ""
        del self.tasks[worker]
        self.events.append(WorkerLost(worker, "ended"))


class Watch:
    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def under_way(self, samples: int, size_bytes: int) -> None:
        self.seen.append((samples, size_bytes))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Store(str(tmp_path / "run")), "", {}, {}, SHARDS)


def done(shard: InputShard) -> ShardResult:
    return ShardDone(shard, Counts(), damaged=False)


def pool_of(
    cluster: Cluster, stall_timeout_s: float = 60, stop: threading.Event | None = None
) -> Pool[InputShard, ShardResult]:
    records = CleanRecords(cluster.run)
    return Pool(cluster, records, stall_timeout_s, stop or threading.Event())


def dying(deaths: dict[str, int]) -> Callable[[InputShard], ShardResult]:
    """Work that kills its worker so many times on a shard."""

    def work(shard: InputShard) -> ShardResult:
        if deaths.get(shard.shard, 0):
            deaths[shard.shard] -= 1
            raise DeathError(f"killed at {shard.shard}")
        return done(shard)

    return work


def endings(run: Run, shard: str) -> list[Ending | None]:
    return [attempt.ending for attempt in read_attempts(run, shard)]


def test_every_shard_has_one_result(run: Run) -> None:
    cluster = Cluster(run, 2, done)
    results = list(pool_of(cluster).run(SHARDS, Watch()))
    assert sorted(result.shard.shard for result in results) == [s.shard for s in SHARDS]
    assert len(cluster.names) == 2


def test_no_more_workers_start_than_there_are_shards(run: Run) -> None:
    cluster = Cluster(run, 8, done)
    assert len(list(pool_of(cluster).run(SHARDS[:3], Watch()))) == 3
    assert len(cluster.names) == 3


def test_a_dead_worker_is_replaced_named_and_its_attempt_recorded(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(run, 2, dying({"0": 2, "4": 1}))
    results = list(pool_of(cluster).run(SHARDS, Watch()))
    assert all(isinstance(result, ShardDone) for result in results)
    assert len(results) == len(SHARDS)
    assert len(cluster.names) == 2 + 3
    assert endings(run, "0") == [Ending.DIED, Ending.DIED, None]
    assert read_attempts(run, "4")[0].detail == "killed at 4"
    assert caplog.messages.count("a worker on here is lost at shard 0: killed at 0") == 2
    fields = [vars(r)["fields"] for r in caplog.records if r.name == "flows.engines.pool"]
    assert {"event": "worker_lost", "worker": cluster.names[0], "host": "here"}.items() <= (
        fields[0].items()
    )
    assert sorted((lost["shard"], lost["why"]) for lost in fields) == [
        ("0", "killed at 0"),
        ("0", "killed at 0"),
        ("4", "killed at 4"),
    ]
    assert endings(run, "1") == [None]


def test_a_shard_that_kills_every_worker_fails_alone(run: Run) -> None:
    cluster = Cluster(run, 1, dying({"2": 1000}))
    results = list(pool_of(cluster).run(SHARDS, Watch()))
    (failed,) = [result for result in results if isinstance(result, ShardFailed)]
    assert failed.shard.shard == "2"
    assert f"died {MAX_DEATHS} times" in failed.why
    assert len(results) == len(SHARDS)


def test_a_worker_that_is_slow_to_start_keeps_no_shard_from_the_others(run: Run) -> None:
    cluster = Cluster(run, 2, done)
    cluster.slow_starts = 1
    assert len(list(pool_of(cluster).run(SHARDS, Watch()))) == len(SHARDS)
    assert set(cluster.done_by.values()) == {cluster.names[1]}


def test_an_idle_worker_takes_what_another_has_not_begun(run: Run) -> None:
    cluster = Cluster(run, 2, done)
    cluster.stuck = "0"  # whose worker holds another shard behind it
    results = pool_of(cluster).run(SHARDS, Watch())
    ended = {next(results).shard.shard for _ in SHARDS[1:]}
    assert ended == {shard.shard for shard in SHARDS[1:]}
    assert len(set(cluster.done_by.values())) == 1


def test_a_shard_that_another_driver_has_done_is_not_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.engines.pool.LOOK_UP_EVERY_S", 0.2)
    cluster = Cluster(run, 2, done)
    cluster.stuck = "3"
    results = pool_of(cluster).run(SHARDS, Watch())
    ended = [next(results) for _ in SHARDS[1:]]
    assert "3" not in {result.shard.shard for result in ended}
    quarantine(run, "3", [read_attempts(run, "0")[0]])  # by the other
    (last,) = results
    assert isinstance(last, ShardQuarantined)
    assert last.shard.shard == "3"


def test_the_report_says_who_did_how_much(run: Run) -> None:
    def work(shard: InputShard) -> ShardResult:
        return ShardDone(shard, Counts(samples_in=7, filtered=7), damaged=False)

    pool = pool_of(Cluster(run, 1, work))
    list(pool.run(SHARDS, Watch()))
    (report,) = pool.reports
    assert (report.host, report.device) == ("here", "cpu")
    assert (report.shards, report.samples) == (6, 42)
    assert report.samples_per_s > 0


def test_a_stalled_worker_is_ended_and_its_shard_done_by_another(run: Run) -> None:
    cluster = Cluster(run, 2, done)
    cluster.stuck = "1"
    results = list(pool_of(cluster, stall_timeout_s=0.1).run(SHARDS, Watch()))
    assert all(isinstance(result, ShardDone) for result in results)
    assert len(results) == len(SHARDS)
    assert set(cluster.done_by) == {shard.shard for shard in SHARDS}


def test_an_error_that_is_no_shards_fault_ends_the_run(run: Run) -> None:
    def broken(shard: InputShard) -> ShardResult:
        raise ZeroDivisionError(f"a bug at {shard.shard}")

    with pytest.raises(ZeroDivisionError):
        list(pool_of(Cluster(run, 2, broken)).run(SHARDS, Watch()))


def test_progress_is_told(run: Run) -> None:
    cluster, watch = Cluster(run, 2, done), Watch()
    cluster.counts = (3, 30)
    results = pool_of(cluster).run(SHARDS, watch)
    next(results)
    next(results)
    assert watch.seen[0] == (6, 60)


def test_a_pool_told_to_end_releases_what_it_holds(run: Run) -> None:
    stop = threading.Event()

    def work(shard: InputShard) -> ShardResult:
        stop.set()
        return done(shard)

    cluster = Cluster(run, 2, work)
    pool = pool_of(cluster, stop=stop)
    results: Iterator[ShardResult] = pool.run(SHARDS, Watch())
    next(results)
    with pytest.raises(SystemExit) as caught:
        next(results)
    assert caught.value.code == 143
    at_work = {name: tasks[0].shard for name, tasks in cluster.tasks.items() if tasks}
    for name, shard in at_work.items():
        start_attempt(run, shard, worker=name)
    pool.release()
    assert at_work
    assert all(endings(run, shard)[-1] is Ending.RELEASED for shard in at_work.values())
