"""`capfilt bootstrap` and `capfilt trial`: what they refuse, before anything is trained."""

import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.lock import lock_folder
from flows.recipe import dump_recipe
from flows.rounds.recipe import BootstrapRecipe
from tests.support.driving import InProcess


@pytest.fixture
def recipe(small_rounds: Callable[..., BootstrapRecipe], tmp_path: Path) -> Path:
    """Two rounds into `out`."""
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(small_rounds(tmp_path / "out")), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--set=pretrian.seed=1",), "Did you mean pretrain"),
        (("--set=web.urls=[nothing/here]",), "nothing/here"),
        (("--set=filter.step.batch_size=13",), "multiple of data.lanes"),
        (("--set=held_out.urls=[]",), "held_out.urls"),
        (("--rounds=0",), "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_run_is_one_message(
    recipe: Path, capfilt: InProcess, flags: tuple[str, ...], message: str
) -> None:
    done = capfilt.run("bootstrap", recipe, "--direct", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert not (capfilt.home / "out").exists()


def test_a_folder_without_rounds_cannot_be_approved(capfilt: InProcess) -> None:
    done = capfilt.run("approve", "out", "--reason=because")
    assert done.returncode == 2
    assert "out holds no rounds" in done.stderr


def test_a_second_command_in_the_folder_hears_who_is_there(
    tmp_path: Path, recipe: Path, capfilt: InProcess
) -> None:
    with lock_folder(tmp_path / "out"):
        done = capfilt.run("bootstrap", recipe, "--direct")
    assert done.returncode == 2
    assert f"out is in use by process {os.getpid()} on {platform.node()}" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--set=pretrain.step.epochs=1",), "a trial gives each view as many steps"),
        (("--set=ouput=x",), "Did you mean output"),
        ((), "nowhere"),
    ],
)
def test_a_trial_that_cannot_be_run_is_one_message(
    capfilt: InProcess, tmp_path: Path, small_world: Path, flags: tuple[str, ...], message: str
) -> None:
    recipe = tmp_path / "trial.yaml"
    recipe.write_text(
        "output: trial\n"
        "pretrain: {step: {epochs: null, steps: 2, batch_size: 32}}\n"
        f"human: {{urls: [{small_world / 'human'}]}}\n"
        f"held_out: {{urls: [{small_world / 'held-out'}]}}\n",
        encoding="utf-8",
    )
    done = capfilt.run("trial", "nowhere:strict", recipe, *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "trial").exists()
