"""What cleans, judges and explains loads none of the libraries that other commands need."""

import subprocess
import sys

import pytest

OPTIONAL = ["av", "faiss", "matplotlib", "prefect"]
OPTIONAL += ["pycocoevalcap", "ray", "sklearn", "tensorboardX"]
PRINT_LOADED = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


def loaded_by(module: str, *names: str) -> list[str]:
    """Import a module in a fresh interpreter; list which of the named modules that loaded."""
    command = [sys.executable, "-c", PRINT_LOADED, module, *names]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "pipeline.clean.shard",
        "pipeline.views.rejudge",
        "pipeline.explain.sample",
        "pipeline.report.page",
        "pipeline.publish.sets",
        "flows.stages.clean",
        "flows.cli",
    ],
)
def test_a_module_loads_no_optional_library(module: str) -> None:
    assert loaded_by(module, *OPTIONAL) == []


@pytest.mark.parametrize("module", ["flows.recipe", "flows.training.recipe", "flows.rounds.recipe"])
def test_a_recipe_is_read_without_what_takes_seconds_to_load(module: str) -> None:
    assert loaded_by(module, *OPTIONAL, "torch", "transformers") == []


def test_a_cleaning_by_blip_does_not_wait_for_the_models_of_others() -> None:
    names = "transformers.modeling_utils", "transformers.generation.utils"
    assert loaded_by("flows.stages.clean", *names) == []
    assert loaded_by("models.captioners.transformers", *names) != []


@pytest.mark.slow
def test_what_needs_a_library_is_seen_to_load_it() -> None:
    assert loaded_by("pipeline.search.query", *OPTIONAL) == ["faiss"]
    assert loaded_by("pipeline.media.video", *OPTIONAL) == ["av"]
    assert loaded_by("models.blip.config", "torch") == ["torch"]
