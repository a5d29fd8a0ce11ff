"""What becomes of actors that start, work, fail and die, on a Ray of this machine."""

from __future__ import annotations  # what travels by value takes no types along

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
from ray import cloudpickle
from ray.exceptions import RayTaskError

from flows.engines.engine import EngineError
from flows.engines.job import Grant
from flows.engines.placement import Machine, Wish
from flows.engines.pool import Event, Pool, TaskDone, WorkerLost, WorkerReady
from flows.engines.ray.nodes import MAX_BAD_STARTS, RayNodes
from flows.engines.ray.pool import RayCluster, cause_of, gist, wish_of
from flows.engines.ray.session import ray_session
from flows.engines.start_checks import Demands, MachineUnfit, Requirements, requirements
from flows.recipe import EngineConfig
from pipeline.clean.line.attempt import AttemptLost
from shards.errors import UsageError
from shards.run.attempt import Ending
from tests.support.driving import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Piece(NamedTuple):
    """A shard of the jobs below."""

    shard: str


PIECES = [Piece("0"), Piece("1")]
SHORT_OF_MEMORY = """
import sys
from flows.engines.placement import Wish
from flows.engines.ray.nodes import RayNodes
from flows.engines.ray.pool import RayCluster
from flows.engines.ray.session import ray_session
from flows.engines.start_checks import Demands, requirements

with requirements(Demands(sys.argv[1], (), 0, 0), ()) as checks, ray_session(None):
    cluster = RayCluster(object(), checks, RayNodes(Wish(1, 0.0, 0), 60.0, grows=False))
    list(cluster.grow(1, lambda: "w0"))
    while not (events := cluster.wait(1.0)):
        pass
    print("ended in", type(events[0]).__name__, file=sys.stderr, flush=True)
"""


class Made:
    """A job whose workers do as a test says; it travels to them by value."""

    def __init__(
        self,
        process: Callable[[Piece], str] = lambda piece: piece.shard.upper(),
        on_open: Callable[[], None] = lambda: None,
        count: Callable[[], tuple[int, int]] = lambda: (3, 30),
    ) -> None:
        self._process, self._on_open, self._count = process, on_open, count

    def open(self, grant: Grant) -> Any:
        self._on_open()
        process, count = self._process, self._count

        class Worker:
            samples, device, expect = 3, f"cpu for {grant.gpus:g} GPUs", print

            @property
            def counts(self) -> tuple[int, int]:
                return count()

            def process(self, piece: Piece) -> str:
                return process(piece)

        return Worker()


class Held:
    """An actor of another job."""

    def ping(self) -> None:
        """Answer once it is placed."""


class Written:
    """The driver's records, in memory."""

    def __init__(self) -> None:
        self.endings: list[tuple[str, Ending, str]] = []

    def ended(self, piece: Piece, _worker: str, ending: Ending, why: str = "") -> None:
        self.endings.append((piece.shard, ending, why))

    def look_up(self, _piece: Piece) -> str | None:
        return None

    def failed(self, piece: Piece, why: str) -> str:
        return f"{piece.shard} failed: {why}"

    def samples(self, _result: str) -> int:
        return 1


