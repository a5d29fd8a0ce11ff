"""A run under fire: drivers are started on it and struck, then it is finished and judged."""

import os
import random
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.run.attempt import read_quarantined
from shards.run.run import Run
from shards.run.verify.run import verify_run
from tests.support.chaos.drivers import Driver, kill
from tests.support.chaos.record import OpenAttempt, RunRecord
from tests.support.chaos.tally import Tally
from tests.support.chaos.verdict import Tables, compare, read_tables

POLL_S = 0.002
POLL_STORE_S = 0.1  # a store has its own work to do
STALL_S = 120.0  # without a new attempt or commit: the run hangs
FINISH_S = 600.0


@dataclass(frozen=True)
class World:
    """Toy shards, the command that cleans them, and what an unbroken run makes of them."""

    folder: Path
    shards: int
    command: tuple[str, ...]
    unbroken: Tables

    @classmethod
    def make(cls, folder: Path, shards: int, pictures: int) -> "World":
        """Write the shards, and clean them once without a blow."""
        world = folder / "world"
        sizes = {"samples": shards * pictures, "samples_per_shard": pictures}
        write_toy_world(world, ToyWorldConfig.model_validate(sizes))
        command = clean_command(str(world))
        driver = Driver([*command, f"--output={folder / 'unbroken'}", LOCAL], folder / "home")
        if driver.wait(FINISH_S) != 0:
            raise RuntimeError(f"the unbroken run failed: {driver.complaints()}")
        return cls(world, shards, command, read_tables(str(folder / "unbroken")))


LOCAL = "--engine=local"


def clean_command(world: str) -> tuple[str, ...]:
    """Return the command that cleans some shards with the shipped tiny models, in fp32."""
    models = ("--captioner=tiny-captioner", "--filter=tiny-filter")
    return ("clean", f"--input={world}", *models, "--set=dtype=fp32", "--direct")


@dataclass
class RunUnderFire:
    """One run, from its first driver to the verdict on it."""

    world: World
    url: str
    folder: Path  # for its drivers' homes
    rng: random.Random
    tally: Tally
    command: tuple[str, ...]
    environment: dict[str, str]
    record: RunRecord
    drivers: int = 0

    @property
    def pending(self) -> int:
        """Count the shards without a commit."""
        return self.world.shards - len(self.record.committed())

    def start_driver(self, *flags: str) -> Driver:
        """Start one more driver on the run."""
        self.drivers += 1
        self.tally.drivers += 1
        arguments = [*self.command, f"--output={self.url}", *flags]
        return Driver(arguments, self.folder / f"driver{self.drivers:03}", self.environment)

    def await_open(
        self, driver: Driver, owners: Collection[int] | None, published: bool = False
    ) -> list[OpenAttempt]:
        """Wait for open attempts (of some processes), with a data file if `published`.

        Returns none once the driver has ended. A driver that comes no further for long is a
        problem: it is ended.
        """
        deadline, before = time.monotonic() + STALL_S, -1
        while driver.running():
            attempts = self.record.open(owners)
            if published and attempts:
                there = self.record.published()
                attempts = {name: attempt for name, attempt in attempts.items() if name in there}
            if attempts:
                return list(attempts.values())
            if (now := self.record.attempts()) != before:
                deadline, before = time.monotonic() + STALL_S, now
            if time.monotonic() > deadline:
                self.tally.problems.append(f"{self.url}: no attempt for {STALL_S:.0f} s: a hang")
                kill(driver.pid)
            time.sleep(POLL_S if self.record.store.is_local else POLL_STORE_S)
        return []

    def strike(self, blow: Callable[[], None], owners: Collection[int] | None) -> None:
        """Strike; count the blow if an attempt of the owners was open before it and still is."""
        before = self.record.open(owners)
        blow()
        after = self.record.open(owners)
        hit = {name: attempt for name, attempt in before.items() if name in after}
        self.tally.blows += bool(hit)
        self.tally.missed += not hit
        self.tally.between += bool(hit.keys() & self.record.published())
        self.record.note_struck(after)

    def end(self, driver: Driver, expected: Collection[int], timeout_s: float = FINISH_S) -> bool:
        """Wait for a driver that was not struck itself, and see whether it ended as it should."""
        code = driver.wait(timeout_s)
        if code is None:
            kill(driver.pid)
            driver.wait(60)
        driver.clear_away()
        words = driver.complaints()
        if code not in expected or "Traceback" in words:
            told = "did not end" if code is None else f"exit code {code}"
            self.tally.problems.append(f"{self.url}: {told}: {words[-2000:]}")
        return code == 0

    def conclude(self, *flags: str, frozen: Collection[Driver] = ()) -> None:
        """Finish the run by the same command, wake who is frozen, and judge what is there."""
        self.end(self.start_driver(*flags), {0})
        self.wake(frozen)
        run = Run.open(self.url)
        complaints = [str(problem) for problem in verify_run(run).problems]
        complaints += [f"quarantined: {shard}" for shard in read_quarantined(run)]
        complaints += [f"{self.pending} shards are pending"] * bool(self.pending)
        verdict = compare(read_tables(self.url), self.world.unbroken)
        self.tally.problems += [f"{self.url}: {complaint}" for complaint in complaints]
        self.tally.lost += verdict.lost
        self.tally.doubled += verdict.doubled
        self.tally.differing += len(verdict.differing)
        self.tally.attempts += self.record.attempts()

    def wake(self, frozen: Collection[Driver]) -> None:
        """Let frozen drivers go on after the end, which must change no commit."""
        commits = self.record.commits()
        for driver in frozen:
            os.kill(driver.pid, signal.SIGCONT)
            self.tally.woken_late += 1
            self.end(driver, {0})
        if not commits.items() <= self.record.commits().items():
            self.tally.problems.append(f"{self.url}: a driver that woke late changed a commit")
