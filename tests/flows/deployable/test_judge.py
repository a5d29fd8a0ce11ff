"""The flow of a view."""

import shutil
from pathlib import Path

import pytest

from flows.deployable.judge import judge


@pytest.mark.usefixtures("prefect")
def test_a_form_makes_a_view(toy_run: Path, tmp_path: Path) -> None:
    out = shutil.copytree(toy_run, tmp_path / "run")
    asked = {"output": str(out), "name": "strict", "threshold": {"web": 0.9}}
    done = judge(**asked, return_state=True)
    assert (done.name, done.message) == ("Completed", "view strict")
    assert (out / "views/strict").is_dir()
    again = judge(**asked, return_state=True)
    assert again.message == "view strict, which stood there already"
    bad = judge(**asked | {"threshold": {"wbe": 0.9}}, return_state=True)
    assert bad.name == "Failed"
    assert "wbe" in str(bad.message)