class Watch:
    seen: tuple[int, int] = (0, 0)

    def under_way(self, samples: int, size_bytes: int) -> None:
        self.seen = max(self.seen, (samples, size_bytes))


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """Run one Ray for all; jobs and exceptions of this file travel by value."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ray_session(None):
        yield


@pytest.fixture
def checks(tmp_path: Path) -> Iterator[Requirements]:
    with requirements(Demands(str(tmp_path), ())) as needed:
        yield needed


MakeCluster = Callable[..., "RayCluster[Piece, str]"]


@pytest.fixture
def cluster_of(checks: Requirements) -> Iterator[MakeCluster]:
    """Make clusters of one worker, whose actors end with the test."""
    made: list[RayCluster[Piece, str]] = []

    def make(job: Made, workers: int = 1) -> RayCluster[Piece, str]:
        nodes = RayNodes(Wish(workers, 0.0, 0), 60.0, grows=False)
        made.append(RayCluster(job, checks, nodes))
        return made[-1]

    yield make
    for cluster in made:
        cluster.end_all()
        cluster._nodes.close()  # before Ray ends, which is no loss


def run(cluster: RayCluster[Piece, str], watch: Watch | None = None) -> tuple[list[str], Written]:
    """Do all pieces."""
    records = Written()
    pool = Pool(cluster, records, 60.0, threading.Event())
    return sorted(pool.run(PIECES, watch or Watch())), records


def next_event(cluster: RayCluster[Piece, str]) -> Event[str]:
    while True:
        if events := cluster.wait(1.0):
            return events[0]


def test_each_shard_is_done_by_an_actor_that_says_where_it_works(cluster_of: MakeCluster) -> None:
    cluster = cluster_of(Made())
    (worker,) = cluster.grow(2, lambda: "w1")
    ready = next_event(cluster)
    assert isinstance(ready, WorkerReady)
    assert (ready.worker, ready.device) == ("w1", "cpu for 0 GPUs")
    assert "pid" in ready.log
    for piece in PIECES:
        cluster.submit(worker, piece)
    assert [next_event(cluster), next_event(cluster)] == [TaskDone("w1", "0"), TaskDone("w1", "1")]


@pytest.mark.parametrize("unfit", [MachineUnfit("its disk is full"), UsageError("no such weights")])
def test_a_machine_on_which_no_worker_can_start_is_left_out_and_named(
    unfit: Exception, cluster_of: MakeCluster, tmp_path: Path
) -> None:
    def refuse() -> None:
        with (tmp_path / "starts").open("a") as starts:
            starts.write("x")
        raise unfit

    with pytest.raises(EngineError, match=r"no machine is left.*" + str(unfit)):
        run(cluster_of(Made(on_open=refuse)))
    assert (tmp_path / "starts").read_text() == "x"


def test_a_start_that_fails_is_tried_again_while_that_may_help(
    cluster_of: MakeCluster, tmp_path: Path
) -> None:
    def stumble() -> None:
        with (tmp_path / "starts").open("a") as starts:
            starts.write("x")
        if (tmp_path / "starts").stat().st_size < MAX_BAD_STARTS:
            raise ConnectionResetError("by the store")

    results, _ = run(cluster_of(Made(on_open=stumble)))
    assert results == ["0", "1"]
    assert (tmp_path / "starts").stat().st_size == MAX_BAD_STARTS


def test_a_start_that_goes_on_failing_leaves_the_machine_out(cluster_of: MakeCluster) -> None:
    def stumble() -> None:
        raise ConnectionResetError("by the store")

    with pytest.raises(EngineError, match=r"in a row could not start: ConnectionResetError"):
        run(cluster_of(Made(on_open=stumble)))


def test_a_start_that_kills_its_process_counts_as_failed(cluster_of: MakeCluster) -> None:
    with pytest.raises(EngineError, match=r"in a row could not start: .*died"):
        run(cluster_of(Made(on_open=lambda: os._exit(1))))


def test_a_worker_that_rays_memory_monitor_kills_is_lost(
    loopback_only: list[str], tmp_path: Path
) -> None:
    """Ray raises for it what is no RayActorError."""
    out = tmp_path / "out.txt"
    environment = os.environ | {
        "RAY_memory_usage_threshold": "0.0001",
        "RAY_memory_monitor_refresh_ms": "100",
    }
    with out.open("wb") as file:  # daemons would hold a pipe open
        command = [*loopback_only, sys.executable, "-c", SHORT_OF_MEMORY, str(tmp_path)]
        subprocess.run(command, stdout=file, stderr=file, env=environment, timeout=100)
    assert "ended in WorkerLost" in out.read_text()


def test_a_bug_at_a_start_is_raised_as_it_is(cluster_of: MakeCluster) -> None:
    def fail() -> None:
        raise ZeroDivisionError("at the start")

    with pytest.raises(ZeroDivisionError, match="at the start"):
        run(cluster_of(Made(on_open=fail)))


def test_a_bug_at_a_shard_is_raised_as_it_is(cluster_of: MakeCluster) -> None:
    def fail(piece: Piece) -> str:
        raise ZeroDivisionError(f"at {piece.shard}")

    with pytest.raises(ZeroDivisionError, match="at 0"):
        run(cluster_of(Made(fail)))


@pytest.mark.parametrize(("lost", "why"), [(True, "0: hung"), (False, "died")])
def test_a_lost_attempt_is_recorded_and_done_by_another_actor(
    lost: bool, why: str, cluster_of: MakeCluster, tmp_path: Path
) -> None:
    def process(piece: Piece) -> str:
        first = not (tmp_path / piece.shard).exists()
        (tmp_path / piece.shard).write_text("")
        if first and piece.shard == "0":
            if lost:
                raise AttemptLost("0: hung")
            os._exit(1)
        return f"{piece.shard} by {os.getpid()}"

    results, records = run(cluster_of(Made(process)))
    assert [result[0] for result in results] == ["0", "1"]
    died, *ahead = [ending for ending in records.endings if ending[1] is Ending.DIED]
    assert (died[0], why in died[2]) == ("0", True)
    assert [shard for shard, *_ in ahead] in ([], ["1"])  # begun ahead, if it waited


def test_warnings_and_progress_of_an_actor_reach_the_driver(
    cluster_of: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    def process(piece: Piece) -> str:
        logging.getLogger("pipeline.made").warning("strange thing in %s", piece.shard)
        time.sleep(2.5)  # longer than the pool takes to ask
        return piece.shard

    watch = Watch()
    run(cluster_of(Made(process)), watch)
    assert watch.seen == (3, 30)
    assert "pipeline.made: strange thing in 0" in caplog.text


def test_a_bug_in_what_an_actor_tells_of_itself_is_raised_as_it_is(
    cluster_of: MakeCluster,
) -> None:
    def fail() -> tuple[int, int]:
        raise ZeroDivisionError("counting")

    def process(piece: Piece) -> str:
        time.sleep(2.5)
        return piece.shard

    with pytest.raises(ZeroDivisionError, match="counting"):
        run(cluster_of(Made(process, count=fail)))


def test_an_actor_that_dies_while_idle_is_noticed(cluster_of: MakeCluster) -> None:
    def process(piece: Piece) -> str:
        threading.Timer(0.5, os._exit, (1,)).start()
        return piece.shard

    cluster = cluster_of(Made(process))
    list(cluster.grow(1, lambda: "w1"))
    assert isinstance(next_event(cluster), WorkerReady)
    cluster.submit("w1", PIECES[0])
    assert next_event(cluster) == TaskDone("w1", "0")
    cluster.progress("w1")
    time.sleep(1)
    cluster.progress("w1")  # asked of nobody
    lost = next_event(cluster)
    assert isinstance(lost, WorkerLost)
    assert "while idle" in lost.why


def test_a_shard_withdrawn_is_not_done(cluster_of: MakeCluster, tmp_path: Path) -> None:
    def process(piece: Piece) -> str:
        (tmp_path / piece.shard).write_text("")
        time.sleep(1)
        return piece.shard

    cluster = cluster_of(Made(process))
    list(cluster.grow(2, lambda: "w1"))
    next_event(cluster)
    for piece in PIECES:
        cluster.submit("w1", piece)
    wait_until((tmp_path / "0").exists)  # or the order to cancel might overtake its task
    cluster.withdraw("w1")
    assert next_event(cluster) == TaskDone("w1", "0")
    assert cluster.wait(2.0) == []
    assert not (tmp_path / "1").exists()


def test_a_machine_that_is_gone_before_its_worker_is_placed_is_not_called_unfit(
    cluster_of: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = cluster_of(Made())
    nodes = cluster._nodes
    nodes._machines = (Machine("ab" * 28, "gone", 2.0),)  # as of the last look
    nodes._looked_at = time.monotonic()
    (first,) = cluster.grow(2, lambda: "w1")
    lost = next_event(cluster)
    assert isinstance(lost, WorkerLost)
    assert lost.worker == first
    assert list(cluster.grow(2, lambda: "w2")) == []  # not at once again
    assert run(cluster)[0] == ["0", "1"]
    assert "left out" not in caplog.text
    assert "gone is lost" in caplog.text


def test_an_actor_that_ray_does_not_place_is_given_up(
    cluster_of: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ray.remote(num_cpus=ray.cluster_resources()["CPU"])(Held).remote()
    ray.get(other.ping.remote())
    monkeypatch.setattr("flows.engines.ray.pool.PLACED_WITHIN_S", 1.0)
    cluster = cluster_of(Made())
    list(cluster.grow(1, lambda: "w1"))
    lost = next_event(cluster)
    assert isinstance(lost, WorkerLost)
    assert "did not place it" in lost.why
    monkeypatch.undo()
    ray.kill(other)
    assert run(cluster)[0] == ["0", "1"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("The actor died.\n\tclass_name: PoolActor\n\tpid: 7\n", "The actor died."),
        (
            "The actor died because of an error raised in its creation task, ray::PoolActor.\n"
            "RuntimeError: it failed to import\n\nModuleNotFoundError: No module named 'av'\n",
            "ModuleNotFoundError: No module named 'av'; install the same capfilt on every machine",
        ),
        ("", "RuntimeError"),
    ],
)
def test_one_line_of_what_ray_says_tells_why(text: str, line: str) -> None:
    assert gist(RuntimeError(text)) == line


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
