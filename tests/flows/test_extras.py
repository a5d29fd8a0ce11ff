"""A package that is not installed is one line: what to install."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

from flows.extras import EXTRAS, is_installed, missing_extra, versions_of
from tests.conftest import REPOSITORY
from tests.support.driving import Models

Flags = Callable[[Models, Path, Path], list[str]]
WITHOUT = """
import sys
absent = set(sys.argv.pop(1).split(","))

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from flows.cli import main
main()
"""


def without(packages: str, *command: object) -> "subprocess.CompletedProcess[str]":
    """Run a command where some packages cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, packages, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "80"},
    )


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("av", ("watch", "{here}/clip.mp4", "--text=a dog")),
        ("faiss", ("index", "{here}/held-out.tar", "--to={here}/index", "--model=tiny-filter")),
        ("sklearn", ("evaluate", "retrieval", "tiny-filter", "{here}/held-out.tar")),
        ("pycocoevalcap", ("evaluate", "caption", "tiny-captioner", "{here}/held-out.tar")),
        ("s3fs", ("stats", "s3://bucket/run")),
    ],
)
def test_a_command_says_what_to_install(
    package: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    for name in ("clip.mp4", "held-out.tar"):
        (tmp_path / name).touch()
    done = without(package, *(part.format(here=tmp_path) for part in command))
    extra = EXTRAS[package]
    advice = f"capfilt: this needs {extra.package}: pip install 'capfilt[{extra.name}]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", advice)


@pytest.mark.nightly
def test_cleaning_here_needs_neither_ray_nor_prefect(
    flags: Flags, toy_models: Models, one_shard: Path, tmp_path: Path
) -> None:
    command = flags(toy_models, one_shard, tmp_path / "run")
    asked = without("ray,prefect", *command, "--engine=ray", "--direct")
    assert asked.returncode == 2
    assert asked.stderr.endswith("capfilt: this needs Ray: pip install 'capfilt[ray]'\n")
    done = without("ray,prefect", *command)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Ray is not installed: working in this process") == 1
    assert done.stderr.count("Prefect is not installed: as with --direct") == 1


def test_a_package_is_installed_where_it_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_installed("torch")
    assert not is_installed("no_such_package")
    monkeypatch.setitem(sys.modules, "prefect", None)
    assert not is_installed("prefect")
    (tmp_path / "a_users_folder").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_installed("a_users_folder")


def test_versions_are_those_of_what_is_installed() -> None:
    assert versions_of("torch", "no-such-library") == {"torch": version("torch")}


def test_a_missing_module_of_an_installed_package_is_a_bug() -> None:
    assert missing_extra(ModuleNotFoundError("gone", name="ray.gone")) is None
    assert missing_extra(ModuleNotFoundError("gone", name="flows.gone")) is None


def test_the_extras_are_those_that_are_installed_by_that_name() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        name: {re.split(r"[^\w.-]", line)[0].lower() for line in lines}
        for name, lines in project["optional-dependencies"].items()
    }
    bringing = packages_distributions()
    for module, extra in EXTRAS.items():
        assert extras[extra.name] & {name.lower() for name in bringing[module]}, module
    core = {re.split(r"[^\w.-]", line)[0].lower() for line in project["dependencies"]}
    assert not core & {name.lower() for module in EXTRAS for name in bringing[module]}
