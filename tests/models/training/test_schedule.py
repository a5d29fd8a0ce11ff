"""The learning rate and the share of soft targets, against the original's loops."""

import math
from itertools import pairwise

import pytest
from pydantic import ValidationError

from models.training.schedule import RateConfig, distillation_alpha, learning_rate


def originals(per_epoch: int, epochs: int, warmup_steps: int) -> list[float]:
    """Go through an epoch's steps as the original's pre-training does.

    Its warm-up is called within the first epoch alone, its decay at the start of each later one.
    """
    rates, rate = [], 0.0
    for epoch in range(epochs):
        if epoch > 0:
            rate = max(1e-6, 3e-4 * 0.9**epoch)
        for step in range(per_epoch):
            if epoch == 0:
                rate = min(3e-4, 1e-6 + (3e-4 - 1e-6) * step / max(warmup_steps, 1))
            rates.append(rate)
    return rates


def ours(config: RateConfig, per_epoch: int, epochs: int) -> list[float]:
    steps = per_epoch * epochs
    return [learning_rate(config, step, steps, step / per_epoch) for step in range(steps)]


def test_the_defaults_are_the_originals_where_an_epoch_holds_the_warmup() -> None:
    expected = originals(per_epoch=4_000, epochs=4, warmup_steps=3_000)
    assert ours(RateConfig(), 4_000, 4) == pytest.approx(expected)


def test_a_warmup_goes_on_into_later_epochs_without_a_jump() -> None:
    config = RateConfig(warmup_steps=100)
    rates = ours(config, per_epoch=40, epochs=5)
    rises = [after - before for before, after in pairwise(rates)]
    assert rises[:99] == pytest.approx([(3e-4 - 1e-6) / 100] * 99)
    assert rates[99] < rates[100] + 3e-4 * 0.2  # from where the decay has come by then
    assert rates[100] == pytest.approx(3e-4 * 0.9**2)
    assert max(rates) < 3e-4


def test_without_a_warmup_the_first_step_has_the_highest_rate() -> None:
    for decay in ("exponential", "cosine"):
        config = RateConfig(warmup_steps=0, decay=decay)
        assert learning_rate(config, 0, 10, 0) == config.highest


def test_exponential_decay_stops_at_the_lowest() -> None:
    config = RateConfig(warmup_steps=0, factor=0.1, lowest=1e-5)
    assert [learning_rate(config, 1, 9, epoch) for epoch in (0, 0.9, 1, 1.5, 2, 7)] == (
        pytest.approx([3e-4, 3e-4, 3e-5, 3e-5, 1e-5, 1e-5])
    )


def test_cosine_goes_from_the_highest_to_the_lowest() -> None:
    config = RateConfig(highest=1e-3, lowest=1e-4, warmup_steps=10, decay="cosine")
    rates = [learning_rate(config, step, 110, 0) for step in range(110)]
    assert rates[10] == 1e-3
    assert rates[60] == pytest.approx((1e-3 + 1e-4) / 2)
    for step in range(10, 109):
        assert rates[step] > rates[step + 1]
    share = (1 + math.cos(math.pi * 0.99)) / 2
    assert rates[-1] == pytest.approx(1e-4 + 9e-4 * share)
    assert learning_rate(config, 110, 110, 0) == pytest.approx(1e-4)


def test_a_training_shorter_than_its_warmup_has_a_rate() -> None:
    config = RateConfig(warmup_steps=10, decay="cosine")
    rates = [learning_rate(config, step, 5, 0) for step in range(5)]
    assert rates == sorted(rates)
    assert rates[0] == config.warmup_from
    assert learning_rate(config, 10, 10, 0) == config.highest


def test_soft_targets_come_in_linearly_and_stay() -> None:
    steps = 50  # of an epoch
    for epoch in range(4):
        for step in range(steps):
            original = 0.4 * min(1, (epoch * steps + step) / (2 * steps))
            assert distillation_alpha(0.4, epoch + step / steps, 2) == pytest.approx(original)


def test_without_a_ramp_soft_targets_are_there_from_the_start() -> None:
    assert distillation_alpha(0.4, 0, 0) == 0.4


@pytest.mark.parametrize(
    "wrong", [{"highest": 0}, {"factor": 1.1}, {"warmup_steps": -1}, {"decay": "linear"}]
)
def test_a_rate_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RateConfig.model_validate(wrong)
