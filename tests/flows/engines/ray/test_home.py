"""A driver whose own raylet dies says so before Ray ends it."""

import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = """
import logging, os, signal, sys, time
import psutil
import ray
from flows.engines.ray.home import Home
from flows.engines.ray.session import ray_session

logging.basicConfig(stream=sys.stderr, format="%(message)s")
with ray_session(None):
    before = Home()
    before.check()
    before.close()
    home = Home()
    time.sleep(1)
    home.check()
    print("lives", file=sys.stderr, flush=True)
    for process in psutil.Process().children(recursive=True):
        if process.name() == "raylet":
            process.kill()
    while True:
        try:
            home.check()
        except Exception as error:
            print(type(error).__name__, error, file=sys.stderr, flush=True)
            os._exit(0)
        time.sleep(0.01)
"""


@pytest.mark.timeout(120)
def test_the_death_of_this_machines_raylet_is_said_at_once(
    loopback_only: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out.txt"
    with out.open("wb") as file:  # daemons would hold a pipe open
        command = [*loopback_only, sys.executable, "-c", DRIVER]
        subprocess.run(command, stdout=file, stderr=file, timeout=100)
    told = [line for line in out.read_text().splitlines() if "raylet" in line or line == "lives"]
    assert told[0] == "lives"
    assert told[1].startswith("the raylet on this machine is dead")
    assert told[2].startswith("EngineError Ray ends a driver whose raylet is dead")
