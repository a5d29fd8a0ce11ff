"""`capfilt pretrain` on Ray: as in one process, killed, and told to end."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.driving import Command, InProcess, wait_until

Write = Callable[..., Path]


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


@pytest.mark.nightly
def test_two_workers_on_ray_learn_what_one_learns_here(
    capfilt: InProcess, capfilt_ray: Command, write_recipe: Write, tmp_path: Path
) -> None:
    assert capfilt.run("pretrain", write_recipe()).returncode == 0
    flags = [f"--output={tmp_path / 'two'}", "--engine=ray", "--workers=2"]
    done = capfilt_ray.run("pretrain", write_recipe(), *flags, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["workers"] == 2
    compare(tmp_path / "two", tmp_path / "trained")


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_a_worker_that_is_killed_is_replaced(
    capfilt: InProcess, capfilt_ray: Command, write_recipe: Write, tmp_path: Path
) -> None:
    assert capfilt.run("pretrain", write_recipe()).returncode == 0
    states = tmp_path / "two" / "states"
    process = capfilt_ray.start(
        "pretrain", write_recipe(), "--output", tmp_path / "two", "--engine=ray", "--workers=2"
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


@pytest.mark.nightly
def test_a_training_that_diverges_on_ray_is_not_tried_again(
    capfilt_ray: Command, write_recipe: Write, tmp_path: Path
) -> None:
    rate = {"highest": 1e30, "warmup_steps": 2, "warmup_from": 1e-4}
    done = capfilt_ray.run("pretrain", write_recipe(rate=rate), "--engine=ray", "--workers=2")
    assert done.returncode == 1
    assert "is not finite" in done.stderr
    assert "Lower rate.highest" in done.stderr
    assert "Traceback" not in done.stderr
    assert "restart" not in done.stderr
    assert not (tmp_path / "trained" / "result.json").exists()


@pytest.mark.nightly
def test_more_workers_than_processors_are_refused(
    capfilt_ray: Command, write_recipe: Write
) -> None:
    """Ray would wait for ever for processors that do not come."""
    asked = ["--workers=2", "--set", "launch.cpus_per_worker=1000"]
    done = capfilt_ray.run("pretrain", write_recipe(), "--engine=ray", *asked)
    assert done.returncode == 2
    assert "wanted: 2 workers with 1000 processors each" in done.stderr


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_told_to_end_on_ray_it_ends_and_goes_on_later(
    capfilt: InProcess, capfilt_ray: Command, write_recipe: Write, tmp_path: Path
) -> None:
    flags = ["--output", "two", "--engine=ray", "--workers=2"]  # a path of the user's own folder
    process = capfilt_ray.start("pretrain", write_recipe(), *flags)
    wait_until(lambda: bool(list((tmp_path / "two" / "states").glob("step-*"))))
    process.send_signal(signal.SIGTERM)
    done = capfilt_ray.wait(process, 100)
    assert done.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "two" / "result.json").exists()
    again = capfilt_ray.run("pretrain", write_recipe(), *flags)
    assert again.returncode == 0, again.stderr
    assert capfilt.run("pretrain", write_recipe()).returncode == 0
    compare(tmp_path / "two", tmp_path / "trained")
