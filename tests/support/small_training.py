"""A training of seconds, on pairs half of which are false and some cannot be read."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from models.training.schedule import RateConfig
from models.training.workers import ALONE, Workers
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from pipeline.train import pretrain
from pipeline.train import state as training_state
from pipeline.train.config import DataConfig, LossConfig, SaveConfig, StepConfig, TrainConfig
from pipeline.train.loop import TrainingContext, TrainResult, train
from pipeline.train.objective import Objective
from pipeline.train.pretrain_config import ModelConfig, PretrainConfig
from shards.training.source import Source, SourceConfig
from shards.training.source_reader import open_source

PAIRS, BROKEN, BATCH, STEPS = 21, 2, 6, 8  # two epochs and a little
LAYERS = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64}
CPU = torch.device("cpu")


def write_world(folder: Path) -> None:
    """Write human-annotated pairs, half of them false, and a tar with broken pictures among it."""
    write_toy_world(
        folder, ToyWorldConfig(samples=PAIRS, samples_per_shard=7, image_px=32, noise=0.5)
    )
    with tarfile.open(folder / "broken.tar", "w") as tar:
        for n in range(BROKEN):
            for name, data in ((f"b{n}.png", b"no picture"), (f"b{n}.txt", b"a red ring")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def config_of(world: Path, steps: int = STEPS, **changed: Any) -> PretrainConfig:
    whole = PretrainConfig(
        seed=3,
        dtype="fp32",
        data=DataConfig(
            sources=(SourceConfig(shards=(str(world),)),), lanes=6, shuffle=4, max_tokens=12
        ),
        rate=RateConfig(highest=1e-3, warmup_steps=3),
        step=StepConfig(epochs=None, steps=steps, batch_size=BATCH),
        save=SaveConfig(every_steps=2, log_every=1),
        model=ModelConfig(size="tiny", image_size=16, words=90, vision=LAYERS, text=LAYERS),
        loss=LossConfig(queue=20, ramp_epochs=1, momentum=0.9),
    )
    return whole.model_copy(update=changed)


def sources_of(config: TrainConfig) -> list[Source]:
    return [open_source(source) for source in config.data.sources]


def run(
    config: PretrainConfig, start: Path, folder: Path, workers: Workers = ALONE
) -> tuple[TrainResult, Objective]:
    """Train from a start folder to the end, or from where it was left."""
    folder.mkdir(exist_ok=True)
    objective = pretrain.start_pretraining(start, config)
    place = TrainingContext(folder, CPU, workers)
    return train(config, "fp32", sources_of(config), objective, place), objective


def lines(folder: Path) -> list[dict[str, Any]]:
    """Read the numbers of a training, but for its pace."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name != "samples_per_s"} for line in found
    ]


def last_state(folder: Path) -> dict[str, bytes]:
    """Read every file of the newest state: network, copies, queue, pointer, optimiser, place."""
    newest = training_state.newest_state(folder / "states")
    assert newest is not None
    return {path.name: path.read_bytes() for path in newest.iterdir()} | {
        "name": newest.name.encode()
    }


def progress(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(last_state(folder)["progress.json"])
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """The random network that trainings start from."""
    path = tmp_path_factory.mktemp("start") / "start"
    config = config_of(world)
    pretrain.write_start(path, config, sources_of(config))
    return path


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, world: Path, start: Path
) -> tuple[Path, TrainResult]:
    """An unbroken training."""
    folder = tmp_path_factory.mktemp("whole") / "training"
    ended, _ = run(config_of(world), start, folder)
    return folder, ended


# --- what it computes
