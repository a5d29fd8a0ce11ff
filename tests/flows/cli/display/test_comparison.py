"""Two views side by side."""

import json
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.support.driving import InProcess
from tests.support.hostile_run import make_run


@pytest.mark.usefixtures("run")
def test_against(capfilt: InProcess, tmp_path: Path) -> None:
    assert capfilt.run("judge", "run", "--name=strict", "--threshold=synthetic=0.7").returncode == 0
    found = json.loads(
        capfilt.run("stats", "run", "--view=strict", "--against=own", "--json").stdout
    )
    assert found["samples"]["kept"] == {"here": 2, "there": 6, "difference": -4}
    places = {"both": 2, "only_here": 0, "only_there": 4, "neither": 6}
    assert found["joined"]["samples"] == places
    shown = capfilt.run("stats", "run", "--view=strict", "--against=own")
    assert all(
        cell_len(line) <= 80 for line in shown.stdout.splitlines()[2:]
    )  # but for the folders
    assert "only there" in shown.stdout
    make_run(tmp_path / "other")
    found = json.loads(capfilt.run("stats", "run", "--against=other", "--json").stdout)
    assert found["there"]["run"] == str(tmp_path / "other")
    assert found["joined"]["texts_of"] == "web texts"
    assert found["joined"]["samples"]["both"] == 6
    shown = capfilt.run("stats", "run", "--against=other")
    assert "only those of the web" in shown.stdout
