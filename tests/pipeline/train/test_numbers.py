"""Numbers of steps are read together, and are those of their own step."""

import torch

from models.training.workers import ALONE, Workers
from pipeline.train.numbers import PendingNumbers, StepNumbers


def test_steps_are_read_in_order_with_the_names_of_each() -> None:
    pending = PendingNumbers(ALONE)
    assert pending.read() == []
    pending.add(1, 6, {"loss": torch.tensor(1.5), "itm": torch.tensor(0.5)})
    pending.add(2, 12, {"loss": torch.tensor(2.0, dtype=torch.bfloat16)})  # of another task
    assert pending.read() == [
        StepNumbers(1, 6, {"loss": 1.5, "itm": 0.5}),
        StepNumbers(2, 12, {"loss": 2.0}),
    ]
    assert pending.read() == []


def test_they_are_the_mean_of_all_workers() -> None:
    class Other(Workers):
        def mean(self, value: torch.Tensor) -> torch.Tensor:
            return (value + 3) / 2  # another one has 3 of everything

    pending = PendingNumbers(Other(0, 2))
    pending.add(1, 6, {"loss": torch.tensor(1.0)})
    assert pending.read()[0].values == {"loss": 2.0}
