"""Fixtures of the real command: a network of its own, small shards, tiny models, a run of them."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.following.server import EMPTY, keep_empty, own_server
from models.blip import tokenizer
from models.blip.config import blip_config
from models.checkpoints import checkpoint
from pipeline.download.environment import NoImg2dataset, find_python
from pipeline.toy import world as toy_world
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from tests.support.driving import LOOPBACK, Command, InProcess, Models, wait_until
from tests.support.prefect_server import answers


@pytest.fixture(scope="session")
def loopback_only() -> list[str]:
    """The start of a command that cannot reach beyond this machine; Ray binds all addresses."""
    probe = ["unshare", "-n", *LOOPBACK, "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs `unshare -n` (root): Ray must not listen on a real network in tests")
    return probe[:-1]


@pytest.fixture(scope="session")
def img2dataset() -> str:
    """The Python that has img2dataset; tests skip where there is none."""
    try:
        return find_python()
    except NoImg2dataset as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def parity_models(data_dir: Path) -> Models:
    """The tiny checkpoints of the numeric references."""
    hf = data_dir / "parity" / "hf"
    return Models(hf / "captioning", hf / "retrieval")


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Random tiny models made here, so that most tests need no data."""
    folder = tmp_path_factory.mktemp("models")
    words = tokenizer.train(toy_world.corpus(), 200)
    config = blip_config("tiny", **words.config_fields)
    made = Models(folder / "captioner", folder / "filter")
    checkpoint.create(made.captioner, "captioner", config, words, seed=1)
    checkpoint.create(made.filter, "filter", config, words, seed=2)
    return made


@pytest.fixture(scope="session")
def toy_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 shards of 25 toy pictures."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy_world(folder, ToyWorldConfig(samples=300, samples_per_shard=25))
    return folder


@pytest.fixture(scope="session")
def one_shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of 6 toy pictures."""
    folder = tmp_path_factory.mktemp("one")
    write_toy_world(folder, ToyWorldConfig(samples=6, samples_per_shard=6))
    return folder


@pytest.fixture(scope="session")
def toy_run(
    tmp_path_factory: pytest.TempPathFactory,
    flags: Callable[[Models, Path, Path], list[str]],
    toy_models: Models,
    toy_shards: Path,
) -> Path:
    """An unbroken run over the toy shards, by one process; whoever changes it copies it first."""
    home = tmp_path_factory.mktemp("unbroken")
    command = flags(toy_models, toy_shards, home / "run")
    done = InProcess(home, lambda: ("", "")).run(*command, "--engine=local", "--direct")
    assert done.returncode == 0
    return home / "run"


@pytest.fixture
def capfilt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    """The command for what starts no server."""
    monkeypatch.setenv("COLUMNS", "80")
    return InProcess(tmp_path, capsys.readouterr)


@pytest.fixture
def capfilt_ray(tmp_path: Path, loopback_only: list[str]) -> Command:
    """The command on loopback alone, for what starts Ray or Prefect."""
    return Command(loopback_only, tmp_path)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Prefect's own server would need ten seconds to make: its tables, without a run."""
    home = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        with own_server("of tests") as server:
            wait_until(lambda: answers(server.settings["PREFECT_API_URL"]))
            keep_empty(home)
    return home / EMPTY


@pytest.fixture(scope="session")
def flags() -> Callable[[Models, Path, Path], list[str]]:
    """The flags of a run in fp32."""

    def make(models: Models, shards: Path, output: Path) -> list[str]:
        return [
            "clean",
            f"--input={shards}",
            f"--output={output}",
            f"--captioner={models.captioner}",
            f"--filter={models.filter}",
            "--set=dtype=fp32",
        ]

    return make


@pytest.fixture(scope="session")
def training_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 toy pictures of 32 pixels."""
    folder = tmp_path_factory.mktemp("pairs")
    write_toy_world(folder, ToyWorldConfig(samples=60, samples_per_shard=15, image_px=32))
    return folder


@pytest.fixture
def write_recipe(training_pairs: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe of twelve steps; keywords go over it."""

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}

    def make(**change: Any) -> Path:
        recipe = {
            "output": str(tmp_path / "trained"),
            "dtype": "fp32",
            "data": {"sources": [{"shards": [str(training_pairs)]}], "lanes": 6, "shuffle": 8},
            "augment": {"crop": None, "flip": 0, "operations": 0},
            "model": {"size": "tiny", "image_size": 32, "words": 200, "dropout": 0}
            | {"vision": tower, "text": tower},
            "loss": {"queue": 30},
            "rate": {"highest": 1e-3, "warmup_steps": 4, "decay": "cosine"},
            "step": {"epochs": None, "steps": 12, "batch_size": 12},
            "save": {"every_steps": 4, "log_every": 1},
            "launch": {"kind": "local"},
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe | change))
        return path

    return make
