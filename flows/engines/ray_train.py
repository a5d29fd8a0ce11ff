"""The Ray launcher: workers of one training, placed and joined by Ray Train.

Ray Train gives each worker its place, its device and a process group (gloo on CPUs, nccl on GPUs).
Data, checkpoints and numbers are our own: a worker that is lost ends the group, which begins again
from the newest state. The training folder must be reachable from all machines.
"""

from typing import TYPE_CHECKING, Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from flows.engines.engine import EngineError
from flows.engines.ray_session import check_rooms, ray_session

if TYPE_CHECKING:
    from flows.train import Job


def launch(job: "Job") -> None:
    """Train on Ray; raises EngineError where its workers fail."""
    with ray_session(job.recipe.launch.address):
        workers, cpus, gpu = _share(job)
        trainer = TorchTrainer(
            _loop,
            train_loop_config={"job": job, "threads": cpus},
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": cpus}
            ),
            run_config=RunConfig(
                name="ray",
                storage_path=str(job.folder),
                failure_config=FailureConfig(max_failures=job.recipe.launch.restarts),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:  # of many kinds, with the worker's own trace in its text
            raise EngineError(f"the training on Ray failed: {error}") from error


def _share(job: "Job") -> tuple[int, int, bool]:
    """Divide the cluster: number of workers, processors of each, and whether each has a GPU."""
    from pipeline.train import check_division

    found = ray.cluster_resources()
    all_cpus, gpus = int(found.get("CPU", 1)), int(found.get("GPU", 0))
    launch = job.recipe.launch
    workers = max(gpus, 1) if launch.workers == "auto" else launch.workers
    check_division(job.recipe, workers)
    asked = launch.cpus_per_worker
    cpus = max(1, all_cpus // workers) if asked == "auto" else asked
    return workers, cpus, gpus > 0


def _loop(config: dict[str, Any]) -> None:
    """Do one worker's part."""
    check_rooms()
    import torch

    from flows.train import work
    from models.workers import Workers

    context = get_context()
    torch.set_num_threads(config["threads"])
    work(config["job"], Workers(context.get_world_rank(), context.get_world_size()), get_device())
