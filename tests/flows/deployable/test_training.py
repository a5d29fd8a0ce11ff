"""What the flows of trainings share; the trainings themselves: test_pretrain, test_finetune."""

from typing import Any

import pytest

from flows.deployable.training import display, sources_of


@pytest.mark.parametrize(
    ("runs", "sources"),
    [(None, None), ([], None), (["/a", "/b"], [{"run": "/a"}, {"run": "/b"}])],
)
def test_no_runs_are_as_in_the_recipe(runs: list[str] | None, sources: Any) -> None:
    assert sources_of(runs) == sources


def test_only_lines_with_a_speed_are_shown() -> None:
    class Page:
        shown: list[tuple[float, str]] = []  # noqa: RUF012 - one page

        def progress(self, share: float, line: str) -> None:
            self.shown.append((share, line))

    page: Any = Page()
    show = display(20, page)
    show({"step": 5, "loss": 1.5})
    show({"step": 5, "samples": 40, "samples_per_s": 2.0, "loss": 1.5})
    ((share, line),) = Page.shown
    assert share == 0.25
    assert line.startswith("step 5 of 20: loss 1.500")
