"""The local launcher: one worker, in this process."""

from typing import TYPE_CHECKING

import torch

from models.training.workers import ALONE

if TYPE_CHECKING:
    from flows.training.run import TrainingJob


def launch(job: "TrainingJob") -> None:
    """Train here, on the GPU if there is one."""
    from flows.training.run import work

    device = "cuda" if torch.cuda.is_available() else "cpu"
    work(job, ALONE, torch.device(device))
