"""How runs are struck on the local engine: drivers killed, frozen and woken, two at once, on S3."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from shards.store import Store
from tests.support.chaos.drivers import Driver, kill
from tests.support.chaos.experiment import LOCAL, RunUnderFire, World, clean_command
from tests.support.chaos.record import RunRecord
from tests.support.chaos.tally import Tally
from tests.support.fault_proxy import Fault, Request, by_rates, fault_proxy
from tests.support.object_store import s3_server

TWO_AT_ONCE = 0.35
FROZEN = 0.5  # of the first of two
WOKEN_SOON = 0.4  # of the frozen; the others wake after the run's end
PAUSE_S = 0.4  # at most, between an attempt's begin and the blow: several shards, or a part of one
AIMED_PAUSE_S = 0.01  # the same behind the first data file
FAULTS = dict.fromkeys(
    (Fault.UNAVAILABLE, Fault.FAILED, Fault.RESET, Fault.DONE_RESET, Fault.DONE_FAILED), 0.005
) | {Fault.CONFLICT: 0.02, Fault.CUT: 0.005}  # each costs half a second of the client's patience


@dataclass(frozen=True)
class Limits:
    """When a run is struck no more: at so many blows in its tally, or (struck once) at a time."""

    blows: int
    deadline: float  # by time.monotonic

    def reached(self, run: RunUnderFire) -> bool:
        """Return whether it is enough; a run that is nearly done is no target either."""
        late = run.tally.blows > 0 and time.monotonic() >= self.deadline
        return late or run.tally.blows >= self.blows or run.pending <= 2


@dataclass(frozen=True)
class Setup:
    """Where runs of a kind take place, and by which command."""

    world: World
    folder: Path
    rng: random.Random
    tally: Tally
    command: tuple[str, ...]
    runs_url: str
    environment: dict[str, str] = field(default_factory=dict)  # of the drivers

    def run(self, number: int) -> RunUnderFire:
        """Begin a run in a folder of its own."""
        home, url = self.folder / f"run{number:03}", f"{self.runs_url}/{number:03}"
        record = RunRecord(url)
        self.tally.runs += 1
        self.tally.shards += self.world.shards
        return RunUnderFire(
            self.world, url, home, self.rng, self.tally, self.command, self.environment, record
        )


class Siege(Protocol):
    """A way to strike runs."""

    setup: Setup

    def besiege(self, run: RunUnderFire, limits: Limits) -> None:
        """Strike a run until it has had enough, then finish it."""


@dataclass
class DriverSiege:
    """SIGKILLs to drivers of the local engine, at random moments or (aimed) behind a data file."""

    setup: Setup
    aimed: bool = False
    _frozen: list[Driver] = field(default_factory=list)

    def besiege(self, run: RunUnderFire, limits: Limits) -> None:
        """Strike a run's drivers, one or two at once, until it has had enough."""
        self._frozen = []
        while not limits.reached(run):
            drivers = [run.start_driver(LOCAL)]
            if run.rng.random() < TWO_AT_ONCE:
                run.tally.pairs += 1
                drivers.insert(0, run.start_driver(LOCAL))
                if run.rng.random() < FROZEN and self._freeze(run, drivers[0]):
                    drivers = self._let_work(run, *drivers)
            for driver in drivers:
                self._strike(run, driver)
        run.conclude(LOCAL, frozen=self._frozen)

    def _freeze(self, run: RunUnderFire, driver: Driver) -> bool:
        """Stop a driver with an attempt open, if it can be caught."""
        if not run.await_open(driver, {driver.pid}):
            run.end(driver, {0})
            return False
        os.kill(driver.pid, signal.SIGSTOP)
        run.tally.frozen += 1
        return True

    def _let_work(self, run: RunUnderFire, frozen: Driver, other: Driver) -> list[Driver]:
        """Strike the other while one is frozen; return who is to be struck next."""
        self._strike(run, other)
        if run.rng.random() < WOKEN_SOON:
            os.kill(frozen.pid, signal.SIGCONT)
            return [frozen]
        self._frozen.append(frozen)
        return []

    def _strike(self, run: RunUnderFire, driver: Driver) -> None:
        if not run.await_open(driver, {driver.pid}, published=self.aimed):
            run.end(driver, {0})
            return
        time.sleep(run.rng.uniform(0, AIMED_PAUSE_S if self.aimed else PAUSE_S))
        run.strike(lambda: kill(driver.pid), {driver.pid})
        run.end(driver, {-signal.SIGKILL, 0})


@contextmanager
def s3_siege(setup: Setup) -> Iterator[DriverSiege]:
    """Serve the input and the runs on S3; drivers reach it through a proxy of faults only."""
    with s3_server() as bucket:
        web, endpoint = Store(f"{bucket}/web"), os.environ["AWS_ENDPOINT_URL"]
        for path in sorted(Path(setup.world.folder).glob("*.tar")):
            web.put(path.name, path.read_bytes())
        by_chance = by_rates(FAULTS, seed=setup.rng.randrange(10**6))

        def choose(request: Request) -> Fault | None:
            fault = by_chance(request)  # no S3 answers a GET with 409
            return None if fault == Fault.CONFLICT and request.method != "PUT" else fault

        with fault_proxy(endpoint, choose) as proxy:
            environment = {name: os.environ[name] for name in os.environ if "AWS" in name}
            environment["AWS_ENDPOINT_URL"] = proxy.endpoint
            command = clean_command(f"{bucket}/web")
            setup = replace(
                setup, command=command, runs_url=f"{bucket}/runs", environment=environment
            )
            yield DriverSiege(setup)
            setup.tally.faults += proxy.injected.total()
