"""Pre-training: the network that it starts from, its losses, and what it writes."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.blip.config import blip_config
from models.blip.tokenizer import WordPiece, train
from models.checkpoints import checkpoint
from models.checkpoints.conversion import import_folder
from models.checkpoints.weights import CheckpointError
from models.training.workers import ALONE
from pipeline.toy.world import ToyWorldConfig, corpus, write_toy_world
from pipeline.train import pretrain
from pipeline.train.config import DataConfig
from pipeline.train.dataloader import Batch
from pipeline.train.objective import LossConfig, StepContext
from pipeline.train.objectives.pretrain import PretrainObjective
from pipeline.train.pretrain import ModelConfig, PretrainConfig
from shards.training.source import Source, SourceConfig
from shards.training.source_reader import open_source, read_part

ROWS, SIDE = 4, 16
LAYERS = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64}


def config_of(model: dict[str, Any] | None = None, **loss: Any) -> PretrainConfig:
    shape = {"size": "tiny", "image_size": SIDE, "words": 90, "vision": LAYERS, "text": LAYERS}
    return PretrainConfig(
        seed=3,
        data=DataConfig(sources=(SourceConfig(shards=("none",)),)),
        model=ModelConfig.model_validate(shape | {"dropout": 0.0} | (model or {})),
        loss=LossConfig.model_validate({"queue": 9, "ramp_epochs": 2} | loss),
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    folder = tmp_path_factory.mktemp("world")
    write_toy_world(folder, ToyWorldConfig(samples=30, samples_per_shard=15, image_px=32))
    return [open_source(SourceConfig(shards=(str(folder),)))]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, sources: list[Source]) -> Path:
    path = tmp_path_factory.mktemp("start") / "start"
    pretrain.write_start(path, config_of(), sources)
    return path


@pytest.fixture(scope="module")
def batch() -> Batch:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (ROWS, 6), generator=draw)
    return Batch(
        pixels=torch.randint(0, 256, (ROWS, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8),
        ids=ids,
        mask=torch.ones_like(ids, dtype=torch.bool),
        image_ids=torch.arange(ROWS),
        text_hashes=torch.arange(ROWS),
        texts=[""] * ROWS,
        keys=[""] * ROWS,
        positions={},
        left_out=Counter(),
    )


def moment(epoch: float = 0, part: int = 0) -> StepContext:
    return StepContext(epoch, torch.Generator().manual_seed(8), ALONE, part)


def step(objective: PretrainObjective, batch: Batch, epoch: float = 0) -> dict[str, Tensor]:
    objective.network.train()
    found = objective(batch, moment(epoch))
    found["loss"].backward()
    return {name: value.detach() for name, value in found.items()}


def gradients(objective: PretrainObjective) -> dict[str, Tensor]:
    return {
        name: parameter.grad
        for name, parameter in objective.network.named_parameters()
        if parameter.grad is not None
    }


def test_the_start_is_the_same_for_the_same_seed(
    start: Path, sources: list[Source], tmp_path: Path
) -> None:
    pretrain.write_start(tmp_path / "same", config_of(), sources)
    other = config_of().model_copy(update={"seed": 4})
    pretrain.write_start(tmp_path / "other", other, sources)
    first = checkpoint.info(start)
    assert checkpoint.info(tmp_path / "same").digest == first.digest
    assert checkpoint.info(tmp_path / "other").digest != first.digest
    assert (first.role, first.image_size) == ("pretrain", SIDE)
    assert (first.vision_width, first.text_layers) == (32, 2)
    assert first.itm_first_token == "enc"


def test_words_are_learned_from_the_sources(sources: list[Source], tmp_path: Path) -> None:
    pretrain.write_start(tmp_path / "start", config_of({"words": 120}), sources)
    words = import_folder(tmp_path / "start").content.tokenizer
    assert words.size == 120
    texts = [text.text for sample in read_part(sources[0].parts[1]) for text in sample.texts]
    letters = sum(len(text.replace(" ", "")) for text in texts)
    assert 5 * sum(len(pieces) for pieces in words.encode(texts)) < 2 * letters


def test_a_given_vocabulary_is_taken(sources: list[Source], start: Path, tmp_path: Path) -> None:
    given = config_of({"words": str(start)})
    pretrain.write_start(tmp_path / "given", given, sources)
    ours, theirs = (import_folder(path).content.tokenizer for path in (tmp_path / "given", start))
    assert ours.to_json() == theirs.to_json()


def test_an_unknown_setting_is_refused(sources: list[Source], tmp_path: Path) -> None:
    wrong = config_of({"vision": {"number_of_layers": 3}})
    with pytest.raises(ValueError, match="BlipVisionConfig has no setting 'number_of_layers'"):
        pretrain.write_start(tmp_path / "wrong", wrong, sources)


def test_only_pretraining_goes_on(tmp_path: Path) -> None:
    words: WordPiece = train(corpus(), 90)
    shape = blip_config("tiny", vocab_size=words.size, sep_id=words.sep_id, pad_id=words.pad_id)
    checkpoint.create(tmp_path / "captioner", "captioner", shape, words, seed=1)
    with pytest.raises(CheckpointError, match="holds a captioner; pre-training goes on from"):
        pretrain.start_pretraining(tmp_path / "captioner", config_of())


def test_the_loss_is_the_sum_of_the_three(start: Path, batch: Batch) -> None:
    found = step(pretrain.start_pretraining(start, config_of()), batch)
    torch.testing.assert_close(found["loss"], found["itc"] + found["itm"] + found["lm"])
    assert found["temperature"] == pytest.approx(0.07)


def test_soft_targets_come_in_over_the_ramp(start: Path, batch: Batch) -> None:
    def itc(epoch: float, **loss: Any) -> float:
        return step(pretrain.start_pretraining(start, config_of(**loss)), batch, epoch)[
            "itc"
        ].item()

    hard = itc(9, alpha=0)
    assert itc(0, alpha=0.4) == hard
    assert itc(1, alpha=0.4) == itc(9, alpha=0.2) != hard
    assert itc(2, alpha=0.4) == itc(50, alpha=0.4)


def test_copies_rest_in_later_parts_of_a_step(start: Path, batch: Batch) -> None:
    objective = pretrain.start_pretraining(start, config_of(momentum=0.5))
    network = objective.network
    with torch.no_grad():
        network.get_parameter("vision_proj.weight").add_(1)
    before = network.get_parameter("vision_proj_m.weight").clone()
    objective(batch, moment(part=1))
    assert torch.equal(network.get_parameter("vision_proj_m.weight"), before)
    objective(batch, moment(part=0))
    torch.testing.assert_close(network.get_parameter("vision_proj_m.weight"), before + 0.5)


def test_recomputing_changes_nothing(start: Path, batch: Batch) -> None:
    plain = pretrain.start_pretraining(start, config_of({"dropout": 0.2}))
    spare = pretrain.start_pretraining(start, config_of({"dropout": 0.2, "recompute": 2}))
    found = []
    for objective in (plain, spare):
        torch.manual_seed(6)  # of dropout
        found.append(step(objective, batch))
    assert found[0] == found[1]
    ours, theirs = gradients(spare), gradients(plain)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, msg=name)


def test_a_frozen_vision_tower_gets_no_gradient(start: Path, batch: Batch) -> None:
    objective = pretrain.start_pretraining(start, config_of({"freeze_vision": True}))
    step(objective, batch)
    found = gradients(objective)
    assert not [name for name in found if name.startswith("vision_model.")]
    assert {"vision_proj.weight", "itm_head.weight", "temp"} <= found.keys()


def test_gradients_reach_everything_but_the_copies(start: Path, batch: Batch) -> None:
    """What no loss reaches would stop a training of several workers."""
    objective = pretrain.start_pretraining(start, config_of())
    step(objective, batch)
    without = {
        name for name, _ in objective.network.named_parameters() if name not in gradients(objective)
    }
    assert without == {n for n, _ in objective.network.named_parameters() if "_m." in n}


def test_what_is_written_is_gone_on_from(start: Path, batch: Batch, tmp_path: Path) -> None:
    objective = pretrain.start_pretraining(start, config_of({"dropout": 0.2}, momentum=0.5))
    network = objective.network
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.01)
    for _ in range(3):
        step(objective, batch)
        optimiser.step()
        optimiser.zero_grad()
    written = objective.export(tmp_path)["pretrain"]
    content = import_folder(written).content
    assert content.config.text_config.hidden_dropout_prob == 0.0  # dropout is the training's
    assert content.training["queue_ptr"].item() == 3 * ROWS % 9
    assert content.training["queue_valid"].item() == 9

    again = pretrain.start_pretraining(written, config_of({"dropout": 0.2}))
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor), name
    assert network.get_parameter("temp").item() != pytest.approx(0.07, abs=1e-4)
    assert again.queue is not None
    assert again.queue.queue_valid.item() == 0  # its features would be of an older network

    digest = checkpoint.info(written).digest
    step(objective, replace(batch, ids=batch.ids.flip(0)))
    optimiser.step()
    assert objective.export(tmp_path)["pretrain"] == written
    assert checkpoint.info(written).digest == digest  # what is there was written before
