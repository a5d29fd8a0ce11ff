"""Finetunings of a tiny network on a batch that is made up, without data, loop or files around."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.blip.config import ORIGINAL, Role, Settings, blip_config
from models.blip.framing import tokenize_batch
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint
from models.training.workers import ALONE
from pipeline.train.dataloader import Batch
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.objective import Objective, StepContext
from shards.training.annotation import SourceText, WeightedAnswer

SIDE = 16
PAIRS = 4
ANSWERS = (
    (WeightedAnswer("red", 0.9), WeightedAnswer("a blue ring", 0.1)),
    (WeightedAnswer("two", 1.0),),
    (WeightedAnswer("left", 0.5), WeightedAnswer("right", 0.3), WeightedAnswer("above", 0.1)),
)
TEXTS = ("a red ring", "a blue star above a green ring", "there is a ring left of a star")
LABELS = (True, False, True)


def create(path: Path, role: Role, words: WordPiece, settings: Settings = ORIGINAL) -> Path:
    """Write a random checkpoint of a role."""
    config = blip_config("tiny", **words.config_fields, image_size=SIDE)
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 2
    checkpoint.create(path, role, config, words, seed=2, settings=settings)
    return path


def config_of(
    task: str, start: Path, model: dict[str, Any] | None = None, **sections: Any
) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "task": task,
            "data": {"sources": [{"shards": ["none"]}], "max_tokens": 24},
            "model": {"start": str(start), "dropout": 0.0} | (model or {}),
            "loss": {"queue": 9, "momentum": 0.5},
            **sections,
        }
    )


def pairs_of(words: WordPiece, side: int = SIDE) -> Batch:
    """Make pairs of random texts and pictures of noise."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (PAIRS, 6), generator=draw)
    ids[:, 0], ids[:, -1] = words.cls_id, words.sep_id
    return Batch(
        pixels=torch.randint(0, 256, (PAIRS, 3, side, side), generator=draw, dtype=torch.uint8),
        ids=ids,
        mask=torch.ones_like(ids, dtype=torch.bool),
        image_ids=torch.arange(PAIRS),
        text_hashes=torch.arange(PAIRS),
        texts=[""] * PAIRS,
        keys=[""] * PAIRS,
        positions={},
        left_out=Counter(),
    )


def annotated_of(words: WordPiece) -> Batch:
    """Make questions, or statements, of different lengths about pictures of noise."""
    framed = tokenize_batch(words.encode(TEXTS), words, words.cls_id, 30, torch.device("cpu"))
    draw, rows = torch.Generator().manual_seed(1), len(TEXTS)
    pictures = torch.randint(0, 256, (2, rows, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
    chosen = zip(ANSWERS, LABELS, strict=True)
    return Batch(
        pixels=pictures[0],
        ids=framed.ids,
        mask=framed.mask,
        image_ids=torch.arange(rows),
        text_hashes=torch.arange(rows),
        texts=[*TEXTS],
        keys=[""] * rows,
        positions={},
        left_out=Counter(),
        chosen=tuple(SourceText("", "human", answers, label) for answers, label in chosen),
        right=pictures[1],
    )


def losses_of(objective: Objective, batch: Batch) -> dict[str, Tensor]:
    objective.network.train()
    losses: dict[str, Tensor] = objective(
        batch, StepContext(0, torch.Generator().manual_seed(8), ALONE)
    )
    return losses


def learn(objective: Objective, batch: Batch, steps: int = 3, rate: float = 1e-3) -> list[float]:
    """Take a few steps on one batch; returns the losses before each."""
    trained = [p for p in objective.network.parameters() if p.requires_grad]
    optimiser, losses = torch.optim.AdamW(trained, lr=rate), []
    for _ in range(steps):
        loss = losses_of(objective, batch)["loss"]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return losses
