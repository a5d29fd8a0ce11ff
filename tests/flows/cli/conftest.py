"""What several commands are tried on: a run with hostile words in it, videos, and who answers."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from models.blip.config import ORIGINAL, blip_config
from models.blip.tokenizer import train
from models.checkpoints import checkpoint
from pipeline.toy import tasks as toy_tasks
from pipeline.toy.tasks import ToyTasksConfig
from pipeline.toy.video import write_videos
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from tests.support.hostile_run import make_run

RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "run"
    make_run(folder)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """A copy of the run, as `run` in the folder where the command is run."""
    copied = Run.open(str(shutil.copytree(made, tmp_path / "run")))
    write_snapshot(copied)  # whose list of clean tars has absolute paths
    return copied


@pytest.fixture
def harmless() -> Callable[[str], bool]:
    """Whether nothing in an output moves a cursor, or hides."""
    return lambda output: RAW.search(output) is None


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 toy clips, with questions and captions."""
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, ToyTasksConfig(samples=8, kinds=4, seed=3))
    return folder


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are no videos."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="session")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random VQA model."""
    words = train(toy_tasks.corpus(), 300)
    shape = blip_config("tiny", **words.config_fields, image_size=32)
    shape.vision_config.num_hidden_layers = shape.text_config.num_hidden_layers = 1
    folder = tmp_path_factory.mktemp("answering") / "vqa"
    checkpoint.create(folder, "vqa", shape, words, seed=5, settings=ORIGINAL)
    return folder
