"""`capfilt pretrain` and `capfilt finetune`, in one process, and asked for nonsense."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from models.checkpoints import checkpoint
from tests.support.driving import InProcess

Write = Callable[..., Path]


@pytest.mark.nightly
def test_a_captioner_is_finetuned_from_what_was_pre_trained(
    capfilt: InProcess, write_recipe: Write, tmp_path: Path
) -> None:
    first = capfilt.run("pretrain", write_recipe())
    assert first.returncode == 0, first.stderr
    assert "12 steps" in first.stdout
    recipe = write_recipe(model={"start": str(tmp_path / "trained" / "model"), "dropout": 0})
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
            "launch: workers is 2, and kind local trains in one process",
        ),
    ],
)
def test_nonsense_is_one_message(
    capfilt: InProcess, write_recipe: Write, change: list[str], said: str
) -> None:
    done = capfilt.run("pretrain", write_recipe(), *change)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_without_samples_is_one_message(
    capfilt: InProcess, write_recipe: Write, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    source = f"data.sources=[{{shards: [{tmp_path / 'empty.tar'}]}}]"
    done = capfilt.run("pretrain", write_recipe(), "--set", source)
    assert done.returncode == 2
    assert "no sample to train on" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.nightly
def test_another_recipe_is_refused_and_the_same_is_done_already(
    capfilt: InProcess, write_recipe: Write, tmp_path: Path
) -> None:
    assert capfilt.run("pretrain", write_recipe()).returncode == 0
    before = (tmp_path / "trained" / "result.json").read_bytes()
    other = capfilt.run("pretrain", write_recipe(), "--set", "rate.highest=0.01")
    assert other.returncode == 2
    assert "rate.highest: 0.001 -> 0.01" in other.stderr
    assert capfilt.run("pretrain", write_recipe(), "--set", "save.every_steps=3").returncode == 0
    assert (tmp_path / "trained" / "result.json").read_bytes() == before
