"""Kinds of cluster, as a table: each starts, uses what it should, and ends; none waits in silence.

All machines are this one, and their GPUs pretended (`engine.device: cpu`): a worker needs one and
does not touch it.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.run.attempt import read_attempts
from shards.run.run import Run
from tests.support.cluster import Machines, ray_machines
from tests.support.driving import Command, Models, wait_until

pytestmark = pytest.mark.slow

SHARDS, MORE = 4, 24  # so many take long enough to see machines come and go
TOLD_WITHIN_S = 30


@dataclass(frozen=True)
class Case:
    """A cluster, what is asked of it, what happens to it, and how many workers each machine had.

    `happens`: what the command must have said first, or how many workers must be at work, and what
    is then done. No `used`: it depends on who starts first.
    """

    name: str
    head: str
    others: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    used: tuple[int, ...] = ()
    says: tuple[str, ...] = ()
    happens: tuple[tuple[str, str], ...] = ()
    before: str = ""
    shards: int = SHARDS


CASES = (
    Case("usual", "2/0", ("2/1",), used=(0, 1)),
    Case("GPUs unused", "2/0", ("2/1",), ("gpus_per_actor=0",), (1, 1), shards=MORE),
    Case(
        "more asked than fit",
        "2/0",
        ("2/1",),
        ("actors=3", "gpus_per_actor=1"),
        (0, 1),
        says=("1 worker runs; wanted: 3 workers with 1 GPU", "2 processors and 1 GPU free"),
    ),
    Case(
        "two GPUs, on no machine",
        "2/0",
        ("2/1",),
        ("gpus_per_actor=2",),
        (0, 0, 1),
        says=("has joined",),
        happens=(("wanted: a worker with 2 GPUs", "add 2/2"),),
    ),
    Case("three on two", "2/0", ("1/0",), ("actors=3",), (2, 1), shards=MORE),
    Case("unequal", "2/0", ("8/4", "2/1"), used=(0, 4, 1), shards=MORE),
    Case(
        "grows",
        "2/0",
        used=(1, 1, 1),
        says=("has joined",),
        happens=(("1 at work", "add 2/0"), ("has joined", "add 2/0")),
        shards=MORE,
    ),
    Case(
        "shrinks",
        "2/0",
        ("2/0", "2/0"),
        used=(1, 1, 1),
        says=("is lost; others do what it was at",),
        happens=(("3 at work", "remove 1"),),
        shards=MORE,
    ),
    Case(
        "held by another job",
        "2/0",
        used=(1,),
        happens=(("waiting for machines; wanted: a worker with a processor each", "free"),),
        before="hold 2",
    ),
    Case("processors only", "4/0", ("2/0",), used=(2, 1), shards=MORE),
    Case("half a GPU each", "4/2", (), ("gpus_per_actor=0.5",), (4,), shards=MORE),
    Case(
        "fewer shards than workers",
        "4/2",
        (),
        ("gpus_per_actor=0.5",),
        says=("3 shards for 4 workers: 1 idle",),
        shards=3,
    ),
    Case("empty head", "0/0", ("4/2", "4/2"), used=(0, 2, 2), shards=MORE),
)


@dataclass
class Clusters:
    """One cluster at a time, kept from case to case as long as the head is of the same size."""

    loopback: list[str]
    folder: Path
    _size: str = ""
    _started: int = 0
    _stack: ExitStack = field(default_factory=ExitStack)
    _machines: Machines | None = None

    def with_head(self, size: str) -> Machines:
        """Return a cluster of a head alone."""
        if self._machines is None or size != self._size:
            self.close()
            home = self.folder / f"{self._started}-{size.replace('/', '-')}"
            home.mkdir()
            self._size = size
            self._started += 1
            self._machines = self._stack.enter_context(ray_machines(self.loopback, home, size))
        return self._machines

    def close(self) -> None:
        """End the cluster."""
        self._machines = None
        self._stack.close()


@pytest.fixture(scope="module")
def clusters(
    loopback_only: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Clusters]:
    made = Clusters(loopback_only, tmp_path_factory.mktemp("clusters"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Toy worlds of so many shards."""
    folder = tmp_path_factory.mktemp("worlds")

    def make(shards: int) -> Path:
        world, each = folder / str(shards), 4
        if not world.exists():
            write_toy_world(world, ToyWorldConfig(samples=shards * each, samples_per_shard=each))
        return world

    return make


def happen(machines: Machines, what: str) -> None:
    """Do to a cluster what a case says."""
    do, _, with_ = what.partition(" ")
    if do == "add":
        cpus, gpus = with_.split("/")
        machines.add(int(cpus), int(gpus))
    elif do == "hold":
        machines.hold(0, int(with_))
    elif do == "free":
        machines.free()
    else:
        getattr(machines, do)(int(with_))


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=() if case.name == "usual" else pytest.mark.nightly)
        for case in CASES
    ],
)
def test_it_starts_uses_what_it_should_and_ends(
    case: Case,
    clusters: Clusters,
    worlds: Callable[[int], Path],
    toy_models: Models,
    flags: Callable[[Models, Path, Path], list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machines, run = clusters.with_head(case.head), tmp_path / "run"
    for size in case.others:
        happen(machines, f"add {size}")
    if case.before:
        happen(machines, case.before)
    command = Command(machines.prefix, tmp_path)
    settings = ["device=cpu", *case.settings]
    began = time.monotonic()
    process = command.start(
        *flags(toy_models, worlds(case.shards), run),
        *(f"--set=engine.{setting}" for setting in settings),
        *("--direct", "--json", f"--address={machines.address}"),
    )
    try:
        for when, what in case.happens:
            wait_for(command, run, when)
            happen(machines, what)
        done = command.wait(process)
        assert done.returncode == 0, done.stderr
        used = machines.users(json.loads(done.stdout)["workers"])
    finally:
        process.kill()
        machines.remove_others()
    with capsys.disabled():
        seconds = time.monotonic() - began
        sizes = " + ".join((case.head, *case.others))
        asked = ", ".join(case.settings) or "-"
        row = f"\n{case.name:24} {sizes:20} {asked:28} used {used} in {seconds:.0f} s "
        sys.stdout.write(row)
    assert used == list(case.used) or (not case.used and 0 < sum(used) <= case.shards)
    for text in case.says:
        assert text in joined(done.stderr)


def wait_for(command: Command, run: Path, when: str) -> None:
    """Wait for so many workers to be at work, or for a line of the command's, in time."""
    number, _, what = when.partition(" ")
    if what == "at work":
        return wait_until(lambda: len(at_work(run)) >= int(number))
    wait_until(lambda: "shards to clean" in command.told())
    return wait_until(lambda: when in joined(command.told()), TOLD_WITHIN_S)


def at_work(run: Path) -> set[str | None]:
    """Name the workers that have begun a shard."""
    if not (run / "attempts").exists():  # the run is whole before
        return set()
    opened = Run.open(str(run))
    return {a.worker for shard in opened.inputs for a in read_attempts(opened, shard.shard)}


def joined(text: str) -> str:
    """Undo the breaking of lines."""
    return " ".join(text.split())
