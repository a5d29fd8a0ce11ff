"""What Ray says of its machines: which live, what they have for us, and whether more will come."""

import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import ray
from ray import _private as ray_private  # what each node has free has no public way

from flows.engines.engine import EngineError
from flows.engines.placement import Machine, Seat, Wish, explain, seats
from flows.engines.ray.head import Head
from flows.engines.ray.home import Home
from shards.errors import UsageError

LOOK_EVERY_S = 2.0
WAIT_SAID_AFTER_S = 10.0
WAIT_SAID_EVERY_S = 60.0
MANY = 1_000_000  # workers: as many as there is room for
MAX_BAD_STARTS = 3  # of workers on one machine, in a row

_log = logging.getLogger(__name__)


class RayNodes:
    """The machines of a cluster that may hold workers, looked at again every few seconds."""

    def __init__(self, wish: Wish, timeout_s: float, grows: bool) -> None:
        """Begin to look; a cluster that does not grow is this machine alone."""
        if grows and wish.gpus == "auto" and Head.may_bring_gpus():
            wish = replace(wish, gpus=1.0)
        self.wish, self._timeout_s, self._grows = wish, timeout_s, grows
        self.head = Head()
        self._home: Home | None = None  # watched from the first look on
        self._machines: tuple[Machine, ...] = ()
        self._left_out: dict[str, str] = {}  # machine -> why
        self._bad_starts: Counter[str] = Counter()
        self._doubted = set[str]()  # machines that may be gone, until the next look
        self._room_counted = False
        now = time.monotonic()
        self._looked_at = now - LOOK_EVERY_S
        self._waiting_since, self._said_at = now, -math.inf  # the clock may begin at boot
        if grows:
            self.head.request([])  # nothing of what a killed driver has left

    def look(self, placed: Sequence[Seat]) -> tuple[Machine, ...] | None:
        """Return the living machines and what each has for us, with what we hold there already.

        None while the head is silent. Raises EngineError where it has been so for too long, and
        where this machine's own raylet is dead.
        """
        self.check_home()
        now = time.monotonic()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            if not self.head.answers():  # else what follows would wait for it, for a minute
                return None
            before, self._machines = self._machines, _living(placed, not self._grows)
            self._doubted.clear()
            self._say_changes(before)
            if self.wish.gpus == "auto" and self.wish.gpus_each(self._machines):
                self.wish = replace(self.wish, gpus=1.0)  # though its machine may be left out
        if self.head.is_silent:
            return None
        useless = self._left_out.keys() | self._doubted
        return tuple(machine for machine in self._machines if machine.id not in useless)

    def check_home(self) -> None:
        """Raise EngineError where this machine's own raylet is dead."""
        if self._home is None:
            self._home = Home()
        self._home.check()

    def lives(self, machine: str) -> bool:
        """Whether Ray still counts a machine among the living."""
        return any(other.id == machine for other in self._machines)

    def doubt(self, machine: str) -> None:
        """Start nothing on a machine that Ray may know to be gone, until it is looked at again."""
        self._doubted.add(machine)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Which machines are left out, by name, and why."""
        return tuple(self._left_out.values())

    def leave_out(self, seat: Seat, why: str) -> None:
        """Start no more workers on a machine, and say so."""
        if seat.machine not in self._left_out:
            self._left_out[seat.machine] = f"{seat.host}: {why}"
            _log.warning("%s is left out: %s", seat.host, why)

    def note_start(self, seat: Seat, why: str | None) -> None:
        """Count a worker's start that failed, for a reason that may pass, or that went well."""
        self._bad_starts[seat.machine] = self._bad_starts[seat.machine] + 1 if why else 0
        if self._bad_starts[seat.machine] >= MAX_BAD_STARTS:
            self.leave_out(seat, f"{MAX_BAD_STARTS} workers in a row could not start: {why}")

    def count_room(self, machines: Sequence[Machine], shards: int) -> None:
        """Say once, when workers first fit, that there are too few shards for all of them."""
        room = 0 if self._room_counted else len(seats(machines, self.wish, MANY))
        self._room_counted = self._room_counted or room > 0
        if room > shards:
            _log.warning(
                "%d shard%s for %d workers: %d idle; smaller shards use them all",
                *(shards, "" if shards == 1 else "s", room, room - shards),
            )

    def wait(self, machines: Sequence[Machine], running: int, most: int) -> None:
        """Ask for more machines where there is room for too few workers, and say what is wanted.

        Raises EngineError where there is none, and none comes.
        """
        wanted = most if self.wish.workers == "auto" else min(most, self.wish.workers)
        fits = len(seats(machines, self.wish, wanted))
        now = time.monotonic()
        self._ask_for_more(machines, wanted, fits)
        if running or fits:
            self._waiting_since = now
        if fits and (self.wish.workers == "auto" or fits >= wanted):
            return
        if not fits and not running and not self._doubted:
            self._give_up(machines, now)
        if now - self._waiting_since < WAIT_SAID_AFTER_S and not fits:
            return
        if now - self._said_at >= WAIT_SAID_EVERY_S:
            self._said_at = now
            _log.warning(
                "%s%s",
                _said_of(running),
                explain(machines, self.wish, (self.head.launched() if self._grows else ())),
            )

    def close(self) -> None:
        """Ask for no more machines, and watch none."""
        if self._home is not None:
            self._home.close()
        if self._grows:
            self.head.request([])

    def _say_changes(self, before: Sequence[Machine]) -> None:
        """Say which machines have gone, and which have come after the first look."""
        now = {machine.id for machine in self._machines}
        for machine in before:
            if machine.id not in now:
                _log.warning("%s is lost; others do what it was at", machine.host)
        there = {machine.id for machine in before}
        for machine in self._machines:
            if before and machine.id not in there:
                _log.warning("%s has joined", machine.host)

    def _give_up(self, machines: Sequence[Machine], now: float) -> None:
        if seats(self._machines, self.wish, 1):
            raise EngineError(
                "no machine is left that a worker can start on: "
                + "; ".join(self._left_out.values()).rstrip(".")
                + ". What is committed is safe; run the same command again"
            )
        if not self._grows:
            raise UsageError(explain(machines, self.wish))
        if now - self._waiting_since > self._timeout_s and not self.head.launched():
            raise EngineError(
                f"no machine came in {self._timeout_s:g} s (engine.start_timeout_s). "
                + explain(machines, self.wish)
            )

    def _ask_for_more(self, machines: Sequence[Machine], wanted: int, fits: int) -> None:
        """Tell an autoscaler, if there is one, what all workers together need."""
        if not self._grows or (self.wish.workers == "auto" and fits):
            return
        gpus = self.wish.gpus_each(machines)
        bundle = {"CPU": 1.0} | ({"GPU": gpus} if gpus else {})
        self.head.request([bundle] * (1 if self.wish.workers == "auto" else wanted))


