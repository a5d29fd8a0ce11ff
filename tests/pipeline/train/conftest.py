"""What finetunings start from, and what they learn."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.blip.tokenizer import WordPiece, train
from models.checkpoints import folder as folders
from models.checkpoints.conversion import import_folder
from pipeline.toy.world import corpus
from pipeline.train.dataloader import Batch
from tests.support.small_finetuning import annotated_of, create, pairs_of


@pytest.fixture(scope="session")
def words() -> WordPiece:
    return train(corpus(), 120)


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory, words: WordPiece) -> Path:
    """A pre-training checkpoint whose copies and temperature went their own way."""
    folder = tmp_path_factory.mktemp("pretrained")
    content = import_folder(create(folder / "random", "pretrain", words)).content
    tensors = {
        name: tensor * 0.5 if "_m." in name else tensor for name, tensor in content.tensors.items()
    }
    tensors["temp"] = torch.tensor(0.03)
    folders.write(folder / "start", replace(content, tensors=tensors))
    return folder / "start"


@pytest.fixture
def pairs(words: WordPiece) -> Batch:
    return pairs_of(words)


@pytest.fixture
def annotated(words: WordPiece) -> Batch:
    """Questions, or statements."""
    return annotated_of(words)
