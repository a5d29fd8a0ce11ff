"""Pre-training's losses, what they reach, and what is written to go on from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.checkpoints import checkpoint
from models.checkpoints.conversion import import_folder
from models.training.workers import ALONE
from pipeline.train.config import LossConfig, TowerConfig
from pipeline.train.dataloader import Batch
from pipeline.train.objective import StepContext
from pipeline.train.objectives.pretrain import PretrainObjective
from tests.support.small_finetuning import PAIRS


def objective_of(
    start: Path, towers: dict[str, Any] | None = None, **loss: Any
) -> PretrainObjective:
    return PretrainObjective(
        import_folder(start).content,
        TowerConfig.model_validate({"dropout": 0.0} | (towers or {})),
        LossConfig.model_validate({"queue": 9, "ramp_epochs": 2} | loss),
    )


def moment(epoch: float = 0, part: int = 0) -> StepContext:
    return StepContext(epoch, torch.Generator().manual_seed(8), ALONE, part)


def step(objective: PretrainObjective, pairs: Batch, epoch: float = 0) -> dict[str, Tensor]:
    objective.network.train()
    losses = objective(pairs, moment(epoch))
    losses["loss"].backward()
    return {name: value.detach() for name, value in losses.items()}


def gradients(objective: PretrainObjective) -> dict[str, Tensor]:
    return {
        name: parameter.grad
        for name, parameter in objective.network.named_parameters()
        if parameter.grad is not None
    }


def test_the_loss_is_the_sum_of_the_three(pretrained: Path, pairs: Batch) -> None:
    losses = step(objective_of(pretrained), pairs)
    torch.testing.assert_close(losses["loss"], losses["itc"] + losses["itm"] + losses["lm"])
    assert losses["temperature"] == pytest.approx(0.03)


def test_soft_targets_come_in_over_the_ramp(pretrained: Path, pairs: Batch) -> None:
    def itc(epoch: float, **loss: Any) -> float:
        return step(objective_of(pretrained, **loss), pairs, epoch)["itc"].item()

    hard = itc(9, alpha=0)
    assert itc(0, alpha=0.4) == hard
    assert itc(1, alpha=0.4) == itc(9, alpha=0.2) != hard
    assert itc(2, alpha=0.4) == itc(50, alpha=0.4)


def test_copies_rest_in_later_parts_of_a_step(pretrained: Path, pairs: Batch) -> None:
    objective = objective_of(pretrained, momentum=0.5)
    network = objective.network
    leader = network.get_parameter("vision_proj.weight")
    before = network.get_parameter("vision_proj_m.weight").clone()
    objective(pairs, moment(part=1))
    assert torch.equal(network.get_parameter("vision_proj_m.weight"), before)
    objective(pairs, moment(part=0))
    expected = (before + leader) / 2
    torch.testing.assert_close(network.get_parameter("vision_proj_m.weight"), expected)
    assert not torch.allclose(expected, before)


def test_recomputing_changes_nothing(pretrained: Path, pairs: Batch) -> None:
    plain = objective_of(pretrained, {"dropout": 0.2})
    spare = objective_of(pretrained, {"dropout": 0.2, "recompute": 2})
    losses = []
    for objective in (plain, spare):
        torch.manual_seed(6)  # of dropout
        losses.append(step(objective, pairs))
    assert losses[0] == losses[1]
    ours, theirs = gradients(spare), gradients(plain)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, msg=name)


def test_a_frozen_vision_tower_gets_no_gradient(pretrained: Path, pairs: Batch) -> None:
    objective = objective_of(pretrained, {"freeze_vision": True})
    step(objective, pairs)
    reached = gradients(objective)
    assert not [name for name in reached if name.startswith("vision_model.")]
    assert {"vision_proj.weight", "itm_head.weight", "temp"} <= reached.keys()


def test_gradients_reach_everything_but_the_copies(pretrained: Path, pairs: Batch) -> None:
    """What no loss reaches would stop a training of several workers."""
    objective = objective_of(pretrained)
    step(objective, pairs)
    names = {name for name, _ in objective.network.named_parameters()}
    assert names - gradients(objective).keys() == {name for name in names if "_m." in name}


def test_what_is_written_is_gone_on_from(pretrained: Path, pairs: Batch, tmp_path: Path) -> None:
    objective = objective_of(pretrained, {"dropout": 0.2}, momentum=0.5)
    network = objective.network
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.01)
    for _ in range(3):
        step(objective, pairs)
        optimiser.step()
        optimiser.zero_grad()
    written = objective.export(tmp_path)["pretrain"]
    content = import_folder(written).content
    assert content.config.text_config.hidden_dropout_prob == 0.0  # dropout is the training's
    assert content.training["queue_ptr"].item() == 3 * PAIRS % 9
    assert content.training["queue_valid"].item() == 9

    again = objective_of(written, {"dropout": 0.2})
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor), name
    assert network.get_parameter("temp").item() != pytest.approx(0.03, abs=1e-4)
    assert again.queue is not None
    assert again.queue.queue_valid.item() == 0  # its features would be of an older network

    digest = checkpoint.info(written).digest
    step(objective, replace(pairs, ids=pairs.ids.flip(0)))
    optimiser.step()
    assert objective.export(tmp_path)["pretrain"] == written
    assert checkpoint.info(written).digest == digest  # what is there was written before
