"""The training loop: batches in, steps taken, state saved so that a kill costs nothing but time.

The random numbers of a step are seeded by its number, and the stream knows its place by numbers
of samples: a training that is killed and started again computes what it would have computed. On a
CPU, with as many threads, to the last bit.
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from models.blip.config import Dtype
from models.training.augment import Augment
from models.training.workers import Workers
from pipeline.media.decode import DecodeLimits
from pipeline.train import state as training_state
from pipeline.train.alarm import Alarms
from pipeline.train.config import TrainConfig, count_steps
from pipeline.train.dataloader import BatchLoader, TextTransform
from pipeline.train.mixture import Positions, TaskMixture, TaskSource
from pipeline.train.numbers import PendingNumbers
from pipeline.train.objective import Objective
from pipeline.train.state import TrainerProgress
from pipeline.train.step import Stepper, make_optimiser
from shards.files.durable import sync
from shards.training.order import lanes_of
from shards.training.source import Source
from shards.training.stream import TrainingStream

_log = logging.getLogger(__name__)


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


def train(
    config: TrainConfig,
    dtype: Dtype,
    sources: Sequence[Source],
    objective: Objective,
    context: TrainingContext,
    joining: TaskSource | None = None,
) -> TrainResult:
    """Train to the end, from the newest state in the folder if there is one.

    `joining` is a second task, with its share of the steps.
    """
    first = TaskSource(sources, config.data.max_tokens, objective.clean)
    tasks = [first] if joining is None else [replace(first, share=1 - joining.share), joining]
    return _Training(config, dtype, tasks, objective, context).to_the_end()


class _Training:
    """One worker's part of a training."""

    def __init__(
        self,
        config: TrainConfig,
        dtype: Dtype,
        tasks: Sequence[TaskSource],
        objective: Objective,
        context: TrainingContext,
    ) -> None:
        self._config, self._tasks = config, tasks
        self._objective, self._workers = objective, context.workers
        self._states = context.folder / "states"
        self._log_file = context.folder / "metrics.jsonl"
        objective.to_device(context.device)
        objective.network.train()
        self._optimiser = make_optimiser(objective.network, config)
        self._progress = self._resume()
        progress = self._progress
        self._alarms = Alarms(
            config.save.itm_patience_samples,
            progress.itm,
            list(progress.alarms),
            progress.log_temperature,
        )
        several = len(tasks) > 1
        self._stepper = Stepper(
            config, dtype, objective, self._optimiser, context.workers, several=several
        )
        self._pending = PendingNumbers(context.workers)
        self._written_at, self._written_samples = time.monotonic(), self._progress.samples
        self._epoch_rows = 1.0

    @property
    def _epoch(self) -> float:
        """How many epochs are done; alike on all workers, whatever pictures were left out."""
        return self._progress.samples / self._epoch_rows

    @property
    def _first(self) -> bool:
        return self._workers.rank == 0

    def to_the_end(self) -> TrainResult:
        """Take all steps that are left."""
        config, positions = self._config, self._progress.positions
        open_task = partial(open_loader, config, self._objective, self._workers)
        opened = TaskMixture(self._tasks, open_task, config.data.lanes, config.seed, positions)
        with closing(opened) as mixture:
            self._epoch_rows = mixture.rows_per_epoch
            steps = count_steps(config.step, mixture.rows_per_epoch)
            while self._progress.step < steps:
                self._step(mixture, steps)
                every = config.save.every_steps
                if self._progress.step % every == 0 or self._progress.step == steps:
                    self._save()
        whole = self._whole()
        return TrainResult(
            whole.step, whole.samples, self._epoch, whole.left_out, whole.alarms, whole.numbers
        )

    def _resume(self) -> TrainerProgress:
        """Load the newest state, or begin; other workers than before may share the lanes anew."""
        # the first worker's choice: a folder on a network may look older from elsewhere
        state = self._workers.collect(training_state.newest_state(self._states))[0]
        if state is None:
            lanes = range(self._config.data.lanes * len(self._tasks))
            progress = TrainerProgress(0, 0, dict.fromkeys(lanes, 0), {})
        else:
            objective = self._objective
            progress = training_state.load_state(
                state, objective.network, objective.queue, self._optimiser
            )
        progress = replace(progress, positions=self._local(progress.positions))
        if not self._first:
            return replace(progress, left_out={})  # the counts of all go on at the first worker
        training_state.remove_partial(self._states)
        # lines are written at once and states now and then: a kill leaves lines of lost steps
        training_state.drop_lines_after(self._log_file, progress.step)
        return progress

    def _local(self, positions: Positions) -> dict[int, int]:
        """Pick this worker's lanes, in all tasks."""
        lanes, workers = self._config.data.lanes, self._workers
        mine = lanes_of(workers.rank, workers.size, lanes)
        return {lane: taken for lane, taken in positions.items() if lane % lanes in mine}

    def _step(self, mixture: TaskMixture, steps: int) -> None:
        config, progress, number = self._config, self._progress, self._progress.step
        parts, moved = mixture.take(number, config.step.accumulate)
        rate = self._stepper.set_rate(number, steps, self._epoch)
        samples = progress.samples + config.step.batch_size
        self._pending.add(number + 1, samples, self._stepper.take(parts, number, self._epoch))
        self._progress = replace(
            progress,
            step=number + 1,
            samples=samples,
            positions={**progress.positions, **moved},
            left_out=_sum([progress.left_out, *(part.left_out for part in parts)]),
        )
        if self._progress.step % config.save.log_every == 0:
            self._read_numbers()
            if self._first:
                self._write_numbers(rate)

    def _read_numbers(self) -> None:
        """Look at the numbers of all steps since the last look; all workers look at once."""
        for done in self._pending.read():
            fresh = self._alarms.check(done.step, done.samples, done.values)
            for alarm in fresh if self._first else ():
                _log.warning("step %d: %s", done.step, alarm)
            self._progress = replace(
                self._progress,
                numbers=done.values,
                alarms=tuple(self._alarms.raised),
                itm=self._alarms.itm,
                log_temperature=self._alarms.log_temperature,
            )

    def _write_numbers(self, rate: float) -> None:
        progress = self._progress
        line = {"step": progress.step, "epoch": self._epoch, "samples": progress.samples}
        now = time.monotonic()
        pace = (progress.samples - self._written_samples) / max(now - self._written_at, 1e-9)
        self._written_at, self._written_samples = now, progress.samples
        line |= {"rate": rate} | progress.numbers | {"samples_per_s": pace}
        training_state.append_line(self._log_file, line)

    def _save(self) -> None:
        self._read_numbers()  # what comes after a loss that is no number is worthless
        whole = self._whole()  # asked for by all workers, before all but the first turn back
        if not self._first:
            return
        if self._log_file.exists():
            sync(self._log_file)  # or a power cut could take lines that no step will write again
        objective, keep = self._objective, self._config.save.keep
        training_state.save_state(
            self._states, objective.network, objective.queue, self._optimiser, whole, keep
        )

    def _whole(self) -> TrainerProgress:
        """Put together how far all workers are; all of them must ask, or the others wait."""
        progress = self._progress
        parts = self._workers.collect((progress.positions, progress.left_out))
        positions = {lane: taken for local, _ in parts for lane, taken in local.items()}
        left_out = _sum([counts for _, counts in parts])
        return replace(progress, positions=positions, left_out=left_out)


def open_loader(
    config: TrainConfig,
    objective: Objective,
    workers: Workers,
    task: TaskSource,
    positions: Positions,
) -> BatchLoader:
    """Open a task's batches at the positions of this worker's lanes."""
    data, step, about = config.data, config.step, objective.about
    stream = TrainingStream(
        task.sources,
        config.seed,
        data.lanes,
        data.shuffle,
        lanes_of(workers.rank, workers.size, data.lanes),
        positions,
    )
    return BatchLoader(
        stream,
        Augment(about.preprocess, config.augment),
        TextTransform(about.tokenizer, task.max_tokens, task.clean),
        step.batch_size // (data.lanes * step.accumulate),
        DecodeLimits(data.min_side, data.max_pixels, data.max_aspect),
        data.decode_threads,
        pin=objective.device.type == "cuda",
    )


def _sum(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(sorted(total.items()))