def _living(placed: Sequence[Seat], alone: bool) -> tuple[Machine, ...]:
    """Read what the living nodes have free, and add what we hold there ourselves.

    A Ray of our own holds nobody else's workers: alone we have all, though what a dead worker held
    may not be free yet.
    """
    free = {} if alone else ray_private.state.available_resources_per_node()
    machines = []
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        id_, has = node["NodeID"], node["Resources"]
        left = free.get(id_, has)
        ours = [seat for seat in placed if seat.machine == id_]
        # what Ray says is some moments old, and may not count yet what we hold
        cpus = min(left.get("CPU", 0.0) + sum(seat.cpus for seat in ours), has.get("CPU", 0.0))
        gpus = min(left.get("GPU", 0.0) + sum(seat.gpus for seat in ours), has.get("GPU", 0.0))
        machines.append(Machine(id_, _host(node), cpus, gpus, has.get("memory", math.inf)))
    return tuple(machines)


def _host(node: dict[str, str]) -> str:
    name, address = node["NodeManagerHostname"], node["NodeManagerAddress"]
    return name if name == address else f"{name} ({address}, node {node['NodeID'][:8]})"


def _said_of(running: int) -> str:
    if not running:
        return "waiting for machines; "
    return "1 worker runs; " if running == 1 else f"{running} workers run; "
