"""`capfilt plan` and `capfilt try`, as a user types them."""

import json
from pathlib import Path

import huggingface_hub
import pytest
from rich.cells import cell_len

from models.blip.config import resolve_dtype
from tests.support.driving import InProcess

MODELS = ("--captioner=tiny-captioner", "--filter=tiny-filter", "--engine=local")
SMALL = ("--set=dtype=fp32", "--set=engine.batch_size=4")


@pytest.fixture
def command(toy_shards: Path, tmp_path: Path) -> list[str]:
    """The flags of a cleaning of 300 toy pictures in 12 shards."""
    run = tmp_path / "out" / "run"
    return [f"--input={toy_shards}", f"--output={run}", "--direct", *MODELS, *SMALL]


def test_plan_then_clean_by_the_same_flags(
    capfilt: InProcess, command: list[str], tmp_path: Path
) -> None:
    told = capfilt.run("plan", *command, "--n=48", "--json")
    assert told.returncode == 0, told.stderr
    plan = json.loads(told.stdout)
    assert (plan["ready"], plan["problems"]) == (True, [])
    assert plan["sample"]["dtype"] == "fp32"
    assert plan["shards"] == {"total": 12, "done": 0, "pending": 12}
    assert list((tmp_path / "out").iterdir()) == []
    done = json.loads(capfilt.run("clean", *command, "--json").stdout)
    images, kept = plan["images"], plan["kept"]
    assert images["low"] <= done["samples_in"] <= images["high"]
    assert kept["low"] <= done["kept"] / done["samples_in"] <= kept["high"]
    again = capfilt.run("plan", *command)
    assert again.returncode == 0
    assert again.stdout == "0 of 12 shards to clean; 12 done, 300 samples\n"


def test_a_plan_fits_a_terminal(capfilt: InProcess, command: list[str]) -> None:
    told = capfilt.run("plan", *command, "--n=48", "--price-per-gpu-hour=2", "--set=dtype=auto")
    assert told.returncode == 0, told.stderr
    rows = [line for line in told.stdout.splitlines() if line.startswith(("│", "┃"))]
    assert rows
    assert all(cell_len(line) <= 80 for line in told.stdout.splitlines())
    assert "images/s" in told.stdout
    assert "no GPU is used" in told.stdout
    assert "48 images in" in told.stdout
    assert f"in {resolve_dtype('auto', 'cpu')} (cpu of" in " ".join(told.stdout.split())


def test_problems_are_exit_code_1_and_bad_usage_2(
    capfilt: InProcess, command: list[str], tmp_path: Path
) -> None:
    told = capfilt.run("plan", *command, "--filter=/nowhere", f"--input={tmp_path / 'no'}")
    assert told.returncode == 1
    assert "problem: filter: there is no checkpoint folder /nowhere" in told.stdout
    assert "problem: input: " in told.stdout
    as_json = json.loads(capfilt.run("plan", *command, "--filter=/nowhere", "--json").stdout)
    assert as_json["ready"] is False
    assert [problem["subject"] for problem in as_json["problems"]] == ["filter"]
    bad = capfilt.run("plan", *command, "--set=capton.top_p=1")
    assert bad.returncode == 2
    assert "capton" in bad.stderr
    assert capfilt.run("plan", *command, "--part=3/2").returncode == 2


def test_try_of_what_is_no_input_is_bad_usage_as_of_clean(
    capfilt: InProcess, tmp_path: Path
) -> None:
    (tmp_path / "notes.md").touch()
    told = capfilt.run("try", tmp_path, "--output=look", *MODELS)
    cleaned = capfilt.run("clean", f"--input={tmp_path}", "--output=out", "--direct", *MODELS)
    assert told.returncode == cleaned.returncode == 2


def test_try_leaves_a_report_and_a_recipe_that_runs(capfilt: InProcess, toy_shards: Path) -> None:
    told = capfilt.run("try", toy_shards, "--n=40", "--output=look", *MODELS, *SMALL)
    assert told.returncode == 0, told.stderr
    assert "report: " in told.stdout
    recipe = capfilt.home / "look" / "recipe.yaml"
    assert f"capfilt clean {recipe}" in " ".join(told.stdout.split())
    assert (capfilt.home / "look" / "run" / "report" / "index.html").exists()
    done = json.loads(capfilt.run("plan", recipe, "--n=32", "--json").stdout)
    assert done["shards"]["pending"] == 12
    again = capfilt.run("try", toy_shards, "--output=look", *MODELS)
    assert again.returncode == 2
    assert "is not empty" in again.stderr
    as_json = capfilt.run("try", toy_shards, "--n=40", "--output=b", "--json", *MODELS, *SMALL)
    named = json.loads(as_json.stdout)
    assert all(Path(named[name]).exists() for name in ("run", "report", "recipe"))


def test_try_without_the_hub_says_which_models_come_along(
    capfilt: InProcess, toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    told = capfilt.run("try", toy_shards, "--output=look")
    assert told.returncode == 2
    assert "--captioner tiny-captioner --filter tiny-filter" in told.stderr
    own = capfilt.run("try", toy_shards, "--output=look", "--captioner=/no", "--filter=tiny-filter")
    assert own.returncode == 2
    assert "toy" not in own.stderr
