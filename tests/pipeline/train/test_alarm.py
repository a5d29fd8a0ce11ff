"""Alarms say what a training's numbers show, once, also across a restart."""

import math
from pathlib import Path

import pytest
import torch

from models.training import losses
from models.training.schedule import RateConfig
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from pipeline.train import pretrain
from pipeline.train.alarm import ITM_PRIOR, Alarms, TrainingDiverged
from pipeline.train.config import SaveConfig, StepConfig
from tests.support.small_training import config_of, run, sources_of

PATIENCE = 1_000
FINE = {"itc": 3.0, "itm": 0.3, "lm": 2.0, "temperature": 0.06}


def said(alarms: Alarms, numbers: dict[str, float], steps: int, samples: int = 100) -> list[str]:
    """Look at the same numbers for some steps of so many samples."""
    return [
        text
        for step in range(1, steps + 1)
        for text in alarms.check(step, samples * step, FINE | numbers)
    ]


def test_the_prior_is_the_best_loss_of_a_head_that_sees_nothing() -> None:
    labels = torch.tensor([1, 0, 0]).repeat(50)
    best = min(
        losses.matching(torch.tensor([[0.0, bias]]).expand(150, 2), labels, torch.ones(150)).item()
        for bias in torch.linspace(-2, 2, 401).tolist()
    )
    assert best == pytest.approx(ITM_PRIOR, abs=1e-5)


def test_a_loss_at_the_prior_is_said_once_and_only_after_patience() -> None:
    alarms = Alarms(PATIENCE)
    assert said(alarms, {"itm": ITM_PRIOR}, 9) == []
    (text,) = said(alarms, {"itm": ITM_PRIOR}, 40)
    assert text.startswith("itm at its prior: after 1000 samples")
    assert f"{ITM_PRIOR:.4f}" in text


def test_single_steps_above_and_below_do_not_hide_the_prior() -> None:
    alarms = Alarms(PATIENCE)
    found = [
        text
        for step in range(1, 150)
        for text in alarms.check(step, 100 * step, FINE | {"itm": ITM_PRIOR + 0.05 * (-1) ** step})
    ]
    assert len(found) == 1


@pytest.mark.parametrize("itm", [0.3, 0.6, 0.68])
def test_a_loss_apart_from_the_prior_is_no_alarm(itm: float) -> None:
    assert said(Alarms(PATIENCE), {"itm": itm}, 50) == []


def test_a_loss_that_passes_the_prior_on_its_way_down_is_no_alarm() -> None:
    alarms = Alarms(PATIENCE)
    for step in range(1, 400):
        assert alarms.check(step, 2 * step, FINE | {"itm": 0.7 - 0.0005 * step}) == []


@pytest.mark.parametrize(("value", "count"), [(0.001, 1), (0.5, 1), (0.002, 0), (0.4, 0)])
def test_a_temperature_at_its_bound_is_said_once(value: float, count: int) -> None:
    found = said(Alarms(PATIENCE), {"temperature": value}, 20)
    assert len(found) == count
    assert all(text.startswith("temperature at its bound") for text in found)


def told(course: list[float]) -> list[tuple[int, str]]:
    """Look at a course of temperatures: the steps of what is said, and its kind."""
    alarms = Alarms(PATIENCE)
    return [
        (step, text.split(":")[0])
        for step, value in enumerate(course)
        for text in alarms.check(step, step, FINE | {"temperature": value})
    ]


def course(to: float, steps: int, geometric: bool = False) -> list[float]:
    """Go from where training starts to a temperature, in equal steps or by equal factors."""
    shares = [n / steps for n in range(steps + 1)]
    if geometric:
        return [0.07 * (to / 0.07) ** share for share in shares]
    return [0.07 + share * (to - 0.07) for share in shares]


@pytest.mark.parametrize(
    ("temperatures", "latest"),
    [
        (course(0.0055, 160, geometric=True), 60),  # a toy pre-training that went to pieces
        (course(0.016, 400), 400),  # one that the toy world's ITM hardly survived
        (course(0.0055, 160), 160),
    ],
)
def test_a_temperature_that_falls_fast_is_told_in_time(
    temperatures: list[float], latest: int
) -> None:
    ((step, kind),) = told(temperatures)
    assert kind == "temperature falls fast"
    assert step <= latest
    assert temperatures[step] > 0.01  # ten times the bound


@pytest.mark.parametrize(
    "temperatures",
    [
        course(0.044, 1_000),
        course(0.02, 2_000),
        course(0.01, 4_000, geometric=True),
        course(0.3, 100),
        [0.07, *[0.05] * 500],
    ],
)
def test_a_temperature_that_learns_in_peace_is_no_alarm(temperatures: list[float]) -> None:
    assert told(temperatures) == []


def test_a_fall_goes_over_a_restart() -> None:
    temperatures = course(0.0055, 160, geometric=True)
    before = Alarms(PATIENCE)
    for step, value in enumerate(temperatures[:40]):
        assert before.check(step, step, FINE | {"temperature": value}) == []
    after = Alarms(PATIENCE, before.itm, [], before.log_temperature)
    said_at = [
        step
        for step, value in enumerate(temperatures[40:], 40)
        if after.check(step, step, FINE | {"temperature": value})
    ]
    assert said_at == [step for step, _ in told(temperatures)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["itc", "grad_norm"])
def test_what_is_no_number_ends_the_training(name: str, value: float) -> None:
    with pytest.raises(TrainingDiverged, match=rf"step 7: {name} is not finite") as raised:
        Alarms(PATIENCE).check(7, 100, FINE | {name: value})
    assert "rate.highest" in str(raised.value)


def test_losses_without_itm_and_temperature_are_looked_at_too() -> None:
    assert Alarms(0).check(1, 10, {"lm": 2.0}) == []
    with pytest.raises(TrainingDiverged):
        Alarms(0).check(1, 10, {"lm": math.nan})


def test_average_and_alarms_go_over_a_restart() -> None:
    whole, before = Alarms(PATIENCE), Alarms(PATIENCE)
    numbers = [0.9 - 0.003 * step for step in range(200)]

    def look(alarms: Alarms, steps: range) -> list[str]:
        return [
            text
            for step in steps
            for text in alarms.check(step, 100 * step, FINE | {"itm": numbers[step]})
        ]

    expected = look(whole, range(200))
    assert len(expected) == 1
    for stop in (1, 50, 150, 199):
        before = Alarms(PATIENCE)
        first = look(before, range(stop))
        after = Alarms(PATIENCE, before.itm, list(before.raised))
        assert first + look(after, range(stop, 200)) == expected, stop
        assert after.itm == whole.itm


@pytest.mark.nightly
@pytest.mark.parametrize(("share", "raised"), [(1.0, ["temperature falls fast"]), (0.02, [])])
def test_a_temperature_that_falls_in_a_real_training_is_told(
    tmp_path: Path, share: float, raised: list[str]
) -> None:
    """At too high a rate it halves within some forty steps; at a low one of its own it stays."""
    world = tmp_path / "world"
    write_toy_world(world, ToyWorldConfig(samples=48, samples_per_shard=12, image_px=32))
    config = config_of(
        world,
        rate=RateConfig(highest=5e-3, warmup_steps=3, factor=1, temperature=share),
        step=StepConfig(epochs=None, steps=60, batch_size=12),
        save=SaveConfig(every_steps=100, log_every=20),
    )
    pretrain.write_start(tmp_path / "start", config, sources_of(config))
    ended, _ = run(config, tmp_path / "start", tmp_path / "trained")
    assert [alarm.split(":")[0] for alarm in ended.alarms] == raised
