"""What Ray says of its machines: which live, what they have for us, and whether more will come."""

import logging
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import ray
from ray import _private as ray_private  # none of what follows has a public way
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from flows.engines.engine import EngineError
from flows.engines.placement import Machine, Seat, Wish, explain, seats
from shards.errors import UsageError

LOOK_EVERY_S = 2.0
ASK_TIMEOUT_S = 2.0
WAIT_SAID_AFTER_S = 10.0
WAIT_SAID_EVERY_S = 60.0
MAX_BAD_STARTS = 3  # of workers on one machine, in a row
# After so long without its head Ray ends the driver's process, without a word that can be caught.
_SETTING = "RAY_gcs_rpc_server_reconnect_timeout_s"
RAY_ENDS_AFTER_S = float(os.environ.get(_SETTING, "60"))

_log = logging.getLogger(__name__)


class RayNodes:
    """The machines of a cluster that may hold workers, looked at again every few seconds."""

    def __init__(self, wish: Wish, timeout_s: float, grows: bool) -> None:
        """Begin to look; a cluster that does not grow is this machine alone."""
        if grows and wish.gpus == "auto" and _gpus_may_come():
            wish = replace(wish, gpus=1.0)
        self.wish, self._timeout_s, self._grows = wish, timeout_s, grows
        self._machines: tuple[Machine, ...] = ()
        self._left_out: dict[str, str] = {}  # machine -> why
        self._bad_starts: Counter[str] = Counter()
        self._asked: list[dict[str, float]] = []
        now = time.monotonic()
        self._looked_at, self._head_at, self._asked_at = now - LOOK_EVERY_S, now, now
        self._waiting_since, self._said_at = now, 0.0
        if grows:
            _request([])  # what a killed driver may have left

    def look(self, placed: Sequence[Seat]) -> tuple[Machine, ...] | None:
        """Return the living machines and what each has for us, with what we hold there already.

        None while the head is silent. Raises EngineError where it has been so for too long.
        """
        now = time.monotonic()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            if not self._head_answers():  # else what follows would wait for it, for a minute
                return None
            before, self._machines = self._machines, _living(placed)
            self._check_home()
            self._say_changes(before)
            if self.wish.gpus == "auto" and self.wish.gpus_each(self._machines):
                self.wish = replace(self.wish, gpus=1.0)  # though its machine may be left out
        if self.head_is_silent:
            return None
        return tuple(machine for machine in self._machines if machine.id not in self._left_out)

    @property
    def head_is_silent(self) -> bool:
        """Whether the head did not answer the last question; what asks it waits for long."""
        return self._asked_at > self._head_at

    def lives(self, machine: str) -> bool:
        """Whether Ray still counts a machine among the living."""
        return any(other.id == machine for other in self._machines)

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
        if not fits and not running:
            self._give_up(machines, now)
        if now - self._waiting_since < WAIT_SAID_AFTER_S and not fits:
            return
        if now - self._said_at >= WAIT_SAID_EVERY_S:
            self._said_at = now
            running_now = f"{running} workers run; " if running else "waiting for machines; "
            _log.warning("%s%s", running_now, explain(machines, self.wish, self._launched()))

    def close(self) -> None:
        """Ask for no more machines."""
        if self._asked and not self.head_is_silent:
            with suppress(RayError, RuntimeError):  # the head may be gone
                _request([])

    def _check_home(self) -> None:
        """Raise EngineError where this machine's own raylet is dead: Ray ends all that we own."""
        if self.lives(ray.get_runtime_context().get_node_id()):
            return
        raise EngineError(
            "the raylet on this machine is dead, by a kill or for want of memory, and Ray ends "
            "the workers of a driver without one. What is committed is safe; run the same command "
            "again"
        )

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

    def _head_answers(self) -> bool:
        """Ask the head whether it lives; it may come back, if its state is kept (Redis)."""
        client = ray_private.worker.global_worker.gcs_client
        try:
            client.internal_kv_get(b"capfilt", None, timeout=ASK_TIMEOUT_S)
        except RayError:
            self._asked_at = time.monotonic()
            silent_s = self._asked_at - self._head_at
            if silent_s > 0.7 * RAY_ENDS_AFTER_S - ASK_TIMEOUT_S:
                raise EngineError(
                    f"Ray's head has not answered for {silent_s:.0f} s: its GCS is lost. What is "
                    "committed is safe; start the cluster again, then run the same command again"
                ) from None
            return False
        self._asked_at = self._head_at = time.monotonic()
        return True

    def _give_up(self, machines: Sequence[Machine], now: float) -> None:
        if seats(self._machines, self.wish, 1):
            raise EngineError(
                "no machine is left that a worker can start on: "
                + "; ".join(self._left_out.values())
                + ". What is committed is safe; run the same command again"
            )
        if not self._grows:
            raise UsageError(explain(machines, self.wish))
        if now - self._waiting_since > self._timeout_s and not self._launched():
            raise EngineError(
                f"no machine came in {self._timeout_s:g} s (engine.start_timeout_s). "
                + explain(machines, self.wish)
            )

    def _launched(self) -> list[str]:
        """Name the kinds of node that an autoscaler is starting; none where there is none."""
        if not self._grows:
            return []
        from ray.autoscaler.v2.sdk import get_cluster_status

        try:
            status = get_cluster_status(ray.get_runtime_context().gcs_address, timeout=2)
        except (RayError, OSError, RuntimeError, ValueError):
            return []
        launching = [launch.ray_node_type_name for launch in status.pending_launches]
        return launching + [node.ray_node_type_name for node in status.pending_nodes]

    def _ask_for_more(self, machines: Sequence[Machine], wanted: int, fits: int) -> None:
        """Tell an autoscaler, if there is one, what all workers together need."""
        if not self._grows or (self.wish.workers == "auto" and fits):
            return
        gpus = self.wish.gpus_each(machines)
        bundle = {"CPU": 1.0} | ({"GPU": gpus} if gpus else {})
        bundles = [bundle] * (1 if self.wish.workers == "auto" else wanted)
        if bundles != self._asked:
            self._asked = bundles
            _request(bundles)


def _living(placed: Sequence[Seat]) -> tuple[Machine, ...]:
    """Read what the living nodes have free, and add what we hold there ourselves."""
    free = ray_private.state.available_resources_per_node()
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


def _request(bundles: list[dict[str, float]]) -> None:
    request_resources(bundles=bundles)


def _gpus_may_come() -> bool:
    """Whether an autoscaler may start machines with GPUs, though there are none now."""
    config = ray_private.state.state.get_cluster_config()
    groups = config.node_group_configs if config else ()
    return any(group.max_count and group.resources.get("GPU", 0) for group in groups)
