"""Finetuning: what each task learns, from what it starts, and what others load of it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from models.blip.config import ORIGINAL, Settings, blip_config
from models.blip.positions import interpolate
from models.blip.tokenizer import WordPiece, train
from models.checkpoints import checkpoint
from models.checkpoints import folder as folders
from models.checkpoints.conversion import import_folder
from models.checkpoints.weights import CheckpointError
from models.decoding.generate import Decoding
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from models.training.contrast import ContrastNetwork
from models.training.workers import ALONE
from pipeline.toy.world import corpus
from pipeline.train import finetune
from pipeline.train.dataloader import Batch
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.objective import Objective, StepContext
from shards.training.source import SourceConfig

ROWS, SIDE = 4, 16
TASKS = ("captioner", "filter", "retrieval", "joint")


@pytest.fixture(scope="module")
def words() -> WordPiece:
    return train(corpus(), 120)


@pytest.fixture(scope="module")
def create(tmp_path_factory: pytest.TempPathFactory, words: WordPiece) -> Callable[..., Path]:
    """Write a random checkpoint of a role."""

    def make(role: Any, settings: Settings = ORIGINAL) -> Path:
        path = tmp_path_factory.mktemp(role) / "start"
        shape = blip_config(
            "tiny",
            vocab_size=words.size,
            sep_id=words.sep_id,
            pad_id=words.pad_id,
            image_size=SIDE,
        )
        shape.vision_config.num_hidden_layers = shape.text_config.num_hidden_layers = 2
        checkpoint.create(path, role, shape, words, seed=2, settings=settings)
        return path

    return make


@pytest.fixture(scope="module")
def pretrained(create: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training checkpoint whose copies and temperature went their own way."""
    content = import_folder(create("pretrain")).content
    tensors = {
        name: tensor * 0.5 if "_m." in name else tensor for name, tensor in content.tensors.items()
    }
    tensors["temp"] = torch.tensor(0.03)
    path = tmp_path_factory.mktemp("moved") / "start"
    folders.write_new(path, replace(content, tensors=tensors))
    return path


@pytest.fixture
def batch(words: WordPiece) -> Batch:
    return batch_of(words, SIDE)


def batch_of(words: WordPiece, side: int) -> Batch:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (ROWS, 6), generator=draw)
    ids[:, 0], ids[:, -1] = words.cls_id, words.sep_id
    return Batch(
        pixels=torch.randint(0, 256, (ROWS, 3, side, side), generator=draw, dtype=torch.uint8),
        ids=ids,
        mask=torch.ones_like(ids, dtype=torch.bool),
        image_ids=torch.arange(ROWS),
        text_hashes=torch.arange(ROWS),
        texts=[""] * ROWS,
        keys=[""] * ROWS,
        positions={},
        left_out=Counter(),
    )


def config_of(task: str, start: Path, model: dict[str, Any] | None = None) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "task": task,
            "data": {"sources": (SourceConfig(shards=("none",)),)},
            "model": {"start": str(start), "dropout": 0.0} | (model or {}),
            "loss": {"queue": 9, "momentum": 0.5},
        }
    )


def losses(objective: Objective, batch: Batch) -> dict[str, Tensor]:
    objective.network.train()
    return objective(batch, StepContext(0, torch.Generator().manual_seed(8), ALONE))


def learn(objective: Objective, batch: Batch, steps: int = 3) -> list[float]:
    trained = [p for p in objective.network.parameters() if p.requires_grad]
    optimiser, found = torch.optim.AdamW(trained, lr=1e-3), []
    for _ in range(steps):
        loss = losses(objective, batch)["loss"]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("captioner", {"lm"}),
        ("filter", {"itc", "itm", "temperature"}),
        ("retrieval", {"itc", "itm", "temperature"}),
        ("joint", {"itc", "itm", "lm", "temperature"}),
    ],
)
def test_each_task_has_its_losses(
    pretrained: Path, batch: Batch, task: str, expected: set[str]
) -> None:
    objective = finetune.start_finetuning(config_of(task, pretrained))
    found = losses(objective, batch)
    assert found.keys() == {"loss", *expected}
    total = sum(found[name] for name in expected - {"temperature"})
    torch.testing.assert_close(found["loss"], total)


