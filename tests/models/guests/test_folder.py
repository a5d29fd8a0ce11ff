"""Guests' folders: nothing that they hold is run, and what is wrong with one is said."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest
import torch
from transformers import AutoModelForImageTextToText

from models.checkpoints.locate import CheckpointError
from models.guests.folder import digest, load_network, locate, read_config, read_settings
from tests.support import model_hub


@pytest.fixture
def copy(tmp_path: Path, guest_folder: Callable[[str], Path]) -> Path:
    return Path(shutil.copytree(guest_folder("git"), tmp_path / "git"))


def test_a_folder_that_brings_code_is_refused_and_its_code_not_run(copy: Path) -> None:
    ran = copy / "ran"
    (copy / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    block = json.loads((copy / "config.json").read_text())
    block |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (copy / "config.json").write_text(json.dumps(block))
    with pytest.raises(CheckpointError, match=r"brings its own code \(trust_remote_code\)"):
        read_config(copy)
    assert not ran.exists()


def test_code_that_nothing_needs_is_left_alone(copy: Path) -> None:
    ran = copy / "ran"
    (copy / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    block = json.loads((copy / "config.json").read_text())
    block["auto_map"] = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    (copy / "config.json").write_text(json.dumps(block))
    assert read_config(copy).model_type == "git"
    load_network(AutoModelForImageTextToText, copy, dtype=torch.float32)
    assert not ran.exists()


def test_pickled_weights_are_not_opened(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"holds no \.safetensors"):
        locate(str(copy))


@pytest.mark.parametrize(
    ("content", "said"), [("{", "cannot be read"), ('{"model_type": "nobodys"}', "nobodys")]
)
def test_a_config_that_says_nothing(copy: Path, content: str, said: str) -> None:
    (copy / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=said):
        read_config(copy)


def test_damaged_weights(copy: Path) -> None:
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=f"{copy} cannot be used"):
        load_network(AutoModelForImageTextToText, copy, dtype=torch.float32)


def test_settings_that_are_not_there_are_empty(copy: Path) -> None:
    assert read_settings(copy, "nothing.json") == {}
    (copy / "processor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"processor_config\.json cannot be read"):
        read_settings(copy, "processor_config.json")


@pytest.mark.nightly
def test_a_guest_of_the_hub_equals_the_folder_that_it_came_from(copy: Path, tmp_path: Path) -> None:
    ask = "from models.guests.folder import locate; print(locate('someone/git'))"
    with model_hub.giving() as hub:
        hub.repos["someone/git"] = {path.name: path.read_bytes() for path in copy.iterdir()}
        hub.repos["someone/git"]["pytorch_model.bin"] = b"never asked for"
        there = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        told = subprocess.run(
            [sys.executable, "-c", ask],
            env={**os.environ, **there},
            stdout=PIPE,
            text=True,
            check=True,
        )
        assert hub.fetched["model.safetensors"] == 1
        assert hub.fetched["pytorch_model.bin"] == 0
    assert digest(Path(told.stdout.strip())) == digest(copy)
