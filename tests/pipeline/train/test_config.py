"""How long a training is, and how its batches are divided."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.train.config import StepConfig, check_division, count_steps
from tests.support.small_training import config_of


@pytest.mark.parametrize(
    ("step", "rows", "expected"),
    [
        (StepConfig(epochs=1, batch_size=10), 100, 10),
        (StepConfig(epochs=1, batch_size=10), 101, 11),
        (StepConfig(epochs=1.1, batch_size=1), 10, 11),  # 11.000000000000002 in binary numbers
        (StepConfig(epochs=0.5, batch_size=4), 20.4, 3),
        (StepConfig(epochs=None, steps=7, batch_size=10), 100, 7),
    ],
)
def test_epochs_are_counted_in_steps(step: StepConfig, rows: float, expected: int) -> None:
    assert count_steps(step, rows) == expected


@pytest.mark.parametrize(
    ("workers", "step", "message"),
    [
        (4, {}, r"data\.lanes is 6, which 4 workers do not divide"),
        (
            1,
            {"batch_size": 8},
            r"step\.batch_size is 8; expected a multiple .* = 6\. .*lanes to 2$",
        ),
        (
            1,
            {"accumulate": 2},
            r"step\.batch_size is 6; expected a multiple .* = 12\. .*lanes to 3$",
        ),
        (1, {"accumulate": 4}, r"expected a multiple .* = 24\. Choose such a batch$"),
        (1, {"epochs": 2.0}, r"give one of step\.epochs and step\.steps"),
        (1, {"steps": None}, r"give one of step\.epochs and step\.steps"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    tmp_path: Path, workers: int, step: dict[str, Any], message: str
) -> None:
    config = config_of(tmp_path)
    changed = config.model_copy(update={"step": config.step.model_copy(update=step)})
    check_division(config, 3)
    with pytest.raises(ValueError, match=message):
        check_division(changed, workers)


def test_a_training_without_a_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"give one of step\.epochs and step\.steps"):
        count_steps(StepConfig(epochs=None, steps=None), 10)
