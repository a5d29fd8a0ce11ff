"""What the evaluating commands are tried on."""

from pathlib import Path

import pytest

from models.blip.config import ORIGINAL, blip_config
from models.blip.tokenizer import train
from models.checkpoints import checkpoint
from pipeline.toy import dialogue as toy_dialogue
from pipeline.toy import tasks as toy_tasks
from pipeline.toy.tasks import ToyTasksConfig

FEW = ToyTasksConfig(samples=5, image_px=32, kinds=4, questions=2)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy files of every task, and random models."""
    folder = tmp_path_factory.mktemp("place")
    words = train([*toy_tasks.corpus(), *toy_dialogue.corpus()], 300)
    shape = blip_config("tiny", **words.config_fields, image_size=32)
    shape.vision_config.num_hidden_layers = shape.text_config.num_hidden_layers = 1
    for role in ("vqa", "nlvr"):
        checkpoint.create(folder / role, role, shape, words, seed=5, settings=ORIGINAL)
    toy_tasks.write_captions(folder, FEW)
    toy_tasks.write_questions(folder / "q", FEW)
    toy_tasks.write_statements(folder / "s", FEW)
    toy_dialogue.write_dialogues(folder / "d", FEW)
    (folder / "answers.json").write_text('["red", " ", "blue", "red"]')
    return folder
