"""The training loop: batches in, steps taken, state saved so that a kill costs nothing but time.

Every random number of a step is seeded by (seed, step), and the stream knows its place by numbers
of samples: a training that is killed and started again computes what it would have computed. On a
CPU, with as many threads, to the last bit.
"""

import hashlib
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from models.blip.config import Dtype
from models.checkpoints.folder import sync
from models.training.augment import Augment, AugmentConfig
from models.training.schedule import RateConfig, learning_rate
from models.training.workers import Workers
from pipeline.media.decode import DecodeLimits
from pipeline.train import state as training_state
from pipeline.train.alarm import Alarms
from pipeline.train.dataloader import Batch, BatchLoader, TextTransform
from pipeline.train.mixture import Positions, TaskMixture, TaskSource
from pipeline.train.objective import Objective, StepContext
from pipeline.train.state import TrainerProgress
from shards.training.order import lanes_of
from shards.training.source import Source, SourceConfig
from shards.training.stream import TrainingStream

_log = logging.getLogger(__name__)
_FROZEN = ConfigDict(frozen=True, extra="forbid")


class LoaderConfig(BaseModel):
    """How samples are read; `lanes` is the most workers there can be, and all must divide it."""

    model_config = _FROZEN

    max_tokens: int = Field(30, ge=3, description="of a text, [CLS] and [SEP] included")
    lanes: int = Field(12, ge=1)
    shuffle: int = Field(1_000, ge=1, description="samples of each lane that wait for their turn")
    min_side: int = Field(16, ge=1, description="pixels")
    max_pixels: int = Field(50_000_000, ge=1)
    max_aspect: float = Field(20, ge=1)
    decode_threads: int = Field(2, ge=1)


class DataConfig(LoaderConfig):
    """What is trained on, and how it is read."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1)


class StepConfig(BaseModel):
    """How long to train, on how much at a time; either `epochs` or `steps` counts."""

    model_config = _FROZEN

    epochs: float | None = Field(20, gt=0)
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(2_880, ge=1, description="pairs of all workers in one step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is computed in")
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = Field(None, gt=0, description="largest norm of a step's gradient")


class SaveConfig(BaseModel):
    """How often the state is saved, and what is said on the way."""

    model_config = _FROZEN

    every_steps: int = Field(1_000, ge=1)
    keep: int = Field(2, ge=1)
    log_every: int = Field(50, ge=1)
    itm_patience_samples: int = Field(1_000_000, ge=1, description="before the alarm of ITM")


class OptimizationConfig(BaseModel):
    """How pictures are varied, how fast and for how long is learned."""

    model_config = _FROZEN

    augment: AugmentConfig = AugmentConfig()
    rate: RateConfig = RateConfig()
    step: StepConfig = StepConfig()


class TrainConfig(OptimizationConfig):
    """What pre-training and finetuning have in common."""

    seed: int = 0
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    data: DataConfig
    save: SaveConfig = SaveConfig()


@dataclass(frozen=True, slots=True)
class TrainingContext:
    """Where a training runs: its folder, its device, and this worker among all."""

    folder: Path
    device: torch.device
    workers: Workers


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training came to, as the first worker knows it."""

    steps: int
    samples: int
    epochs: float
    left_out: dict[str, int]
    alarms: tuple[str, ...]
    numbers: dict[str, float]


def count_steps(config: StepConfig, rows_per_epoch: float) -> int:
    """Count the steps: given, or as many as the epochs need, the last one filled up."""
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    # rounded first: 1.1 epochs of 10 rows are 11 rows, and a little more in binary numbers
    return math.ceil(round(config.epochs * rows_per_epoch / config.batch_size, 6))


def check_division(config: TrainConfig, workers: int) -> None:
    """Raise ValueError unless lanes divide among workers, and a batch among lanes and parts."""
    lanes, step = config.data.lanes, config.step
    if lanes % workers:
        raise ValueError(
            f"data.lanes is {lanes}, which {workers} workers do not divide; choose other workers"
        )
    if step.batch_size % (lanes * step.accumulate):
        raise ValueError(
            f"step.batch_size is {step.batch_size}; expected a multiple of data.lanes x "
            f"step.accumulate = {lanes * step.accumulate}"
        )
    if (step.epochs is None) == (step.steps is None):
        raise ValueError("give one of step.epochs and step.steps, and null for the other")


