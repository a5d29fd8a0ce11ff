"""What the machines of a cluster compute best, asked before a run is pinned to it.

The driver may sit on a machine without a GPU: `dtype: auto` is what its workers have.
"""

import signal
import time
from contextlib import closing
from typing import TYPE_CHECKING

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flows.engines.placement import Seat, Wish, free_seats
from flows.engines.ray.nodes import RayNodes
from flows.engines.ray.session import ray_session
from flows.engines.start_checks import check_packages
from flows.recipe import EngineConfig

if TYPE_CHECKING:
    from models.blip.config import Dtype
    from models.devices import DeviceChoice

ANSWER_S = 60.0  # that a machine has to start a process and import torch


def best_dtype(config: EngineConfig, address: str) -> "Dtype":
    """Return the dtype that the first machine with room for a worker computes best.

    Raises EngineError where no machine has room, or comes.
    """
    wish = Wish(config.actors, config.gpus_per_actor)
    with (
        ray_session(address) as told_to_end,
        closing(RayNodes(wish, config.start_timeout_s, grows=True)) as nodes,
    ):
        while not told_to_end.is_set():
            machines = nodes.look(())
            if machines is not None:
                seat = next(free_seats(machines, nodes.wish, 1, ()), None)
                if seat is not None and (dtype := _ask(seat, config, nodes)) is not None:
                    return dtype
                nodes.wait(machines, 0, 1)
            time.sleep(0.5)
    raise SystemExit(128 + signal.SIGTERM)


def _ask(seat: Seat, config: EngineConfig, nodes: RayNodes) -> "Dtype | None":
    """Ask one machine; None where it does not answer, and is left out if it says why."""
    remote = ray.remote(
        num_cpus=min(seat.cpus, 1.0),
        num_gpus=seat.gpus,
        max_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(seat.machine, soft=False),
    )(_best_here)
    answer = remote.remote(config.device, seat.gpus > 0)
    try:
        dtype: Dtype = ray.get(answer, timeout=ANSWER_S)
    except RayTaskError as error:
        if not hasattr(type(error.cause), "exit_code"):
            raise
        nodes.leave_out(seat, str(error.cause))
        return None
    except GetTimeoutError:
        ray.cancel(answer, force=True)
        nodes.note_start(seat, f"it did not answer in {ANSWER_S:g} s")
        return None
    except RayError as error:
        nodes.note_start(seat, str(error))
        return None
    return dtype


def _best_here(device: "DeviceChoice", granted: bool) -> "Dtype":
    check_packages()
    from models.blip.config import resolve_dtype
    from models.devices import choose_device

    return resolve_dtype("auto", choose_device(device, granted=granted))
