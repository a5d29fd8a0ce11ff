"""Tiny checkpoints of random weights, and toy data, that tests of evaluation share."""

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from models.blip.config import ORIGINAL, blip_config
from models.blip.tokenizer import train
from models.checkpoints import checkpoint
from models.decoding.config import Decoding
from pipeline.evaluate import (
    EvaluateConfig,
    LabelledPair,
    measure_captioner,
    measure_filter,
    measure_retrieval,
    open_captioner,
    open_filter,
    open_retriever,
    read_pairs,
)
from pipeline.toy import dialogue as toy_dialogue
from pipeline.toy import tasks as toy_tasks
from pipeline.toy.tasks import ToyTasksConfig
from pipeline.toy.world import (
    ToyWorldConfig,
    captions,
    corpus,
    scene_from_truth,
    write_toy_world,
)

SPREAD = 0.2  # of random weights; at the usual 0.02 all scores are alike
CONFIG = EvaluateConfig(batch_size=4, dtype="fp32")
WORLD = ToyWorldConfig(samples=23, samples_per_shard=9, noise=0.4, image_px=32)
GREEDY = Decoding(method="greedy", max_tokens=8)
FEW = ToyTasksConfig(samples=7, image_px=32, kinds=4, questions=2)


def evaluate_captioner(
    folder: Path,
    pairs: Iterable[LabelledPair],
    decoding: Decoding,
    config: EvaluateConfig = CONFIG,
    *,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    captioner = open_captioner(folder, decoding, config, seed=seed)
    return measure_captioner(captioner, pairs, config.batch_size, **options)


def evaluate_filter(
    folder: Path, pairs: Iterable[LabelledPair], config: EvaluateConfig = CONFIG, **options: Any
) -> dict[str, Any]:
    return measure_filter(open_filter(folder, config), pairs, config.batch_size, **options)


def evaluate_retrieval(
    folder: Path, pairs: Iterable[LabelledPair], config: EvaluateConfig = CONFIG, **options: Any
) -> dict[str, Any]:
    return measure_retrieval(open_retriever(folder, config), pairs, config.batch_size, **options)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a captioner, a filter and a pre-training that know the toy world's words."""
    words = train(corpus(), 400)
    config = blip_config("tiny", **words.config_fields)
    config.vision_config.initializer_range = config.text_config.initializer_range = SPREAD
    folder = tmp_path_factory.mktemp("evaluate")
    for role in ("captioner", "filter", "pretrain"):
        checkpoint.create(folder / role, role, config, words, seed=1)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 toy pictures in tars, four texts in ten wrong."""
    folder = tmp_path_factory.mktemp("world")
    write_toy_world(folder, WORLD)
    return folder


@pytest.fixture(scope="session")
def pairs(world: Path) -> list[LabelledPair]:
    return list(read_pairs([str(world)]))


@pytest.fixture(scope="session")
def pairs_of_several(pairs: list[LabelledPair]) -> list[LabelledPair]:
    """Give each picture some texts: two of its own, one that a neighbour has too."""
    made = []
    for n, pair in enumerate(pairs):
        own = captions(scene_from_truth(pair.meta["toy"]))[:2]
        shared = f"A Picture  number {n // 2}!" if n % 2 else f"a picture number {n // 2}"
        made.append(replace(pair, texts=(*own, shared)))
    return made


@pytest.fixture(scope="session")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of one layer that know the words of the toy tasks."""
    words = train([*toy_tasks.corpus(), *toy_dialogue.corpus()], 300)
    shape = blip_config("tiny", **words.config_fields, image_size=32)
    shape.vision_config.num_hidden_layers = shape.text_config.num_hidden_layers = 1
    shape.vision_config.initializer_range = shape.text_config.initializer_range = SPREAD
    folder = tmp_path_factory.mktemp("answering")
    for role in ("vqa", "nlvr", "captioner", "filter"):
        checkpoint.create(folder / role, role, shape, words, seed=5, settings=ORIGINAL)
    return folder


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy versions of the field's annotation files: captions, vqa, nlvr, visdial."""
    folder = tmp_path_factory.mktemp("toy")
    toy_tasks.write_captions(folder / "captions", FEW)
    toy_tasks.write_questions(folder / "vqa", FEW)
    toy_tasks.write_statements(folder / "nlvr", FEW)
    toy_dialogue.write_dialogues(folder / "visdial", FEW)
    return folder


def pixels_of(role: Any, picture: Path | LabelledPair) -> torch.Tensor:
    """Decode and resize one picture alone, as a batch of one."""
    source = io.BytesIO(picture.image) if isinstance(picture, LabelledPair) else picture
    with Image.open(source) as image:
        pixels: torch.Tensor = role.preprocess.resize(image.convert("RGB"))[None]
    return pixels


def check_alike(numbers: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare numbers, one level deep at most."""
    assert numbers.keys() == expected.keys()
    for name, value in expected.items():
        assert numbers[name] == pytest.approx(value), name
