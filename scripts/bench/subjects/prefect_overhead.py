"""What Prefect costs a cleaning of 30 toy pictures: `--direct` beside a server of its own.

By turns, after some to warm up; the home of the servers is kept, as by a user. With Ray, run it
where the network is loopback alone (`unshare -n`): Ray listens on all addresses.
"""

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

from flows.following.server import DATABASE, EMPTY
from pipeline.toy.world import ToyWorldConfig, write_toy_world

CAPFILT = str(Path(sys.executable).with_name("capfilt"))
TINY = ("--captioner=tiny-captioner", "--filter=tiny-filter")
WARM_UPS = 5  # at most, until the tables of a server are made


class Turn(NamedTuple):
    """Seconds since a command was started."""

    first_commit: float
    last_commit: float
    end: float


def main(o: argparse.Namespace, folder: Path) -> None:
    """Time both ways by turns, and print what was measured."""
    world = ToyWorldConfig(samples=30, samples_per_shard=10)
    write_toy_world(folder / "web", world)
    turns = clean(folder, o.engine)
    next(turns["direct"])
    for _ in range(WARM_UPS):
        next(turns["prefect"])
        if (folder / "prefect" / EMPTY).exists():
            break
    recorded = completed(folder)
    measured: dict[str, list[Turn]] = {how: [] for how in turns}
    for turn in range(o.turns):
        for how in sorted(turns, reverse=bool(turn % 2)):
            measured[how].append(next(turns[how]))
    recorded = completed(folder) - recorded
    show(o, measured, recorded)


def clean(folder: Path, engine: str) -> dict[str, Iterator[Turn]]:
    """Make what cleans into a new run each time it is asked, without Prefect and with it."""
    common = ["clean", f"--input={folder / 'web'}", f"--engine={engine}", *TINY]
    return {
        "direct": turns_of([*common, "--direct"], folder, "direct"),
        "prefect": turns_of(common, folder, "followed"),
    }


def turns_of(command: list[str], folder: Path, name: str) -> Iterator[Turn]:
    """Run a command again and again, and time it."""
    environment = os.environ | {"PREFECT_HOME": str(folder / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    number = 0
    while True:
        number += 1
        run = folder / f"{name}-{number}"
        began = time.time()
        done = subprocess.run(
            [CAPFILT, *command, f"--output={run}"], env=environment, capture_output=True, text=True
        )
        ended = time.time()
        if done.returncode:
            sys.exit(f"{name} ended by {done.returncode}, expected 0:\n{done.stderr}")
        commits = [path.stat().st_mtime - began for path in run.glob("commits/*.json")]
        yield Turn(min(commits), max(commits), ended - began)


def completed(folder: Path) -> int:
    """Count the flow runs that servers have recorded as completed."""
    with closing(sqlite3.connect(folder / "prefect" / DATABASE)) as database:
        asked = "SELECT count(*) FROM flow_run WHERE state_name = 'Completed'"
        return int(database.execute(asked).fetchone()[0])


def show(o: argparse.Namespace, measured: dict[str, list[Turn]], recorded: int) -> None:
    """Print medians, and the median of the differences of turns side by side."""
    commit = subprocess.getoutput("git rev-parse --short HEAD 2>/dev/null || echo none")
    print(f"- {datetime.now(UTC):%Y-%m-%d}, commit {commit}, load {os.getloadavg()[0]:.1f}")
    print(f"- command: `python {' '.join(sys.argv)}`; {o.turns} turns, {o.engine} engine")
    print(f"- {recorded} of {o.turns} flow runs are recorded as Completed\n")
    print("| seconds to | direct | with Prefect | difference | each turn's difference |")
    print("| --- | --- | --- | --- | --- |")
    for part in Turn._fields:
        direct, followed = ([getattr(turn, part) for turn in measured[how]] for how in measured)
        more = [one - other for one, other in zip(followed, direct, strict=True)]
        numbers = f"{median(direct):.1f} | {median(followed):.1f} | {median(more):+.1f}"
        each = ", ".join(f"{number:+.1f}" for number in more)
        print(f"| {part.replace('_', ' ')} | {numbers} | {each} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--turns", type=int, default=7)
    with tempfile.TemporaryDirectory(prefix="capfilt-prefect-") as scratch:
        main(parser.parse_args(), Path(scratch))
