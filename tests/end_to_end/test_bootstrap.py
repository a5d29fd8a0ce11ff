"""Rounds by the real command: from nothing, killed, asked, and followed by a server that dies."""

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.driving import Command, InProcess, children, wait_until
from tests.support.prefect_server import prefect_server
from tests.support.rounds_recipe import write_rounds_recipe

pytestmark = pytest.mark.timeout(900)

WAIT_S = 300  # for a moment that comes after seconds, on a machine that does other things too
STAGES = ["pretrain", "captioner", "filter", "clean", "evaluate"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds on a world of 108 pictures."""
    return write_rounds_recipe(tmp_path_factory.mktemp("rounds"))


@pytest.fixture(scope="module")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory, recipe: Path
) -> tuple[dict[str, Any], float]:
    """The ledger of rounds that nothing disturbed, and how many seconds they took."""
    command = Command([], tmp_path_factory.mktemp("unbroken"))
    began = time.monotonic()
    done = command.run("bootstrap", recipe, "--direct", "--json")
    took_s = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ended"] == "rounds"
    return ledger(command.home / "out"), took_s


def ledger(folder: Path) -> dict[str, Any]:
    """Read a ledger, but for times and cost."""
    found: dict[str, Any] = json.loads((folder / "rounds.json").read_text())
    del found["cost"]
    return found


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a command and all that it has started."""
    assert process.poll() is None, "it was over before it was killed"
    os.killpg(process.pid, signal.SIGKILL)


def killed(command: Command, recipe: Path, moment: Callable[[], bool]) -> None:
    process = command.start("bootstrap", recipe, "--direct")
    wait_until(moment, WAIT_S)
    kill(process)
    command.wait(process)


@pytest.mark.nightly
def test_rounds_that_are_killed_end_like_those_that_are_not(
    tmp_path: Path, recipe: Path, unbroken: tuple[dict[str, Any], float]
) -> None:
    command, out = Command([], tmp_path), tmp_path / "out"
    killed(command, recipe, lambda: (out / "round-1/pretrain/states/step-00000002").is_dir())
    assert not (out / "round-1/pretrain/result.json").exists()
    killed(command, recipe, lambda: any(out.glob("round-1/run/commits/*.json")))
    assert not (out / "round-2").exists()
    done = command.run("bootstrap", recipe, "--direct")
    assert done.returncode == 0, done.stderr
    assert ledger(out) == unbroken[0]
    tries = json.loads((out / "rounds.json").read_text())["cost"]["round-1"]
    assert [len(tries[stage]) for stage in STAGES] == [2, 1, 1, 2, 1]


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(3))
def test_rounds_that_are_killed_at_random_moments(
    tmp_path: Path, recipe: Path, unbroken: tuple[dict[str, Any], float], seed: int
) -> None:
    command, draw = Command([], tmp_path), random.Random(seed)
    for _ in range(3):
        process = command.start("bootstrap", recipe, "--direct")
        wait_until((tmp_path / "out" / "rounds.json").exists, WAIT_S)
        time.sleep(draw.uniform(0, unbroken[1] / 3))
        kill(process)
        command.wait(process)
    done = command.run("bootstrap", recipe, "--direct")
    assert done.returncode == 0, done.stderr
    assert ledger(tmp_path / "out") == unbroken[0]


def test_what_the_command_says(tmp_path: Path, recipe: Path, capfilt: InProcess) -> None:
    done = capfilt.run("bootstrap", recipe, "--direct", "--rounds=1")
    assert done.returncode == 0, done.stderr
    (entry,) = ledger(tmp_path / "out")["rounds"]
    for stage in STAGES:
        assert f"round 1: {stage} done: " in done.stderr
    row = next(line for line in done.stdout.splitlines() if "1 (best)" in line)
    itm = entry["evaluate"]["retrieval"]["itm"]
    numbers = [float(number) for number in re.findall(r"\d\.\d{3}", row)]
    expected = [entry["gate"]["measure"], itm["tr@1"], itm["ir@1"]]
    assert numbers[:3] == pytest.approx(expected, abs=5e-4)
    done = capfilt.run("bootstrap", recipe, "--direct", "--set=seed=4")
    assert done.returncode == 2
    assert "seed: 0 -> 4" in done.stderr


