"""How a run loses a node, once: a worker's or the head's in turn, at a random moment."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.chaos.cluster import RayNodes, ray_nodes
from tests.support.chaos.drivers import kill
from tests.support.chaos.experiment import RunUnderFire
from tests.support.chaos.sieges import Limits, Setup

PAUSE_S = 6.0  # at most, from the first attempt to the blow: before, within and behind several
LEAVES_S = 60.0  # that a driver has to leave a cluster whose head is lost


@dataclass
class NodeSiege:
    """One raylet is killed in each run; a lost worker is not replaced while the run goes on."""

    setup: Setup
    nodes: RayNodes
    ends: list[str] = field(default_factory=list)  # for people: how each run ended

    def besiege(self, run: RunUnderFire, _limits: Limits) -> None:
        """Kill one raylet; a lost worker costs nothing, a lost head one more command."""
        head = len(self.ends) % 2 == 1
        driver = run.start_driver(self._address)
        struck = 0
        if run.await_open(driver, None):
            time.sleep(run.rng.uniform(0, PAUSE_S))
            struck = self.nodes.head_raylet() if head else self._busy(run)
            run.strike(lambda: kill(struck), None)
        began = time.monotonic()
        # a lost head may find all committed
        well = run.end(driver, {0, 1} if head else {0}, timeout_s=LEAVES_S if head else 300)
        if well and run.pending:
            run.tally.problems.append(f"{run.url}: exit code 0 with {run.pending} shards pending")
        after_s = time.monotonic() - began
        self.ends.append(f"{'head' if head else 'worker'} lost, ended after {after_s:.1f} s")
        run.tally.notes.append(self.ends[-1])
        if head:
            self.nodes.start()
        elif struck:
            self.nodes.replace(struck)
        run.conclude(self._address)

    @property
    def _address(self) -> str:
        return f"--address={self.nodes.address}"

    def _busy(self, run: RunUnderFire) -> int:
        """Return the raylet of a worker with an attempt open, or of any."""
        pids = {attempt.pid for attempt in run.record.open().values()}
        workers = self.nodes.actors_by_raylet()
        busy = [raylet for raylet, actors in workers.items() if actors & pids]
        return run.rng.choice(sorted(busy or workers))


@contextmanager
def node_siege(setup: Setup) -> Iterator[NodeSiege]:
    """Run a cluster of a head and two workers, one node of which is lost in each run."""
    with ray_nodes(workers=2) as nodes:
        yield NodeSiege(setup, nodes)
