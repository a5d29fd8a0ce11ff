"""`capfilt pretrain` on clusters of several nodes: placed by them, going on when one is lost."""

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.driving import InProcess
from tests.support.training_cluster import Kill, Outcome, Spec, train_on

Write = Callable[..., Path]
USUAL = ((2, 0), (2, 1))  # a head without a GPU, and a machine with a pretended one
TWO, UNEQUAL = ((2, 0), (2, 0)), ((2, 0), (1, 0))
STEPS = 40  # so that a kill after the first state hits a training that is under way
WORKERS_2 = ("--set=launch.workers=2", "--set=launch.cpus_per_worker=2")
PLAINLY_WITHIN_S = 60


def command(recipe: Path, output: Path, *settings: str) -> tuple[str, ...]:
    lasting = (f"--output={output}", f"--set=step.steps={STEPS}", "--set=step.batch_size=6")
    return ("pretrain", str(recipe), *lasting, *settings)


def result_of(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return read


def losses(folder: Path) -> list[list[float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [[line[name] for name in ("step", "loss", "itc", "itm", "lm")] for line in lines]


def check_same(found: Path, expected: Path) -> None:
    """Compare with an unbroken training of one worker, last digits aside."""
    assert [line[0] for line in losses(found)] == list(range(1, STEPS + 1))
    for one, other in zip(losses(found), losses(expected), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-3), one[0]


@pytest.fixture
def recipe(write_recipe: Write) -> Path:
    return write_recipe(launch={})


@pytest.fixture
def unbroken(recipe: Path, capfilt: InProcess, tmp_path: Path) -> Path:
    """The same training, of one worker here."""
    done = capfilt.run(*command(recipe, tmp_path / "unbroken", "--engine=local"))
    assert done.returncode == 0
    return tmp_path / "unbroken"


@pytest.mark.nightly
@pytest.mark.timeout(500)
def test_the_usual_cluster_trains_on_its_gpu_node(
    loopback_only: list[str], recipe: Path, tmp_path: Path
) -> None:
    spec = Spec(USUAL, ("pretrain", str(recipe), "--set=launch.device=cpu"))
    outcome = train_on(loopback_only, tmp_path / "cluster", spec)
    assert outcome.code == 0, outcome.output
    assert result_of(tmp_path / "trained")["workers"] == 1


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_training_that_loses_a_node_ends_with_fewer_workers(
    loopback_only: list[str], recipe: Path, unbroken: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "trained"
    kill = Kill(1, str(folder / "states" / "step-00000004"))
    spec = Spec(TWO, command(recipe, folder, *WORKERS_2), kill)
    outcome = train_on(loopback_only, tmp_path / "cluster", spec)
    assert outcome.code == 0, outcome.output
    assert "going on with 1 workers; there were 2" in outcome.output
    assert result_of(folder)["workers"] == 1
    check_same(folder, unbroken)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_workers_that_are_left_and_do_not_divide_end_with_what_to_do(
    loopback_only: list[str], recipe: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "trained"
    kill = Kill(1, str(folder / "states" / "step-00000004"))
    three = ("--set=launch.workers=3", "--set=launch.cpus_per_worker=1", "--set=data.lanes=3")
    spec = Spec(UNEQUAL, command(recipe, folder, *three), kill)
    outcome = train_on(loopback_only, tmp_path / "cluster", spec)
    assert outcome.code == 1, outcome.output
    assert "hold 2 of 3 workers" in outcome.output
    assert "--workers 1" in outcome.output
    assert "Traceback" not in outcome.output
    assert outcome.after_kill_s is not None
    assert outcome.after_kill_s < PLAINLY_WITHIN_S


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_gpu_that_torch_does_not_see_is_refused_by_name(
    loopback_only: list[str], recipe: Path, tmp_path: Path
) -> None:
    outcome = train_on(loopback_only, tmp_path / "cluster", Spec(USUAL, ("pretrain", str(recipe))))
    assert outcome.code == 1, outcome.output
    assert "is left out: a GPU is wanted, and torch sees none" in outcome.output
    assert "Traceback" not in outcome.output


@pytest.mark.nightly
@pytest.mark.timeout(6000)
def test_trainings_that_lose_nodes_at_random_moments(
    loopback_only: list[str],
    recipe: Path,
    unbroken: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Raylets of worker and head are killed in turn; after the head's death a fresh cluster."""
    seed = int(os.environ.get("CAPFILT_LOST_NODE_SEED", "14"))
    for run in range(int(os.environ.get("CAPFILT_LOST_NODE_RUNS", "3"))):
        folder, node = tmp_path / f"run-{run}", (run + 1) % 2
        delay_s = random.Random(seed + run).uniform(0, 6)
        kill = Kill(node, str(folder / "metrics.jsonl"), delay_s)
        arguments = command(recipe, folder, *WORKERS_2)
        outcome = train_on(loopback_only, tmp_path / f"cluster-{run}", Spec(TWO, arguments, kill))
        _tell(capsys, run, kill, outcome)
        assert outcome.code in (0, 1), outcome.output
        assert "Traceback" not in outcome.output
        if outcome.code == 1:
            assert node == 0, outcome.output
            assert "saved is safe" in outcome.output or "committed is safe" in outcome.output
            assert (outcome.after_kill_s or 0) < PLAINLY_WITHIN_S
            again = train_on(loopback_only, tmp_path / f"again-{run}", Spec(TWO, arguments))
            assert again.code == 0, again.output
        check_same(folder, unbroken)


def _tell(capsys: pytest.CaptureFixture[str], run: int, kill: Kill, outcome: Outcome) -> None:
    which = "head" if kill.node == 0 else "worker"
    ended = "no kill" if outcome.after_kill_s is None else f"{outcome.after_kill_s:.1f} s after it"
    with capsys.disabled():
        sys.stdout.write(
            f"\nrun {run}: raylet of the {which} killed {kill.delay_s:.1f} s after the first step: "
            f"exit code {outcome.code}, {ended}\n"
        )
