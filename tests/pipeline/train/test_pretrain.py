"""Pre-training: the network that it starts from, its losses, and what it writes."""

from pathlib import Path
from typing import Any

import pytest

from models.blip.config import blip_config
from models.blip.tokenizer import WordPiece, train
from models.checkpoints import checkpoint
from models.checkpoints.conversion import import_folder
from models.checkpoints.locate import CheckpointError
from pipeline.toy.world import ToyWorldConfig, corpus, write_toy_world
from pipeline.train import pretrain
from pipeline.train.config import DataConfig, LossConfig
from pipeline.train.pretrain_config import ModelConfig, PretrainConfig
from shards.training.source import Source, SourceConfig
from shards.training.source_reader import open_source, read_part

ROWS, SIDE = 4, 16
POSITIONS = "vision_model.embeddings.position_embedding"
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
    shape = blip_config("tiny", **words.config_fields)
    checkpoint.create(tmp_path / "captioner", "captioner", shape, words, seed=1)
    with pytest.raises(CheckpointError, match="holds a captioner; pre-training goes on from"):
        pretrain.start_pretraining(tmp_path / "captioner", config_of())


def spread_of_positions(folder: Path) -> float:
    return import_folder(folder).content.tensors[POSITIONS].std().item()


def test_the_starts_positions_are_as_wide_as_wanted(
    start: Path, sources: list[Source], tmp_path: Path
) -> None:
    pretrain.write_start(tmp_path / "wide", config_of({"position_range": 1.0}), sources)
    assert spread_of_positions(start) == pytest.approx(0.02, rel=0.2)
    assert spread_of_positions(tmp_path / "wide") == pytest.approx(1.0, rel=0.2)