@pytest.mark.parametrize("task", TASKS)
def test_gradients_reach_everything_but_the_copies(
    pretrained: Path, batch: Batch, task: str
) -> None:
    """What no loss reaches would stop a training of several workers."""
    objective = finetune.start_finetuning(config_of(task, pretrained))
    losses(objective, batch)["loss"].backward()
    named = dict(objective.network.named_parameters())
    without = {name for name, parameter in named.items() if parameter.grad is None}
    assert without == {name for name in named if "_m." in name}


def test_a_captioner_loads_elsewhere(pretrained: Path, batch: Batch, tmp_path: Path) -> None:
    objective = finetune.start_finetuning(config_of("captioner", pretrained))
    learn(objective, batch)
    written = objective.export(tmp_path)
    assert written.keys() == {"captioner"}
    theirs, told = BlipForConditionalGeneration.from_pretrained(
        written["captioner"], output_loading_info=True
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    pixels, ids = objective.normalise(batch.pixels), batch.ids
    network = objective.network.eval()
    with torch.no_grad():
        expected = theirs.eval()(pixels, ids).logits
        torch.testing.assert_close(network(pixels, ids), expected, atol=1e-4, rtol=1e-4)
    ours = BlipCaptioner.load(written["captioner"], decoding=Decoding(), seed=1, dtype="fp32")
    captions = ours.caption(batch.pixels, ["a", "b", "c", "d"], 1)
    assert [len(each) for each in captions] == [1] * ROWS


@pytest.mark.parametrize("task", ["filter", "retrieval"])
def test_a_filter_loads_elsewhere(
    pretrained: Path, batch: Batch, tmp_path: Path, task: str, words: WordPiece
) -> None:
    objective = finetune.start_finetuning(config_of(task, pretrained))
    learn(objective, batch)
    written = objective.export(tmp_path)
    assert written.keys() == {"filter"}
    theirs, told = BlipForImageTextRetrieval.from_pretrained(
        written["filter"], output_loading_info=True
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    first = batch.ids.clone()
    first[:, 0] = words.enc_id
    network, pixels = objective.network.eval(), objective.normalise(batch.pixels)
    assert isinstance(network, ContrastNetwork)
    with torch.no_grad():
        ours = network.match_logits(first, batch.mask, network.vision_model(pixels), None)
        expected = theirs.eval()(first, pixels, attention_mask=batch.mask.long()).itm_score
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    assert Filter.load(written["filter"], dtype="fp32").digest == (
        checkpoint.info(written["filter"]).digest
    )


def test_one_network_becomes_both(pretrained: Path, batch: Batch, tmp_path: Path) -> None:
    objective = finetune.start_finetuning(config_of("joint", pretrained))
    before, *_, after = learn(objective, batch, 12)
    assert after < before
    written = objective.export(tmp_path)
    assert written.keys() == {"pretrain", "captioner", "filter"}
    trained = objective.network.state_dict()
    for role in ("captioner", "filter"):
        tensors = import_folder(written[role]).content.tensors
        for name in ("vision_model.post_layernorm.weight", "vision_model.encoder.layers.1.mlp.fc1"):
            for full, tensor in tensors.items():
                if full.startswith(name):
                    assert torch.equal(tensor, trained[full]), full
    BlipForConditionalGeneration.from_pretrained(written["captioner"])
    BlipForImageTextRetrieval.from_pretrained(written["filter"])
    assert objective.export(tmp_path) == written  # as after a kill: what is there stays


def test_the_prompt_is_given_and_not_learned(
    pretrained: Path, batch: Batch, words: WordPiece
) -> None:
    """Compare with the cross-entropy of the words after the prompt, one text at a time."""
    objective = finetune.start_finetuning(config_of("captioner", pretrained))
    found = losses(objective, batch)["lm"]
    prompt = words.encode(["a picture of "])[0]
    assert len(prompt) > 1
    network, pixels, terms = objective.network, objective.normalise(batch.pixels), []
    for row in range(ROWS):
        tokens = [words.dec_id, *prompt, *batch.ids[row, 1:].tolist()]
        with torch.no_grad():
            logits = network(pixels[row : row + 1], torch.tensor([tokens[:-1]]))[0]
        logs = logits.log_softmax(-1)[len(prompt) :]
        labels = torch.tensor(tokens[1 + len(prompt) :])
        for log, label in zip(logs, labels, strict=True):
            terms.append(-(0.9 * log[label] + 0.1 * log.mean()))
    assert len(terms) == ROWS * 5
    torch.testing.assert_close(found, torch.stack(terms).mean(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_a_frozen_vision_tower_does_not_move(pretrained: Path, batch: Batch, task: str) -> None:
    objective = finetune.start_finetuning(config_of(task, pretrained, {"freeze_vision": True}))
    before = {name: tensor.clone() for name, tensor in objective.network.state_dict().items()}
    learn(objective, batch)
    moved = {
        name
        for name, tensor in objective.network.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert moved
    assert not [name for name in moved if name.startswith("vision_model.")]


@pytest.mark.parametrize("task", TASKS)
def test_recomputing_changes_nothing(pretrained: Path, batch: Batch, task: str) -> None:
    found = [
        learn(finetune.start_finetuning(config_of(task, pretrained, {"recompute": count})), batch)
        for count in (0, 2)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_another_image_size_stretches_the_positions(
    pretrained: Path, words: WordPiece, task: str, tmp_path: Path
) -> None:
    objective = finetune.start_finetuning(config_of(task, pretrained, {"image_size": 32}))
    whole = import_folder(pretrained).content.tensors
    state = objective.network.state_dict()
    for tower in ("vision_model", "vision_model_m"):
        name = f"{tower}.embeddings.position_embedding"
        if name in state:
            assert state[name].shape[1] == 17
            torch.testing.assert_close(state[name], interpolate(whole[name], 4))
    learn(objective, batch_of(words, 32), 1)
    for path in objective.export(tmp_path).values():
        content = import_folder(path).content
        assert content.config.vision_config.image_size == 32
        assert content.preprocess.height == content.preprocess.width == 32


@pytest.mark.parametrize("task", ["filter", "joint"])
def test_copies_and_temperature_of_pretraining_go_on(pretrained: Path, task: str) -> None:
    objective = finetune.start_finetuning(config_of(task, pretrained))
    whole, state = import_folder(pretrained).content.tensors, objective.network.state_dict()
    assert state["temp"] == pytest.approx(0.03)
    names = [name for name in state if "_m." in name]
    assert len(names) > 40
    for name in names:
        assert torch.equal(state[name], whole[name]), name


def test_a_filter_without_copies_starts_them(create: Callable[..., Path]) -> None:
    objective = finetune.start_finetuning(config_of("filter", create("filter")))
    network = objective.network
    assert isinstance(network, ContrastNetwork)
    assert network.temp.item() == pytest.approx(0.07)
    for module, copied in network.copies():
        for leader, follower in zip(module.parameters(), copied.parameters(), strict=True):
            assert torch.equal(leader, follower)


def test_itm_reads_the_first_token_that_the_filter_will_get(
    create: Callable[..., Path], batch: Batch, words: WordPiece, tmp_path: Path
) -> None:
    """A filter in transformers' way reads [CLS]; trained with [ENC] it would be useless."""
    for token, expected in (("cls", words.cls_id), ("enc", words.enc_id)):
        start = create("filter", Settings(itm_first_token=token))
        objective = finetune.start_finetuning(config_of("filter", start))
        assert objective.first_token == expected
        assert losses(objective, batch)["itm"].isfinite()
        written = objective.export(tmp_path / token)["filter"]
        assert checkpoint.info(written).itm_first_token == token


def test_equal_texts_of_other_images_are_no_negatives(pretrained: Path, batch: Batch) -> None:
    """With one text for all pairs nothing is wrong, so ITM has the matches alone."""
    objective = finetune.start_finetuning(config_of("filter", pretrained))
    network, pixels = objective.network, objective.normalise(batch.pixels)
    assert isinstance(network, ContrastNetwork)
    one = replace(
        batch,
        ids=batch.ids[:1].expand(ROWS, -1),
        text_hashes=torch.zeros(ROWS, dtype=torch.long),
    )
    found = losses(objective, one)["itm"]
    first = one.ids.clone()
    first[:, 0] = objective.first_token
    logits = network.match_logits(first, one.mask, network.vision_model(pixels), None)
    torch.testing.assert_close(found, -logits.log_softmax(1)[:, 1].mean(), atol=1e-5, rtol=1e-5)


def test_a_start_that_cannot_become_the_task_is_refused(create: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="a captioner holds no filter"):
        finetune.start_finetuning(config_of("filter", create("captioner")))
    with pytest.raises(CheckpointError, match="a filter holds no pretrain"):
        finetune.start_finetuning(config_of("joint", create("filter")))
