"""One step of a training: losses and gradients of a batch, and what the optimiser makes of them.

Every random number of a step is seeded by (seed, step, part), so that a step that is done again
after a kill is the same step.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from models.blip.config import Dtype
from models.training.schedule import learning_rate
from models.training.workers import Workers
from pipeline.train.config import TrainConfig
from pipeline.train.dataloader import Batch, hash_text
from pipeline.train.objective import Objective, StepContext


def make_optimiser(network: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Make AdamW over the parameters that are trained."""
    return torch.optim.AdamW(
        _groups(network, config.rate.temperature),
        config.rate.highest,
        config.step.betas,
        weight_decay=config.step.weight_decay,
        fused=True,  # a step of base on a CPU takes a seventh of the time
    )


class Stepper:
    """Takes one worker's steps; all workers take each at the same time.

    Make it once network and optimiser hold the state to go on from: DDP sends round what the first
    worker has. `several` tasks: a step reaches only the parameters of its own.
    """

    def __init__(
        self,
        config: TrainConfig,
        dtype: Dtype,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        workers: Workers,
        *,
        several: bool,
    ) -> None:
        self._config, self._dtype, self._workers = config, dtype, workers
        self._network, self._optimiser = objective.network, optimiser
        self._device = next(objective.network.parameters()).device
        self._module: torch.nn.Module = objective
        if workers.size > 1:
            self._module = DistributedDataParallel(objective, find_unused_parameters=several)

    def set_rate(self, number: int, steps: int, epoch: float) -> float:
        """Set the rate of a step of so many, and return it; parameter groups multiply it."""
        rate = learning_rate(self._config.rate, number, steps, epoch)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        return rate

    def take(self, parts: Sequence[Batch], number: int, epoch: float) -> dict[str, Tensor]:
        """Take a step on a batch in parts; returns this worker's losses, still on its device.

        Nothing is waited for: the next step can be prepared while a GPU does this one.
        """
        sums = self._forward_backward(parts, number, epoch)
        norm = torch.nn.utils.clip_grad_norm_(
            self._network.parameters(), self._config.step.clip or math.inf
        )
        self._optimiser.step()
        self._optimiser.zero_grad()
        return sums | {"grad_norm": norm}

    def _forward_backward(
        self, parts: Sequence[Batch], number: int, epoch: float
    ) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            # gradients travel between workers once a step: with its last part
            with nullcontext() if index == len(parts) - 1 else self._no_sync():
                with torch.autocast(
                    self._device.type, torch.bfloat16, enabled=self._dtype == "bf16"
                ):
                    losses = self._module(part, self._seeded(number, index, epoch))
                (losses["loss"] / len(parts)).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach().float() / len(parts)
        return sums

    def _seeded(self, number: int, index: int, epoch: float) -> StepContext:
        """Seed the step: draws about pairs are alike on all workers, dropout is not."""
        seed = self._config.seed
        torch.manual_seed(_seed(seed, number, index, self._workers.rank))
        generator = torch.Generator(self._device).manual_seed(_seed(seed, number, index))
        return StepContext(epoch, generator, self._workers, index)

    def _no_sync(self) -> AbstractContextManager[None]:
        module = self._module
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def _groups(network: torch.nn.Module, temperature: float) -> list[dict[str, Any]]:
    """Part the trained parameters by what their rate is multiplied by."""
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    slow = [trained.pop("temp")] if "temp" in trained else []
    groups = [{"params": list(trained.values()), "factor": 1.0}]
    return [*groups, {"params": slow, "factor": temperature}] if slow else groups


def _seed(*numbers: int) -> int:
    return hash_text(repr(numbers))
