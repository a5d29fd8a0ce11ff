"""The flow of rounds; tests/end_to_end/test_prefect_page.py has a person between two."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.deployable.bootstrap import bootstrap
from flows.lock import lock_folder
from flows.recipe import dump_recipe
from flows.rounds.ledger import read_ledger
from flows.rounds.recipe import BootstrapRecipe


@pytest.fixture
def recipe(small_rounds: Callable[..., BootstrapRecipe], tmp_path: Path) -> Path:
    """Two rounds."""
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(small_rounds(tmp_path / "elsewhere")), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_form_goes_through_a_round(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = bootstrap(
        output=str(out), recipe=str(recipe), rounds=1, engine="local", return_state=True
    )
    assert (done.name, done.message) == ("Completed", "1 round, the best is 1; all done")
    ledger = read_ledger(out)
    assert ledger is not None
    assert ledger["ended"] == "rounds"
    with lock_folder(out):  # which is left
        busy = bootstrap(output=str(out), recipe=str(recipe), rounds=1, return_state=True)
    assert busy.name == "Failed"
    assert "is in use by" in str(busy.message)