def train(
    config: TrainConfig,
    dtype: Dtype,
    sources: Sequence[Source],
    objective: Objective,
    place: TrainingContext,
    beside: TaskSource | None = None,
) -> TrainResult:
    """Train to the end, from the newest state in the folder if there is one.

    `beside` is a second course, with its share of the steps.
    """
    first = TaskSource(sources, config.data.max_tokens, objective.clean)
    courses = [first] if beside is None else [replace(first, share=1 - beside.share), beside]
    return _Training(config, dtype, courses, objective, place).to_the_end()


class _Training:
    """One worker's part of a training."""

    def __init__(
        self,
        config: TrainConfig,
        dtype: Dtype,
        courses: Sequence[TaskSource],
        objective: Objective,
        place: TrainingContext,
    ) -> None:
        self._config, self._dtype, self._courses = config, dtype, courses
        self._objective, self._place = objective, place
        self._states = place.folder / "states"
        self._log_file = place.folder / "metrics.jsonl"
        objective.to_device(place.device)
        objective.network.train()
        self._optimiser = torch.optim.AdamW(
            _groups(objective.network, config.rate.temperature),
            config.rate.highest,
            config.step.betas,
            weight_decay=config.step.weight_decay,
            fused=True,  # a step of base on a CPU takes a seventh of the time
        )
        self._progress = self._take_up()
        self._alarms = Alarms(
            config.save.itm_patience_samples, self._progress.itm, list(self._progress.alarms)
        )
        self._module = self._distributed()
        self._rate_from = (time.monotonic(), self._progress.samples)
        self._epoch_rows = 1.0

    @property
    def _epoch(self) -> float:
        """How many epochs are done; alike on all workers, whatever pictures were left out."""
        return self._progress.samples / self._epoch_rows

    @property
    def _first(self) -> bool:
        return self._place.workers.rank == 0

    def to_the_end(self) -> TrainResult:
        """Take all steps that are left."""
        config, positions = self._config, self._progress.positions
        opened = TaskMixture(self._courses, self._feed, config.data.lanes, config.seed, positions)
        with closing(opened) as courses:
            self._epoch_rows = courses.rows_per_epoch
            steps = count_steps(config.step, courses.rows_per_epoch)
            while self._progress.step < steps:
                self._step(courses, steps)
                every = config.save.every_steps
                if self._progress.step % every == 0 or self._progress.step == steps:
                    self._save()
        whole = self._whole()
        return TrainResult(
            whole.step, whole.samples, self._epoch, whole.left_out, whole.alarms, whole.numbers
        )

    def _take_up(self) -> TrainerProgress:
        # the first worker's choice: a folder on a network may look older from elsewhere
        state = self._place.workers.collect(training_state.newest_state(self._states))[0]
        if state is None:
            lanes = range(self._config.data.lanes * len(self._courses))
            progress = TrainerProgress(0, 0, dict.fromkeys(lanes, 0), {})
        else:
            objective = self._objective
            progress = training_state.load_state(
                state, objective.network, objective.queue, self._optimiser
            )
        progress = replace(progress, positions=self._mine(progress.positions))
        if not self._first:
            return replace(progress, left_out={})  # the counts of all go on at the first worker
        training_state.remove_partial(self._states)
        training_state.drop_lines_after(self._log_file, progress.step)
        return progress

    def _mine(self, positions: Positions) -> dict[int, int]:
        """Pick this worker's lanes, in all courses."""
        lanes, workers = self._config.data.lanes, self._place.workers
        mine = lanes_of(workers.rank, workers.size, lanes)
        return {lane: taken for lane, taken in positions.items() if lane % lanes in mine}

    def _distributed(self) -> torch.nn.Module:
        if self._place.workers.size == 1:
            return self._objective
        # a step of one course reaches what that one trains
        some = len(self._courses) > 1
        return DistributedDataParallel(self._objective, find_unused_parameters=some)

    def _feed(self, course: TaskSource, positions: Positions) -> BatchLoader:
        data, step, workers = self._config.data, self._config.step, self._place.workers
        stream = TrainingStream(
            course.sources,
            self._config.seed,
            data.lanes,
            data.shuffle,
            lanes_of(workers.rank, workers.size, data.lanes),
            positions,
        )
        about = self._objective.about
        wording = TextTransform(about.tokenizer, course.max_tokens, course.clean)
        return BatchLoader(
            stream,
            Augment(about.preprocess, self._config.augment),
            wording,
            step.batch_size // (data.lanes * step.accumulate),
            DecodeLimits(data.min_side, data.max_pixels, data.max_aspect),
            data.decode_threads,
        )

    def _step(self, courses: TaskMixture, steps: int) -> None:
        config, progress, number = self._config, self._progress, self._progress.step
        parts, moved = courses.take(number, config.step.accumulate)
        rate = learning_rate(config.rate, number, steps, self._epoch)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        sums = self._forward_backward(parts, number)
        norm = torch.nn.utils.clip_grad_norm_(
            self._objective.network.parameters(), config.step.clip or math.inf
        )
        self._optimiser.step()
        self._optimiser.zero_grad()
        numbers = self._average(sums) | {"grad_norm": norm.item()}
        fresh = self._look(numbers)
        self._progress = TrainerProgress(
            number + 1,
            progress.samples + config.step.batch_size,
            {**progress.positions, **moved},
            _sum([progress.left_out, *(part.left_out for part in parts)]),
            numbers,
            (*progress.alarms, *fresh),
            self._alarms.itm,
        )
        self._tell(rate)

    def _forward_backward(self, parts: Sequence[Batch], number: int) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            moment = self._moment(number, index)
            with self._no_sync() if not last else nullcontext():
                with torch.autocast(
                    self._place.device.type, torch.bfloat16, enabled=self._dtype == "bf16"
                ):
                    losses = self._module(part, moment)
                (losses["loss"] / len(parts)).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach().float() / len(parts)
        return sums

    def _moment(self, number: int, index: int) -> StepContext:
        """Seed the step: draws about pairs are alike on all workers, dropout is not."""
        workers, device = self._place.workers, self._place.device
        torch.manual_seed(_seed(self._config.seed, number, index, workers.rank))
        generator = torch.Generator(device).manual_seed(_seed(self._config.seed, number, index))
        return StepContext(self._epoch, generator, workers, index)

    def _no_sync(self) -> Any:  # noqa: ANN401 - a context
        module = self._module
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def _average(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        together = self._place.workers.mean(torch.stack(list(sums.values())))
        return dict(zip(sums, cast(list[float], together.tolist()), strict=True))

    def _look(self, numbers: Mapping[str, float]) -> list[str]:
        """Check the numbers of a step, before anything is saved."""
        step = self._progress.step + 1
        samples = self._progress.samples + self._config.step.batch_size
        fresh = self._alarms.check(step, samples, numbers)
        for alarm in fresh if self._first else ():
            _log.warning("step %d: %s", step, alarm)
        return fresh

    def _tell(self, rate: float) -> None:
        """Write the numbers down now and then."""
        progress = self._progress
        if not self._first or progress.step % self._config.save.log_every:
            return
        now = time.monotonic()
        began, samples = self._rate_from
        pace = (progress.samples - samples) / max(now - began, 1e-9)
        self._rate_from = (now, progress.samples)
        line = {"step": progress.step, "epoch": self._epoch, "samples": progress.samples}
        line |= {"rate": rate} | progress.numbers | {"samples_per_s": pace}
        training_state.append_line(self._log_file, line)

    def _save(self) -> None:
        whole = self._whole()
        if not self._first:
            return
        objective = self._objective
        beside = {} if objective.queue is None else objective.queue.state_dict()
        if self._log_file.exists():
            sync(self._log_file)  # or a power cut could take lines that no step will write again
        keep = self._config.save.keep
        training_state.save_state(
            self._states, objective.network, beside, self._optimiser, whole, keep
        )

    def _whole(self) -> TrainerProgress:
        """Put together how far all workers are; all of them must ask."""
        progress = self._progress
        found = self._place.workers.collect((progress.positions, progress.left_out))
        positions = {lane: taken for places, _ in found for lane, taken in places.items()}
        left_out = _sum([counts for _, counts in found])
        return replace(progress, positions=positions, left_out=left_out)


def _sum(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(sorted(total.items()))


def _groups(network: torch.nn.Module, temperature: float) -> list[dict[str, Any]]:
    """Part the trained parameters by what their rate is multiplied by."""
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    slow = [trained.pop("temp")] if "temp" in trained else []
    groups = [{"params": list(trained.values()), "factor": 1.0}]
    return [*groups, {"params": slow, "factor": temperature}] if slow else groups


def _seed(*numbers: int) -> int:
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
