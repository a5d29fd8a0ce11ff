"""What a download may be asked for, and what is refused."""

from typing import Any

import pytest

from flows.recipe import RecipeError
from flows.stages.download_request import default_agent, request_of

ASKED = {"urls": "list.csv", "output": "out"}


def test_options_reach_those_whom_they_concern() -> None:
    request = request_of(
        ASKED | {"text_column": "alt", "timeout": 3, "max_bytes": 9, "workers": 2, "threads": 5}
    )
    assert (request.list.source, request.list.text_column) == ("list.csv", "alt")
    assert (request.options.bounds.timeout_s, request.options.bounds.most_bytes) == (3, 9)
    assert (request.options.threads, request.options.allow_private) == (5, False)
    assert (request.engine_config.actors, request.engine_config.gpus_per_actor) == (2, 0)
    assert request.options.bounds.agent == default_agent()
    assert "capfilt/" in default_agent()


@pytest.mark.parametrize(
    "more", [{"threads": 0}, {"timeout": 0}, {"max_bytes": 1 << 40}, {"thread": 1}, {"urls": ""}]
)
def test_what_makes_no_sense_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        request_of(ASKED | more)
