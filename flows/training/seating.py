"""Where the workers of a training sit: on machines that live, have room, and have been checked."""

import logging
import signal
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flows.engines.engine import EngineError
from flows.engines.placement import Machine, Seat
from flows.engines.ray.nodes import LOOK_EVERY_S, WAIT_SAID_AFTER_S, WAIT_SAID_EVERY_S, RayNodes
from flows.engines.start_checks import MachineUnfit, Requirements, check_machine
from flows.recipe import RecipeError, as_recipe_errors
from flows.training.placement import count_room, equal_seats, explain, largest_division
from flows.training.recipe import TrainingRecipe
from pipeline.train.config import check_division

if TYPE_CHECKING:
    from models.devices import DeviceChoice

POLL_S = 0.2
ANSWER_S = 60.0  # that a machine has to start a process and import torch
SETTLED_AFTER_S = 10.0  # what a lost group held is free by then, and a node may be back
LOST_WAIT_S = 30.0  # for a machine, where none is left that can hold a worker

_log = logging.getLogger(__name__)


class Seating:
    """Finds the seats of one attempt; `before` is the number of workers of the one before it."""

    def __init__(
        self, recipe: TrainingRecipe, nodes: RayNodes, checks: Requirements, before: int
    ) -> None:
        self._recipe, self._launch = recipe, recipe.launch
        self._nodes, self._checks, self._before = nodes, checks, before
        self._began, self._said_at = time.monotonic(), 0.0

    def find(self, grows: bool, told_to_end: threading.Event) -> tuple[Seat, ...]:
        """Wait for machines with room for all workers, and let each check itself.

        Raises EngineError where they do not come, and RecipeError where they cannot.
        """
        while not told_to_end.is_set():
            machines = self._nodes.look(())
            if machines is not None:
                seats = self._plan(machines)
                if not seats:
                    self._wait(machines, grows)
                elif self._all_fit(seats, told_to_end):
                    return seats
            time.sleep(POLL_S)
        raise SystemExit(128 + signal.SIGTERM)

    def _plan(self, machines: Sequence[Machine]) -> tuple[Seat, ...]:
        """Place as many workers as are asked for; after a loss as many as have room."""
        gpus, cpus = self._nodes.wish.gpus_each(machines), self._launch.cpus_per_worker
        room, asked = count_room(machines, gpus, cpus), self._launch.workers
        may_change = self._may_change(time.monotonic() - self._began)
        if asked == "auto":
            count = largest_division(room if gpus else min(room, 1), self._recipe.data.lanes)
            fewer = count < self._before
        else:
            with as_recipe_errors():
                check_division(self._recipe, asked)
            count, fewer = asked, bool(self._before) and room < asked
        if fewer and (may_change or not room):
            return ()
        if fewer and asked != "auto":
            count = self._check_fewer(room, asked)
        if fewer:
            _log.warning("going on with %d workers; there were %d", count, self._before)
        return equal_seats(machines, count, gpus, cpus)

    def _may_change(self, waited_s: float) -> bool:
        """Whether what a lost group has held may soon be free, or its machine be back."""
        return bool(self._before) and waited_s <= SETTLED_AFTER_S

    def _check_fewer(self, room: int, asked: int) -> int:
        """Return the number that the machines left can hold, if it divides what is to be done."""
        try:
            check_division(self._recipe, room)
        except ValueError as error:
            fits = largest_division(room, self._recipe.data.lanes)
            raise EngineError(
                f"the machines that are left hold {room} of {asked} workers, and {error}. What was "
                f"saved is safe: bring the machine back, or take {fits} workers (--workers "
                f"{fits}), and run the same command again"
            ) from None
        return room

    def _wait(self, machines: Sequence[Machine], grows: bool) -> None:
        """Ask for machines, and say what is wanted; raises where that leads to nothing."""
        gpus = self._nodes.wish.gpus_each(machines)
        workers, cpus = self._launch.workers, self._launch.cpus_per_worker
        wanted, waited_s = (workers, cpus, gpus), time.monotonic() - self._began
        if self._nodes.left_out and not self._may_change(waited_s):
            raise EngineError(
                f"the machines that are fit have no room for all workers. Left out: "
                f"{'; '.join(self._nodes.left_out)}. {explain(machines, wanted)}"
            )
        if not grows:
            raise RecipeError(f"on this machine alone: {explain(machines, wanted)}")
        bundle = {"CPU": 1.0 if cpus == "auto" else float(cpus)} | ({"GPU": gpus} if gpus else {})
        self._nodes.head.request([bundle] * (1 if workers == "auto" else workers))
        launched = self._nodes.head.launched()
        patience_s = LOST_WAIT_S if self._before else self._launch.start_timeout_s
        if waited_s > patience_s and not launched:
            raise EngineError(
                f"no machine with room for the workers in {patience_s:g} s; what was saved is "
                f"safe, and the same command goes on. {explain(machines, wanted)}"
            )
        if waited_s > WAIT_SAID_AFTER_S and time.monotonic() - self._said_at > WAIT_SAID_EVERY_S:
            self._said_at = time.monotonic()
            _log.warning("waiting for machines; %s", explain(machines, wanted, launched))

    def _all_fit(self, seats: Sequence[Seat], told_to_end: threading.Event) -> bool:
        """Let each machine check itself; those that are unfit, or gone, are not taken again."""
        asked = {
            _ask(seat, self._checks, self._launch.device): seat
            for seat in {seat.machine: seat for seat in seats}.values()
        }
        until = time.monotonic() + ANSWER_S
        waiting: list[Any] = list(asked)
        while waiting and time.monotonic() < until and not told_to_end.is_set():
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_S)
            self._nodes.look(())  # raises where the head is lost meanwhile
        for answer in waiting:
            ray.cancel(answer, force=True)
            self._nodes.note_start(asked[answer], f"it did not answer in {ANSWER_S:g} s")
        answered = [answer for answer in asked if answer not in waiting]
        fit = [self._read(answer, asked[answer]) for answer in answered]
        if len(fit) == len(asked) and all(fit):
            return True
        time.sleep(LOOK_EVERY_S)  # Ray may not know yet that a machine is lost
        return False

    def _read(self, answer: Any, seat: Seat) -> bool:  # noqa: ANN401 - of Ray
        try:
            ray.get(answer)
        except RayTaskError as error:
            cause = error.cause
            if not isinstance(cause, MachineUnfit) and not hasattr(type(cause), "exit_code"):
                raise
            self._nodes.leave_out(seat, str(cause))
            return False
        except RayError as error:
            _log.info("%s did not answer: %s", seat.host, error)
            return False
        return True


def _ask(seat: Seat, checks: Requirements, device: "DeviceChoice") -> Any:  # noqa: ANN401 - of Ray
    remote = ray.remote(
        num_cpus=1,
        num_gpus=seat.gpus,
        max_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(seat.machine, soft=False),
    )(_check_here)
    return remote.remote(checks, device, seat.gpus > 0)


def _check_here(checks: Requirements, device: "DeviceChoice", granted: bool) -> None:
    check_machine(checks)
    from models.devices import choose_device

    choose_device(device, granted=granted)
