"""The Ray launcher: workers of one training, placed by us and joined by Ray Train.

Each worker has a seat on a machine that has been looked at and checked; Ray Train gives it its
device and a process group (gloo on CPUs, nccl on GPUs). Data, checkpoints and numbers are our own:
a worker that is lost ends the group, which begins again from the newest state, on the machines that
live then. The training folder must be reachable from all machines.
"""

import logging
import os
import pickle
import signal
import threading
import time
from concurrent.futures import Future, wait
from contextlib import closing
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from flows.engines.address import join_address
from flows.engines.engine import EngineError
from flows.engines.placement import Seat, Wish
from flows.engines.ray.nodes import RayNodes
from flows.engines.ray.session import ray_session
from flows.engines.start_checks import Demands, Requirements, check_machine, requirements
from flows.training.seating import POLL_S, Seating

if TYPE_CHECKING:
    from flows.training.worker import TrainingJob

GIVEN_UP_AFTER_S = 20.0  # a group that does not notice by itself that its machine is lost
PLACED_WITHIN_S = "30"  # a group that had room a moment ago; Ray's own patience has no end
NODE_ID = "ray.io/node-id"
_ROOMS = ("shards", "models", "pipeline", "flows")
_log = logging.getLogger(__name__)


def launch(job: "TrainingJob") -> None:
    """Train on Ray; raises what a worker found wrong, and EngineError where workers are lost."""
    launched = job.recipe.launch
    address = join_address(launched.address)
    wish = Wish(gpus=1.0 if launched.device == "cuda" else "auto")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", PLACED_WITHIN_S)
    before = 0
    with requirements(_demands(job), launched.forward_env) as checks:
        for restart in range(launched.restarts + 1):
            # each attempt has a connection of its own: with it ends all that a lost group has left
            with (
                ray_session(address) as told_to_end,
                closing(RayNodes(wish, launched.start_timeout_s, bool(address))) as nodes,
            ):
                if address is not None:
                    address = ray.get_runtime_context().gcs_address  # of this cluster, not "auto"
                seating = Seating(job.recipe, nodes, checks, before)
                seats = seating.find(bool(address), told_to_end)
                error = _fit(_trainer(job, checks, seats), seats, nodes, told_to_end)
                if error is None:
                    return
                if (wrong := _own_fault(error)) is not None:
                    raise wrong from error  # it would come again
                nodes.check_home()
                # a training that began on GPUs does not go on without them
                before, wish = len(seats), nodes.wish
            if restart < launched.restarts:
                _log.warning("workers were lost; restart %d of %d", restart + 1, launched.restarts)
        raise EngineError(f"the training on Ray failed: {error}") from error


def _demands(job: "TrainingJob") -> Demands:
    """Gather what each machine must be able to read, and where it writes."""
    read = [part.url for source in (*job.sources, *job.questions) for part in source.parts]
    return Demands(str(job.folder), (*read, str(job.start / "config.json")))


def _trainer(job: "TrainingJob", checks: Requirements, seats: tuple[Seat, ...]) -> TorchTrainer:
    cpus, gpus = int(seats[0].cpus), seats[0].gpus
    on_gpus = gpus > 0 and job.recipe.launch.device != "cpu"
    return TorchTrainer(
        _loop,
        train_loop_config={
            "job": cloudpickle.dumps(job),  # opened behind the checks, as in `PoolActor.start`
            "checks": checks,
            "threads": cpus,
            "granted": gpus > 0,
        },
        torch_config=TorchConfig(backend="nccl" if on_gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=len(seats),
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
            label_selector=[{NODE_ID: seat.machine} for seat in seats],
        ),
        # Ray would also begin again after what is no loss, and wait for ever for what has no room
        run_config=RunConfig(
            name="ray",
            storage_path=str(job.folder),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )


def _fit(
    trainer: TorchTrainer,
    seats: tuple[Seat, ...],
    nodes: RayNodes,
    told_to_end: threading.Event,
) -> BaseException | None:
    """Train in a thread, since Ray's own waiting hears nothing; return the error it ended in.

    Raises EngineError where the head, or this machine's raylet, is lost.
    """
    ended: Future[None] = Future()
    threading.Thread(target=_run, args=(trainer, ended), name="fit", daemon=True).start()
    lost_at = None
    while not wait([ended], POLL_S).done:
        if told_to_end.is_set():
            raise SystemExit(128 + signal.SIGTERM)
        nodes.look(seats)
        lost = {seat.host for seat in seats if not nodes.lives(seat.machine)}
        lost_at = (lost_at or time.monotonic()) if lost else None
        if lost_at is not None and time.monotonic() - lost_at > GIVEN_UP_AFTER_S:
            return EngineError(f"{', '.join(sorted(lost))} is lost")
    return ended.exception()


def _run(trainer: TorchTrainer, ended: Future[None]) -> None:
    try:
        trainer.fit()
    except BaseException as error:
        ended.set_exception(error)
    else:
        ended.set_result(None)


def _own_fault(error: BaseException) -> Exception | None:
    """Find the error of ours that a worker ended in, if it was one."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause: Exception = getattr(failure, "_base_exc", failure)
        if type(cause).__module__.partition(".")[0] in _ROOMS:
            return cause
    return None


def _loop(config: dict[str, Any]) -> None:
    """Do one worker's part."""
    check_machine(config["checks"])
    import torch

    from flows.training.worker import work
    from models.devices import choose_device
    from models.training.workers import Workers

    job: TrainingJob = pickle.loads(config["job"])  # noqa: S301 - from our own driver
    device = choose_device(job.recipe.launch.device, granted=config["granted"])
    if device.type == "cuda":
        device = get_device()  # the one of this machine's that is this worker's
    context = get_context()
    torch.set_num_threads(config["threads"])
    work(job, Workers(context.get_world_rank(), context.get_world_size()), device)
