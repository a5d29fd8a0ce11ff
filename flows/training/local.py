"""The local launcher: one worker, in this process."""

import torch

from flows.training.worker import TrainingJob, work
from models.training.workers import ALONE


def launch(job: TrainingJob) -> None:
    """Train here, on the GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    work(job, ALONE, torch.device(device))
