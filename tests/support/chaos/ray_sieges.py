"""How runs are struck on Ray: its actors, the raylets of its nodes, the store of its cluster."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.chaos.cluster import RayNodes, ray_nodes
from tests.support.chaos.drivers import kill
from tests.support.chaos.experiment import RunUnderFire
from tests.support.chaos.record import OpenAttempt
from tests.support.chaos.sieges import Limits, Setup

PAUSE_S = 0.8  # at most, between an attempt's begin and the blow
AWAY_S = 2.0  # at most, until a node comes for the one that was lost
HEAD = 0.15  # of the raylets struck, the head's
ACTORS = "--actors=2"


@dataclass
class ActorSiege:
    """SIGKILLs to the actors of a driver that has a Ray of its own."""

    setup: Setup

    def besiege(self, run: RunUnderFire, limits: Limits) -> None:
        """Strike actors of one driver again and again; it ends by itself."""
        while not limits.reached(run):
            driver = run.start_driver(ACTORS)
            while not limits.reached(run) and run.await_open(driver, None):
                time.sleep(run.rng.uniform(0, PAUSE_S))
                if attempts := spread(run):
                    actor = run.rng.choice(attempts).pid
                    run.strike(lambda pid=actor: kill(pid), {actor})  # type: ignore[misc]
            run.end(driver, {0})
        run.conclude(ACTORS)


@dataclass
class ClusterSiege:
    """SIGKILLs to the daemons of a cluster: its GCS, or the raylets of its nodes."""

    setup: Setup
    nodes: RayNodes
    gcs: bool

    def besiege(self, run: RunUnderFire, limits: Limits) -> None:
        """Strike while drivers work; one that loses its cluster goes on in a new one."""
        while not limits.reached(run):
            driver = run.start_driver(*self._flags)
            expected = {0}
            while not limits.reached(run) and run.await_open(driver, None):
                time.sleep(run.rng.uniform(0, PAUSE_S))
                if self.gcs or run.rng.random() < HEAD:
                    pid = self.nodes.gcs() if self.gcs else self.nodes.head_raylet()
                    run.strike(lambda pid=pid: kill(pid), None)  # type: ignore[misc]
                    expected = {0, 1}  # 0: all was done before it could notice
                    break
                self._strike_worker(run)
            run.end(driver, expected, timeout_s=120)
            if expected != {0}:
                self.nodes.start()
        run.conclude(*self._flags)

    @property
    def _flags(self) -> tuple[str, str]:
        return f"--address={self.nodes.address}", ACTORS

    def _strike_worker(self, run: RunUnderFire) -> None:
        """Kill the raylet of a node whose actor has an attempt open, and add a node later."""
        pids = {attempt.pid for attempt in spread(run)}
        busy = {
            raylet: actors & pids
            for raylet, actors in self.nodes.actors_by_raylet().items()
            if actors & pids
        }
        if busy:
            raylet = run.rng.choice(sorted(busy))
            run.strike(lambda: kill(raylet), busy[raylet])
            time.sleep(run.rng.uniform(0, AWAY_S))
            self.nodes.replace(raylet)


def spread(run: RunUnderFire) -> list[OpenAttempt]:
    """List the attempts that may be struck; not in safe mode, where a second death quarantines."""
    return [attempt for attempt in run.record.open().values() if not attempt.safe]


@contextmanager
def raylet_siege(setup: Setup) -> Iterator[ClusterSiege]:
    """Run a cluster whose raylets are struck."""
    with ray_nodes(workers=2) as nodes:
        yield ClusterSiege(setup, nodes, gcs=False)


@contextmanager
def gcs_siege(setup: Setup) -> Iterator[ClusterSiege]:
    """Run a cluster whose GCS is struck."""
    with ray_nodes(workers=1) as nodes:
        yield ClusterSiege(setup, nodes, gcs=True)
