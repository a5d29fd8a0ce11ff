"""The series: so many blows of each kind, in as many runs as they take."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.support.chaos.experiment import World
from tests.support.chaos.node_siege import node_siege
from tests.support.chaos.ray_sieges import ActorSiege, gcs_siege, raylet_siege
from tests.support.chaos.sieges import DriverSiege, Limits, Setup, Siege, s3_siege
from tests.support.chaos.tally import Tally


@dataclass(frozen=True)
class Kind:
    """A kind of blow, and its share of a series."""

    name: str
    blows: int  # its share of all that are asked for: 500 for the usual kinds
    per_run: int
    shards: int  # of a run
    pictures: int  # of a shard: how long it takes
    siege: Callable[[Setup], AbstractContextManager[Siege]]
    seconds: int  # for its share of a time limit


KINDS = (
    Kind("driver", 180, 15, 100, 3, lambda setup: nullcontext(DriverSiege(setup)), 300),
    Kind("commit", 80, 15, 60, 3, lambda setup: nullcontext(DriverSiege(setup, aimed=True)), 150),
    Kind("s3", 60, 12, 30, 3, s3_siege, 250),
    Kind("actor", 110, 28, 40, 10, lambda setup: nullcontext(ActorSiege(setup)), 500),
    Kind("raylet", 44, 22, 30, 10, raylet_siege, 400),
    Kind("gcs", 26, 13, 30, 10, gcs_siege, 500),
    # a node lost for good, once a run, in shards that take seconds; only where it is asked for
    Kind("node", 20, 1, 12, 160, node_siege, 900),
)
NAMES = tuple(kind.name for kind in KINDS)
USUAL = tuple(name for name in NAMES if name != "node")


def series(
    names: tuple[str, ...], seed: int, kills: int, minutes: float | None, scratch: Path
) -> Iterator[Tally]:
    """Strike by each kind in turn; give its tally once all its runs are judged."""
    kinds = [kind for kind in KINDS if kind.name in names]
    whole, full = sum(kind.seconds for kind in kinds), sum(kind.blows for kind in kinds)
    for kind in kinds:
        blows = max(1, round(kind.blows * kills / full))
        limit_s = minutes * 60 * kind.seconds / whole if minutes else float("inf")
        yield _strike(kind, random.Random(f"{seed} {kind.name}"), blows, limit_s, scratch)


def _strike(kind: Kind, rng: random.Random, blows: int, limit_s: float, scratch: Path) -> Tally:
    began, tally = time.monotonic(), Tally(kind.name, asked=blows)
    folder = scratch / kind.name
    shards = kind.shards if blows >= kind.per_run else max(6, 3 * blows)
    world = World.make(folder, min(shards, kind.shards), kind.pictures)
    setup = Setup(world, folder, rng, tally, world.command, str(folder / "runs"))
    with kind.siege(setup) as siege:
        number = 0
        while tally.blows < blows and (not tally.blows or time.monotonic() < began + limit_s):
            number += 1
            target = min(blows, tally.blows + kind.per_run)
            siege.besiege(siege.setup.run(number), Limits(target, began + limit_s))
    tally.seconds = time.monotonic() - began
    return tally
