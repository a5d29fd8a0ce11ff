"""`capfilt pretrain` and `finetune`: on Ray as in one process, killed, and asked for nonsense."""

import json
import os
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from models.checkpoints import checkpoint
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from tests.support.driving import Command, InProcess, wait_until

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
Write = Callable[..., Path]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_toy_world(folder, ToyWorldConfig(samples=60, samples_per_shard=15, image_px=32))
    return folder


@pytest.fixture
def write(pairs: Path, tmp_path: Path) -> Write:
    """Write a recipe of twelve steps; keywords go over it."""

    def make(**change: Any) -> Path:
        recipe = {
            "output": str(tmp_path / "trained"),
            "dtype": "fp32",
            "data": {"sources": [{"shards": [str(pairs)]}], "lanes": 6, "shuffle": 8},
            "augment": {"crop": None, "flip": 0, "operations": 0},
            "model": {"size": "tiny", "image_size": 32, "words": 200, "dropout": 0}
            | {"vision": TOWER, "text": TOWER},
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


def numbers(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name != "samples_per_s"}
        for line in lines
    ]


def compare(found: Path, expected: Path) -> None:
    ours, theirs = numbers(found), numbers(expected)
    assert [line["step"] for line in ours] == list(range(1, 13))
    for one, other in zip(ours, theirs, strict=True):
        for name in ("loss", "itc", "itm", "lm"):
            assert one[name] == pytest.approx(other[name], abs=1e-5), (one["step"], name)


def test_two_workers_on_ray_learn_what_one_learns_here(
    capfilt: InProcess, capfilt_ray: Command, write: Write, tmp_path: Path
) -> None:
    assert capfilt.run("pretrain", write()).returncode == 0
    flags = ["--output", tmp_path / "two", "--engine=ray", "--workers=2"]
    done = capfilt_ray.run("pretrain", write(), *flags, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["workers"] == 2
    compare(tmp_path / "two", tmp_path / "trained")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_worker_that_is_killed_is_replaced(
    capfilt: InProcess, capfilt_ray: Command, write: Write, tmp_path: Path
) -> None:
    assert capfilt.run("pretrain", write()).returncode == 0
    states = tmp_path / "two" / "states"
    process = capfilt_ray.start(
        "pretrain", write(), "--output", tmp_path / "two", "--engine=ray", "--workers=2"
    )
    until = time.monotonic() + 150
    while not list(states.glob("step-*")) and time.monotonic() < until:
        time.sleep(0.02)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RayTrainWorker" in " ".join(child.cmdline())
    ]
    assert len(workers) == 2
    os.kill(workers[1].pid, signal.SIGKILL)
    done = capfilt_ray.wait(process, 300)
    assert done.returncode == 0, done.stderr
    compare(tmp_path / "two", tmp_path / "trained")


def test_a_captioner_is_finetuned_from_what_was_pre_trained(
    capfilt: InProcess, write: Write, tmp_path: Path
) -> None:
    first = capfilt.run("pretrain", write())
    assert first.returncode == 0, first.stderr
    assert "12 steps" in first.stdout
    recipe = write(model={"start": str(tmp_path / "trained" / "model"), "dropout": 0})
    again = capfilt.run("finetune", "captioner", recipe, "--output", tmp_path / "captioner")
    assert again.returncode == 0, again.stderr
    assert checkpoint.info(tmp_path / "captioner" / "model").role == "captioner"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--set", "rate.higest=1"], "Did you mean rate.highest"),
        (["--set", "step.batch_size=10"], "multiple of data.lanes"),
        (["--set", "step.epochs=1"], "one of step.epochs and step.steps"),
        (["--set", "data.sources=[{shards: [nowhere/*.tar]}]"], "nowhere"),
        (["--set", "data.max_tokens=99"], "max_tokens is 99"),
        (["--start", "nowhere"], "nowhere"),
        (["--set", "model.text.hiden_size=3"], "hiden_size"),
        (["--engine=ray", "--workers=4"], "data.lanes is 6, which 4 workers do not divide"),
        (
            ["--workers=2"],
            "launch: Value error, workers is 2, and kind local trains in one process",
        ),
    ],
)
def test_nonsense_is_one_message(
    capfilt: InProcess, write: Write, change: list[str], said: str
) -> None:
    done = capfilt.run("pretrain", write(), *change)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_without_samples_is_one_message(
    capfilt: InProcess, write: Write, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    source = f"data.sources=[{{shards: [{tmp_path / 'empty.tar'}]}}]"
    done = capfilt.run("pretrain", write(), "--set", source)
    assert done.returncode == 2
    assert "no sample to train on" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_training_that_diverges_on_ray_is_not_tried_again(
    capfilt_ray: Command, write: Write, tmp_path: Path
) -> None:
    rate = {"highest": 1e30, "warmup_steps": 2, "warmup_from": 1e-4}
    done = capfilt_ray.run("pretrain", write(rate=rate), "--engine=ray", "--workers=2")
    assert done.returncode == 1
    assert "is not finite" in done.stderr
    assert "Lower rate.highest" in done.stderr
    assert "Traceback" not in done.stderr
    assert "restart" not in done.stderr
    assert not (tmp_path / "trained" / "result.json").exists()


@pytest.mark.slow
def test_more_workers_than_processors_are_refused(capfilt_ray: Command, write: Write) -> None:
    """Ray would wait for ever for processors that do not come."""
    asked = ["--workers=2", "--set", "launch.cpus_per_worker=1000"]
    done = capfilt_ray.run("pretrain", write(), "--engine=ray", *asked)
    assert done.returncode == 2
    assert "launch asks for 2 workers with 1000 processors each" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_told_to_end_on_ray_it_ends_and_goes_on_later(
    capfilt: InProcess, capfilt_ray: Command, write: Write, tmp_path: Path
) -> None:
    flags = ["--output", "two", "--engine=ray", "--workers=2"]  # a path of the user's own folder
    process = capfilt_ray.start("pretrain", write(), *flags)
    wait_until(lambda: bool(list((tmp_path / "two" / "states").glob("step-*"))))
    process.send_signal(signal.SIGTERM)
    done = capfilt_ray.wait(process, 100)
    assert done.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "two" / "result.json").exists()
    again = capfilt_ray.run("pretrain", write(), *flags)
    assert again.returncode == 0, again.stderr
    assert capfilt.run("pretrain", write()).returncode == 0
    compare(tmp_path / "two", tmp_path / "trained")


def test_another_recipe_is_refused_and_the_same_is_done_already(
    capfilt: InProcess, write: Write, tmp_path: Path
) -> None:
    assert capfilt.run("pretrain", write()).returncode == 0
    before = (tmp_path / "trained" / "result.json").read_bytes()
    other = capfilt.run("pretrain", write(), "--set", "rate.highest=0.01")
    assert other.returncode == 2
    assert "rate.highest: 0.001 -> 0.01" in other.stderr
    assert capfilt.run("pretrain", write(), "--set", "save.every_steps=3").returncode == 0
    assert (tmp_path / "trained" / "result.json").read_bytes() == before
