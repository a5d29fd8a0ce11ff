"""What takes steps of a pre-training, and a batch for it, without data on a disk."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from models.blip import tokenizer
from models.blip.config import ORIGINAL, blip_config, resolve_dtype
from models.checkpoints import checkpoint
from models.training.workers import ALONE
from pipeline.train import pretrain
from pipeline.train.config import DataConfig
from pipeline.train.dataloader import Batch
from pipeline.train.pretrain import ModelConfig, PretrainConfig
from pipeline.train.step import Stepper, make_optimiser
from scripts.bench.gpu.setting import Setting
from scripts.bench.inputs import WORDS
from shards.training.source import SourceConfig

TOKENS = 18  # of the longest text


def write_start(setting: Setting) -> Path:
    """Write a random network to begin with."""
    folder = setting.out / f"pretrain-{setting.size}"
    if not folder.is_dir():
        words = tokenizer.load(setting.models, WORDS)
        px = setting.pick(224, 64)
        config = blip_config(setting.size, image_size=px, **words.config_fields)
        checkpoint.create(folder, "pretrain", config, words, seed=0, settings=ORIGINAL)
    return folder


def stepper_of(
    setting: Setting,
    start: Path,
    size: int,
    **towers: Any,  # noqa: ANN401 - keys of ModelConfig
) -> tuple[Stepper, Batch]:
    """Make what takes steps, and a batch for it."""
    config = PretrainConfig(
        data=DataConfig(sources=(SourceConfig(shards=("none",)),)),
        model=ModelConfig(start=str(start), **towers),
    )
    objective = pretrain.start_pretraining(start, config)
    objective.to_device(setting.device)
    objective.network.train()
    dtype = resolve_dtype("auto", setting.device)
    optimiser = make_optimiser(objective.network, config)
    stepper = Stepper(config, dtype, objective, optimiser, ALONE, several=False)
    mask = torch.arange(TOKENS) < torch.linspace(10, TOKENS, size)[:, None]
    batch = Batch(
        pixels=setting.pictures(size, setting.pick(224, 64)),
        ids=torch.randint(999, 30_000, mask.shape).masked_fill(~mask, 0),
        mask=mask,
        image_ids=torch.arange(size),
        text_hashes=torch.arange(size),
        texts=[""] * size,
        keys=[""] * size,
        positions={},
        left_out=Counter(),
    )
    return stepper, batch.pinned() if setting.device.type == "cuda" else batch
