"""The driver of a training: what claims a folder, what is the same training, and what is done."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.engines.engine import EngineError
from flows.lock import LOCK, FolderInUse, lock_folder
from flows.recipe import RecipeError
from flows.training import run as train
from flows.training.recipe import FinetuneRecipe, PretrainRecipe
from flows.training.worker import TrainingJob, work
from models.checkpoints import checkpoint
from models.training.workers import ALONE
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.files.durable import MARK
from shards.run.run import RunMismatch

KILLED = """
import os, signal, sys
from flows.training import run as train
from flows.training.recipe import PretrainRecipe
from pipeline.train import state

written = state.write
state.write = lambda *given: (written(*given), os.kill(os.getpid(), signal.SIGKILL))
train.run(train.prepare(PretrainRecipe.model_validate_json(sys.argv[1])))
"""
Make = Callable[..., PretrainRecipe]


def fingerprint(recipe: PretrainRecipe) -> str:
    """Claim the recipe's folder, and give what it is known by."""
    job = train.prepare(recipe)
    found: str = json.loads((job.folder / "training.json").read_text())["fingerprint"]
    return found


def test_a_training_ends_in_its_result(recipe: Make, tmp_path: Path) -> None:
    job = train.prepare(recipe())
    assert job.steps == 2
    assert train.read_result(job.folder) is None
    with pytest.raises(RecipeError, match=r"trained has no result\.json: finish the training"):
        train.checkpoint_of(job.folder, "pretrain")
    result = train.run(job)
    assert result == train.read_result(job.folder)
    assert (result["steps"], result["samples"], result["workers"]) == (2, 12, 1)
    assert result["epochs"] == 0.5
    model = train.checkpoint_of(job.folder, "pretrain")
    assert model == tmp_path / "trained" / "model"
    assert checkpoint.info(model).digest == result["checkpoints"]["pretrain"]["digest"]
    assert [source["rows"] for source in result["sources"]] == [24]


@pytest.mark.parametrize("done", [True, False])
def test_a_training_that_is_done_is_so_however_ray_ends(
    done: bool, recipe: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def launch(job: TrainingJob) -> None:
        if done:
            work(job, ALONE, torch.device("cpu"))
        raise EngineError("the raylet is dead")

    monkeypatch.setattr("flows.training.ray.launch", launch)
    job = train.prepare(recipe(launch={"kind": "ray"}, dtype="fp32"))
    if done:
        assert train.run(job)["steps"] == job.steps
        assert "is done, though Ray has ended badly: the raylet is dead" in caplog.text
    else:
        with pytest.raises(EngineError, match="the raylet is dead"):
            train.run(job)


def test_where_it_runs_is_resolved_once(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert train.prepare(recipe(launch={})).recipe.launch.kind == "ray"
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    assert train.prepare(recipe(launch={"workers": 3})).recipe.launch.kind == "ray"  # and fails
    job = train.prepare(recipe(launch={}))
    assert job.recipe.launch.kind == "local"
    assert train.run(job)["steps"] == job.steps


def test_what_is_done_is_answered_at_once(recipe: Make) -> None:
    first = train.run(train.prepare(recipe()))
    folder = train.prepare(recipe()).folder
    shutil.rmtree(folder / "states")  # there is nothing to go on from, and no need to
    shutil.rmtree(folder / "model")
    assert train.run(train.prepare(recipe())) == first
    assert not (folder / "states").exists()
    assert not (folder / "model").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "seed: 0 -> 5"),
        ({"rate": {"highest": 0.01}}, r"rate\.highest: 0\.0003 -> 0\.01"),
        ({"step__steps": 3}, r"step\.steps: 2 -> 3"),
        ({"data__lanes": 3}, r"data\.lanes: 6 -> 3"),
        ({"dtype": "bf16"}, "dtype: .?fp32.? -> .?bf16"),
    ],
)
def test_a_folder_of_another_recipe_is_refused(
    recipe: Make, change: dict[str, Any], message: str
) -> None:
    train.prepare(recipe())
    with pytest.raises(RunMismatch, match=message) as raised:
        train.prepare(recipe(**change))
    assert "another output folder" in str(raised.value)
    train.prepare(recipe())  # it is the first one's still


def test_other_samples_are_another_training(recipe: Make, pairs: Path, tmp_path: Path) -> None:
    train.prepare(recipe())
    write_toy_world(tmp_path / "other", ToyWorldConfig(samples=12, image_px=32, seed=1))
    for sources in ([str(tmp_path / "other")], [str(pairs / "00000.tar")]):
        with pytest.raises(RunMismatch, match=r"data\.sources"):
            train.prepare(recipe(data__sources=[{"shards": sources}]))
    with pytest.raises(RunMismatch, match="repeat"):
        train.prepare(recipe(data__sources=[{"shards": [str(pairs)], "repeat": 2}]))


