"""Which Python has img2dataset, and what is said where none has."""

import sys
from pathlib import Path

import pytest

from pipeline.download import environment
from pipeline.download.environment import NoImg2dataset, find_python


def test_one_without_it_is_told_with_what_to_do() -> None:
    with pytest.raises(NoImg2dataset) as error:
        find_python(sys.executable)
    for word in (sys.executable, "has no img2dataset", environment.VERSION, "pip install -r"):
        assert word in str(error.value)


def test_one_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(NoImg2dataset, match="cannot be run"):
        find_python(str(tmp_path / "python"))
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path / "python"))
    with pytest.raises(NoImg2dataset, match="finds none"):
        find_python()


def test_the_requirements_pin_every_package_and_that_version() -> None:
    lines = environment.REQUIREMENTS.read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(pin.count("==") == 1 for pin in pins)
    assert f"img2dataset=={environment.VERSION}" in pins


def test_the_environment_variable_names_one(
    img2dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.VARIABLE, img2dataset)
    assert find_python() == img2dataset
