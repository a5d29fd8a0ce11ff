"""A step: which parameters it moves, how fast, and what its random numbers depend on."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.blip.tokenizer import WordPiece
from models.training.schedule import RateConfig
from models.training.workers import ALONE
from pipeline.train import pretrain
from pipeline.train.config import StepConfig
from pipeline.train.dataloader import Batch
from pipeline.train.finetune import start_finetuning
from pipeline.train.loop import open_loader
from pipeline.train.mixture import TaskSource
from pipeline.train.pretrain_config import PretrainConfig
from pipeline.train.step import Stepper, make_optimiser
from tests.support import small_finetuning
from tests.support.small_training import BATCH, config_of, sources_of


@pytest.fixture(scope="module")
def config(world: Path) -> PretrainConfig:
    rate = RateConfig(highest=1e-2, warmup_steps=0, temperature=0.1)
    step = StepConfig(epochs=None, steps=4, batch_size=BATCH, weight_decay=0)
    return config_of(world, rate=rate, step=step)


@pytest.fixture(scope="module")
def batch(config: PretrainConfig, start: Path) -> Batch:
    objective = pretrain.start_pretraining(start, config)
    task = TaskSource(sources_of(config), config.data.max_tokens)
    with closing(open_loader(config, objective, ALONE, task, dict.fromkeys(range(6), 0))) as loader:
        return next(iter(loader))


def take(config: PretrainConfig, start: Path, batch: Batch, number: int = 0) -> dict[str, float]:
    objective = pretrain.start_pretraining(start, config)
    objective.network.train()
    optimiser = make_optimiser(objective.network, config)
    stepper = Stepper(config, "fp32", objective, optimiser, ALONE, several=False)
    stepper.set_rate(number, 4, 0)
    return stepper.take([batch], number, 0)


def test_the_same_step_draws_the_same_and_another_one_does_not(
    config: PretrainConfig, start: Path, batch: Batch
) -> None:
    """Dropout is drawn by the step, whatever was drawn before it."""
    first = take(config, start, batch)
    torch.rand(7)
    assert take(config, start, batch) == first
    assert take(config, start, batch, number=1)["lm"] != first["lm"]
    other = config.model_copy(update={"seed": config.seed + 1})
    assert take(other, start, batch)["lm"] != first["lm"]


def test_the_temperature_learns_at_its_own_rate(
    config: PretrainConfig, start: Path, batch: Batch
) -> None:
    objective = pretrain.start_pretraining(start, config)
    network = objective.network
    optimiser = make_optimiser(network, config)
    stepper = Stepper(config, "fp32", objective, optimiser, ALONE, several=False)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    assert stepper.set_rate(0, 4, 0) == pytest.approx(1e-2)
    numbers = stepper.take([batch], 0, 0)
    assert numbers["grad_norm"] > 0
    moved = {name: (p - before[name]).abs().max().item() for name, p in network.named_parameters()}
    # the first step of AdamW is the rate, whatever the gradient
    assert moved["temp"] == pytest.approx(1e-3, rel=1e-2)
    assert moved["vision_proj.weight"] == pytest.approx(1e-2, rel=1e-2)


def test_what_is_frozen_is_no_business_of_the_optimiser(
    config: PretrainConfig, start: Path
) -> None:
    towers = config.model.model_copy(update={"freeze_vision": True})
    frozen = config.model_copy(update={"model": towers})
    network = pretrain.start_pretraining(start, frozen).network
    groups = make_optimiser(network, frozen).param_groups
    held = {id(p) for group in groups for p in group["params"]}
    named = dict(network.named_parameters())
    assert held == {
        id(p) for name, p in named.items() if "_m." not in name and "vision_model" not in name
    }
    assert [len(group["params"]) for group in groups][1:] == [1]


def rows_of(batch: Batch, rows: slice) -> Batch:
    names = ("pixels", "ids", "mask", "image_ids", "text_hashes", "texts", "keys")
    return replace(batch, **{name: getattr(batch, name)[rows] for name in names})


@pytest.mark.parametrize("clip", [None, 0.01])
def test_a_batch_in_parts_takes_the_step_of_the_whole(
    tmp_path: Path, words: WordPiece, clip: float | None
) -> None:
    """By plain descent, which AdamW is not: it hides how large a gradient is.

    A captioner's parts of equally many words add up; a contrast would see fewer pairs in a part.
    """
    start = small_finetuning.create(tmp_path / "start", "captioner", words)
    config = small_finetuning.config_of("captioner", start, step={"clip": clip})
    whole = small_finetuning.pairs_of(words)
    halves = [rows_of(whole, slice(None, 2)), rows_of(whole, slice(2, None))]
    taken = []
    for parts in ([whole], halves):
        objective = start_finetuning(config)
        objective.network.train()
        group = {"params": [*objective.network.parameters()], "factor": 1.0}
        optimiser = torch.optim.SGD([group], lr=1.0)
        stepper = Stepper(config, "fp32", objective, optimiser, ALONE, several=False)
        numbers = stepper.take(parts, 0, 0)
        taken.append((numbers, objective.network.state_dict()))
    (one, wanted), (two, found) = taken
    assert two == pytest.approx(one, rel=1e-4)
    assert one["grad_norm"] > 0.1  # so that the clip bites
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