def test_places_and_machines_make_no_other_training(
    recipe: Make, pairs: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(pairs, moved)
    first = fingerprint(recipe())
    for change in (
        {"output": str(tmp_path / "elsewhere")},
        {"launch": {"kind": "ray", "workers": 3, "restarts": 9}},
        {"save": {"every_steps": 7}},
        {"trackers": ["tensorboard"]},
        {"data__sources": [{"shards": [str(moved)]}]},
        {"data__decode_threads": 1},
    ):
        assert fingerprint(recipe(**change)) == first, change


def test_a_start_of_the_same_content_is_the_same_start(recipe: Make, tmp_path: Path) -> None:
    job = train.prepare(recipe())
    shutil.copytree(job.start, tmp_path / "copy")
    found = [
        fingerprint(recipe(output=str(tmp_path / name), model={"start": str(start)}))
        for name, start in (("one", job.start), ("two", tmp_path / "copy"))
    ]
    assert found[0] == found[1]


def test_a_kill_while_the_start_is_written_does_no_harm(recipe: Make, tmp_path: Path) -> None:
    half = tmp_path / "trained" / ".start.partial"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    (half / MARK).touch()
    first = checkpoint.info(train.prepare(recipe()).start).digest
    other = train.prepare(recipe(output=str(tmp_path / "other")))
    assert checkpoint.info(other.start).digest == first
    assert not half.exists()


def test_a_folder_that_is_refused_is_given_no_start(recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="max_tokens is 99"):
        train.prepare(recipe(data__max_tokens=99))
    assert [path.name for path in (tmp_path / "trained").iterdir()] == [LOCK]
    other = train.prepare(recipe(output=str(tmp_path / "other"), seed=1)).start
    train.prepare(recipe(model={"start": str(other)}))
    before = sorted((tmp_path / "trained").iterdir())
    with pytest.raises(RunMismatch, match=r"model\.start"):
        train.prepare(recipe())
    assert sorted((tmp_path / "trained").iterdir()) == before


def test_a_kill_before_the_start_has_its_name_does_no_harm(recipe: Make) -> None:
    start = train.prepare(recipe()).start
    first = checkpoint.info(start).digest
    shutil.rmtree(start)
    assert checkpoint.info(train.prepare(recipe()).start).digest == first


def test_another_process_in_the_folder_is_left_alone(recipe: Make) -> None:
    job = train.prepare(recipe())
    with lock_folder(job.folder):
        for begin in (lambda: train.prepare(recipe()), lambda: train.run(job)):
            with pytest.raises(FolderInUse, match=f"{job.folder} is in use"):
                begin()
    assert not (job.folder / "states").exists()
    train.run(job)


def test_a_checkpoint_that_a_kill_left_half_written_is_cleared_when_it_goes_on(
    recipe: Make,
) -> None:
    made = recipe()
    killed = subprocess.run([sys.executable, "-c", KILLED, made.model_dump_json()], check=False)
    assert killed.returncode == -signal.SIGKILL
    job = train.prepare(made)
    (half,) = job.folder.glob(".*")
    assert (half / "model.safetensors").is_file()
    half.rename(half.with_name(f"{half.name}.0a1b2c3d"))  # by a kill of what clears
    for name in (".filter.4.partial", ".mine", ".mine.2024.partial", ".mine.2024.partial.1"):
        (job.folder / name).mkdir()
    (job.folder / ".filter.4.partial" / MARK).touch()
    train.run(job)
    mine = [".mine", ".mine.2024.partial", ".mine.2024.partial.1"]
    assert sorted(path.name for path in job.folder.glob(".*")) == mine
    assert checkpoint.info(job.folder / "model").role == "pretrain"


def test_the_dtype_that_auto_found_is_kept(recipe: Make) -> None:
    """A training that began on another machine goes on as it began."""
    first = train.prepare(recipe(dtype="auto"))
    path = first.folder / "training.json"
    record = json.loads(path.read_text())
    assert train.prepare(recipe(dtype="auto")).dtype == record["identity"]["dtype"]
    other = {"fp32": "bf16", "bf16": "fp32"}[record["identity"]["dtype"]]
    shutil.rmtree(first.folder)
    train.prepare(recipe(dtype=other))
    assert train.prepare(recipe(dtype="auto")).dtype == other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data__max_tokens": 99}, "max_tokens is 99"),
        ({"step__batch_size": 8}, r"multiple of data\.lanes"),
        ({"step__steps": None}, r"one of step\.epochs and step\.steps"),
        ({"launch": {"kind": "ray", "workers": 4}}, "4 workers do not divide"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_claimed(
    recipe: Make, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        train.prepare(recipe(**change))
    assert not (tmp_path / "trained" / "training.json").exists()


def test_a_text_must_fit_with_its_prompt(recipe: Make, tmp_path: Path) -> None:
    start = train.prepare(recipe()).start
    given = recipe(output=str(tmp_path / "tuned"), data__max_tokens=60).model_dump()
    shared = {name: given[name] for name in ("output", "data", "step", "launch", "trackers")}
    for task, fits in (("captioner", False), ("joint", False), ("filter", True)):
        tuned = FinetuneRecipe.model_validate(
            shared | {"task": task, "model": {"start": str(start)}}
        )
        if fits:
            train.prepare(tuned)
        else:
            with pytest.raises(RecipeError, match=r"max_tokens is 60, and the prompt has \d+ tok"):
                train.prepare(tuned)
