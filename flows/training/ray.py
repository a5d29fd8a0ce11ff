"""The Ray launcher: workers of one training, placed and joined by Ray Train.

Ray Train gives each worker its place, its device and a process group (gloo on CPUs, nccl on GPUs).
Data, checkpoints and numbers are our own: a worker that is lost ends the group, which begins again
from the newest state. The training folder must be reachable from all machines.
"""

import logging
import signal
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from flows.engines.engine import EngineError
from flows.engines.ray.session import ray_session
from flows.engines.start_checks import check_packages
from flows.recipe import RecipeError, as_recipe_errors

if TYPE_CHECKING:
    from flows.training.worker import TrainingJob

POLL_S = 0.2
_ROOMS = ("shards", "models", "pipeline", "flows")
_log = logging.getLogger(__name__)


def launch(job: "TrainingJob") -> None:
    """Train on Ray; raises what a worker found wrong, and EngineError where workers are lost."""
    restarts = job.recipe.launch.restarts
    with ray_session(job.recipe.launch.address) as told_to_end:
        workers, cpus, gpu = _share(job)
        for restart in range(restarts + 1):
            error = _fit(_trainer(job, workers, cpus, gpu), told_to_end)
            if error is None:
                return
            if (wrong := _own_fault(error)) is not None:
                raise wrong from error  # it would come again
            if restart < restarts:
                _log.warning("workers were lost; restart %d of %d", restart + 1, restarts)
        raise EngineError(f"the training on Ray failed: {error}") from error


def _trainer(job: "TrainingJob", workers: int, cpus: int, gpu: bool) -> TorchTrainer:
    return TorchTrainer(
        _loop,
        train_loop_config={"job": job, "threads": cpus},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": cpus}
        ),
        # Ray would also begin again after what is no loss
        run_config=RunConfig(
            name="ray", storage_path=str(job.folder), failure_config=FailureConfig(max_failures=0)
        ),
    )


def _fit(trainer: TorchTrainer, told_to_end: threading.Event) -> BaseException | None:
    """Train in a thread, since Ray's own waiting does not hear that the process is told to end."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="fit")
    ended = pool.submit(trainer.fit)
    pool.shutdown(wait=False)
    while not wait([ended], POLL_S).done:
        if told_to_end.is_set():
            raise SystemExit(128 + signal.SIGTERM)
    return ended.exception()


def _own_fault(error: BaseException) -> Exception | None:
    """Find the error of ours that a worker ended in, if it was one."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause: Exception = getattr(failure, "_base_exc", failure)
        if type(cause).__module__.partition(".")[0] in _ROOMS:
            return cause
    return None


def _share(job: "TrainingJob") -> tuple[int, int, bool]:
    """Divide the cluster: number of workers, processors of each, and whether each has a GPU."""
    from pipeline.train.config import check_division

    resources = ray.cluster_resources()
    all_cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    launch = job.recipe.launch
    workers = max(gpus, 1) if launch.workers == "auto" else launch.workers
    asked = launch.cpus_per_worker
    cpus = max(1, all_cpus // workers) if asked == "auto" else asked
    with as_recipe_errors():
        check_division(job.recipe, workers)
    # a cluster may grow, this machine does not: Ray would wait for ever
    if launch.address is None and (workers * cpus > all_cpus or 0 < gpus < workers):
        raise RecipeError(
            f"launch asks for {workers} workers with {cpus} processors each"
            f"{' and a GPU' if gpus else ''}; this machine has {all_cpus} processors and {gpus} "
            "GPUs. Take fewer workers, or name a cluster (launch.address)"
        )
    return workers, cpus, gpus > 0


def _loop(config: dict[str, Any]) -> None:
    """Do one worker's part."""
    check_packages()
    import torch

    from flows.training.worker import work
    from models.training.workers import Workers

    context = get_context()
    torch.set_num_threads(config["threads"])
    work(config["job"], Workers(context.get_world_rank(), context.get_world_size()), get_device())
