"""What the flows of trainings share."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.deployable.flow_run import FlowRun

if TYPE_CHECKING:
    from flows.stages.summary import Summary
    from flows.training.log import Display
    from flows.training.worker import TrainingJob


def sources_of(runs: Sequence[str] | None) -> list[dict[str, str]] | None:
    """Make sources of run folders, or none of none: as in the recipe."""
    return [{"run": run} for run in runs] if runs else None


def train(job: "TrainingJob", run: FlowRun) -> "Summary":
    """Train to the end, or from where it was cut off."""
    from flows.stages.summary import of_training
    from flows.training import run as training

    return of_training(training.run(job, display(job.steps, run)), job.folder)


def display(steps: int, run: FlowRun) -> "Display":
    """Make what shows a training of so many steps as the progress of a flow run."""
    from flows.stages.progress import training_line

    def show(line: Mapping[str, Any]) -> None:
        if "samples_per_s" in line:
            run.progress(line["step"] / steps, training_line(line, steps))

    return show
