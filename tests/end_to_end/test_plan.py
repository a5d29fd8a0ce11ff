"""`capfilt plan` on Ray: as many workers at once as the run will have, and nothing left behind."""

import json
from pathlib import Path

import pytest

from tests.support.driving import Command

pytestmark = pytest.mark.nightly


def test_plan_on_ray(capfilt_ray: Command, toy_shards: Path) -> None:
    flags: list[str | Path] = [
        "--input",
        toy_shards,
        "--output",
        "runs/r",
        "--engine",
        "ray",
        "--actors",
        "2",
    ]
    flags += ["--captioner", "tiny-captioner", "--filter", "tiny-filter", "--direct", "--json"]
    told = capfilt_ray.run("plan", *flags, "--n", "160")
    assert told.returncode == 0, told.stderr
    plan = json.loads(told.stdout)
    assert plan["workers"] == 2
    assert len(plan["sample"]["workers"]) == 2
    assert list((capfilt_ray.home / "runs").iterdir()) == []
    done = json.loads(capfilt_ray.run("clean", *flags).stdout)
    assert plan["images"]["low"] <= done["samples_in"] <= plan["images"]["high"]