@pytest.mark.nightly
def test_without_a_terminal_a_round_waits_for_approval(recipe: Path, capfilt: InProcess) -> None:
    command = ("bootstrap", recipe, "--direct", "--set=approve=true", "--json")
    waiting = capfilt.run(*command)
    assert waiting.returncode == 0
    assert json.loads(waiting.stdout)["ended"] == "approval"
    assert "capfilt approve " in waiting.stderr
    assert capfilt.run("approve", "out", "2").returncode == 2
    assert capfilt.run("approve", "out", "1").returncode == 0
    done = capfilt.run(*command)
    assert done.returncode == 0
    assert json.loads(done.stdout)["ended"] == "rounds"


@pytest.mark.nightly
def test_a_dead_prefect_server_delays_no_round(
    capfilt_ray: Command, recipe: Path, unbroken: tuple[dict[str, Any], float]
) -> None:
    out = capfilt_ray.home / "out"
    process = capfilt_ray.start("bootstrap", recipe, "--json")
    wait_until((out / "round-1/pretrain/states").is_dir, WAIT_S)
    (server,) = children(process.pid, "flows.following.server")
    os.kill(server, signal.SIGKILL)
    process.wait(WAIT_S)
    ended = time.time()
    done = capfilt_ray.wait(process, WAIT_S)
    assert done.returncode == 0, done.stderr
    assert ledger(out) == unbroken[0]
    assert ended - (out / "round-2/evaluation.json").stat().st_mtime < 20


@pytest.mark.nightly
def test_prefect_waits_for_a_person(capfilt_ray: Command, recipe: Path) -> None:
    out = capfilt_ray.home / "out"
    process = capfilt_ray.start("bootstrap", recipe, "--set=approve=true")
    wait_until((out / "round-1/evaluation.json").is_file, WAIT_S)
    time.sleep(5)
    assert process.poll() is None
    assert not (out / "round-2").exists()
    other = Command(capfilt_ray.prefix, capfilt_ray.home / "other")
    other.home.mkdir()
    approved = other.run("approve", out, "--reason=it may")
    assert approved.returncode == 0, approved.stderr
    done = capfilt_ray.wait(process, WAIT_S)
    assert done.returncode == 0, done.stderr
    assert ledger(out)["ended"] == "rounds"


@pytest.mark.nightly
def test_a_person_lets_the_next_round_begin_in_prefect(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, out = Command([], tmp_path), tmp_path / "out"
    with prefect_server(tmp_path / "server") as prefect:
        monkeypatch.setenv("PREFECT_API_URL", prefect.url)
        process = command.start("bootstrap", recipe, "--set=approve=true")
        run = prefect.newest(f"bootstrap {out} by {recipe.name}")
        prefect.wait(run, "Paused", timeout_s=WAIT_S)
        answer = {"approve": True, "reason": "it may"}
        assert prefect.post(f"flow_runs/{run}/resume", run_input=answer).status_code == 201
        done = command.wait(process, WAIT_S)
        ended = prefect.run(run)["state"]
    assert done.returncode == 0, done.stderr
    assert ledger(out)["ended"] == "rounds"
    assert (ended["name"], ended["message"].partition(",")[0]) == ("Completed", "2 rounds")
    approved = json.loads((out / "round-1/approved.json").read_text())
    assert (approved["round"], approved["by"], approved["reason"]) == (1, "Prefect", "it may")


@pytest.mark.nightly
@pytest.mark.timeout(1800)  # Ray starts eight times
def test_rounds_on_ray_come_to_what_they_come_to_in_one_process(
    capfilt_ray: Command, recipe: Path, unbroken: tuple[dict[str, Any], float]
) -> None:
    on_ray = ["launch.kind=ray", "launch.cpus_per_worker=1", "engine.kind=ray"]
    settings = [f"--set={setting}" for setting in on_ray]
    process = capfilt_ray.start("bootstrap", recipe, "--direct", *settings)
    done = capfilt_ray.wait(process, 1500)
    assert done.returncode == 0, done.stderr
    found, expected = ledger(capfilt_ray.home / "out"), unbroken[0]
    assert without_names(found["rounds"]) == without_names(expected["rounds"])
    assert (found["best"], found["ended"]) == (expected["best"], expected["ended"])


def without_names(found: Any) -> Any:
    """Leave out what is named by a run's bytes: with more threads a score's last bit differs."""
    if isinstance(found, dict):
        named = ("snapshot", "fingerprint", "name")
        return {key: without_names(value) for key, value in found.items() if key not in named}
    return [without_names(one) for one in found] if isinstance(found, list) else found
