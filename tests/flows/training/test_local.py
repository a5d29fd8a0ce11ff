"""The local launcher: it trains in this process, and returns when the result is written."""

from collections.abc import Callable

from flows.training import local
from flows.training.recipe import PretrainRecipe
from flows.training.run import prepare, read_result


def test_it_trains_here(recipe: Callable[..., PretrainRecipe]) -> None:
    job = prepare(recipe())
    local.launch(job)
    result = read_result(job.folder)
    assert result is not None
    assert (result["workers"], result["steps"]) == (1, job.steps)
