"""SIGKILLs at random moments, to drivers, actors and any of their children: nothing is lost.

`CAPFILT_CHAOS_SEED` repeats a series of kills (their kinds and pauses; the machine adds its own).
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.run.attempt import read_quarantined
from shards.run.run import Run
from shards.run.verify.run import verify_run
from tests.support.driving import Command, Models, children, committed, table

KILLS = 60
SHARDS = 200
TABLES = ("samples", "texts", "decisions")
Rows = list[tuple[object, ...]]


@dataclass
class Chaos:
    """Kills processes of drivers that work on one run, and counts what it killed."""

    rng: random.Random
    run: Path
    drivers: list[tuple[Command, "subprocess.Popen[bytes]"]] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)

    def start(self, command: Command, arguments: list[str]) -> None:
        """Start one more driver on the run."""
        command.home.mkdir(parents=True)
        self.drivers.append((command, command.start(*arguments)))

    def rage(self, blows: int) -> None:
        """Strike a few times while the drivers work, then end what still lives."""
        self._await_work()
        for _ in range(blows):
            time.sleep(self.rng.uniform(0.1, 2.0))
            living = [process for _, process in self.drivers if process.poll() is None]
            if not living or len(committed(self.run)) == SHARDS:
                break
            self._strike(self.rng.choice(living).pid)
        for _, process in self.drivers:
            if process.poll() is None and self.rng.random() < 0.8:
                self._kill(process.pid, "driver")

    def settle(self) -> None:
        """Wait for the drivers' end."""
        for command, process in self.drivers:
            command.wait(process, timeout_s=600)
        self.drivers = []

    def _await_work(self) -> None:
        before, deadline = len(committed(self.run)), time.monotonic() + 120
        while len(committed(self.run)) == before and time.monotonic() < deadline:
            if all(process.poll() is not None for _, process in self.drivers):
                return
            time.sleep(0.1)

    def _strike(self, driver: int) -> None:
        kind = self.rng.choices(["actor", "driver", "child"], [6, 2, 2])[0]
        with suppress(psutil.NoSuchProcess):
            found = {
                "actor": list(children(driver, "ray::PoolActor")),
                "child": [process.pid for process in psutil.Process(driver).children(True)],
                "driver": [driver],
            }[kind]
            if found:
                self._kill(self.rng.choice(found), kind)

    def _kill(self, pid: int, kind: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed[kind] += 1


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    write_toy_world(folder, ToyWorldConfig(samples=6 * SHARDS, samples_per_shard=6))
    return folder


def close(ours: Rows, theirs: Rows) -> None:
    """Assert two tables of texts equal but for the last digits of their scores."""
    assert [row[:6] for row in ours] == [row[:6] for row in theirs]
    for row, other in zip(ours, theirs, strict=True):
        assert row[6:9] == pytest.approx(other[6:9], abs=1e-5)


def homes(folder: Path) -> Iterator[Path]:
    number = 0
    while True:
        yield folder / f"driver{number:03}"
        number += 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_random_kills_lose_and_double_nothing(
    tmp_path: Path,
    flags: Callable[[Models, Path, Path], list[str]],
    toy_models: Models,
    many_shards: Path,
    loopback_only: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = int(os.environ.get("CAPFILT_CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    rng, home = random.Random(seed), homes(tmp_path)
    killed: Counter[str] = Counter()
    pairs, rounds, began = 0, 0, time.monotonic()

    def command(run: Path) -> list[str]:
        return [*flags(toy_models, many_shards, run), "--direct"]

    unbroken = Command([], next(home))
    unbroken.home.mkdir()
    done = unbroken.run(*command(tmp_path / "whole"), "--engine=local")
    assert done.returncode == 0, done.stderr
    whole = {name: table(tmp_path / "whole", name) for name in TABLES}

    while killed.total() < KILLS:
        rounds += 1
        run = tmp_path / f"run{rounds}"
        chaos = Chaos(rng, run, killed=killed)
        while len(committed(run)) < SHARDS and killed.total() < KILLS:
            two = rng.random() < 0.4
            pairs += two
            for _ in range(1 + two):
                engine = rng.choice(["--actors=1", "--actors=2", "--engine=local"])
                chaos.start(Command(loopback_only, next(home)), [*command(run), engine])
            chaos.rage(rng.randint(2, 8))
            chaos.settle()
        final = Command(loopback_only, next(home))
        final.home.mkdir()
        done = final.run(*command(run), "--actors=1")
        assert done.returncode == 0, done.stderr
        opened = Run.open(str(run))
        assert verify_run(opened).problems == ()
        assert read_quarantined(opened) == {}
        assert table(run, "samples") == whole["samples"]
        assert table(run, "decisions") == whole["decisions"]
        close(table(run, "texts"), whole["texts"])

    tries = sum(len(list(folder.iterdir())) for folder in (run / "attempts").iterdir())
    with capsys.disabled():
        sys.stdout.write(
            f"\nseed {seed}: {killed.total()} SIGKILLs ({dict(killed)}) in {rounds} runs of "
            f"{SHARDS} shards, two drivers at once {pairs} times, {tries} attempts in the last "
            f"run; 0 lost, 0 doubled, {time.monotonic() - began:.0f} s\n"
        )
