"""Two scorers compared: numbers against a loop, and the page that shows them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.report.page import build_report
from pipeline.report.scorers import compare_scorers, scores_to_compare
from pipeline.views.import_scores import import_scores
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.query.query import connect
from shards.run.run import Run
from shards.run.scoring.expression import ExpressionError
from shards.run.snapshot import open_snapshot
from shards.run.view import open_view
from tests.support.report_page import Tree

MakeRun = Callable[..., Run]


@pytest.fixture
def run(make_run: MakeRun, tmp_path: Path) -> Run:
    """A run whose second scorer agrees but for two samples, ties, and one that is not finite."""
    scores = [0.1, 0.2, 0.35, 0.5, 0.5, 0.6, 0.7, 0.9]
    rows = [
        {"texts": [{"origin": "web", "text": f"text {n}", "itm": itm}]}
        for n, itm in enumerate(scores)
    ]
    made = make_run(rows[:4], rows[4:])
    other = [0.9, 0.2, 0.3, 0.5, 0.4, 0.4, 0.0, float("nan")]
    with connect(made, open_snapshot(made).shards) as connection:
        asked = "SELECT shard, index, text_no FROM texts ORDER BY ALL"
        table = connection.sql(asked).to_arrow_table()
    pq.write_table(table.append_column("p", pa.array(other)), tmp_path / "clip.parquet")
    import_scores(made, str(tmp_path / "clip.parquet"))
    return made


def middle_ranks(values: list[float]) -> np.ndarray:
    return np.array(
        [sum(v < value for v in values) + (values.count(value) - 1) / 2 for value in values]
    )


def test_agreement_is_counted_at_equal_shares(run: Run) -> None:
    view = open_view(run)
    assert scores_to_compare(run, view) == ("itm", "clip.p")
    compared = compare_scorers(run, view, "itm", "clip")
    assert (compared.first, compared.second) == ("itm", "clip.p")
    (web,) = compared.agreements
    first = middle_ranks([0.1, 0.2, 0.35, 0.5, 0.5, 0.6, 0.7])  # what is not finite has no part
    second = middle_ranks([0.9, 0.2, 0.3, 0.5, 0.4, 0.4, 0.0])
    assert web.rank_correlation == pytest.approx(np.corrcoef(first, second)[0, 1])
    share = 6 / 8  # that the run keeps, from 0.3 on
    mine = (first + 0.5) / 7 > 1 - share
    other = (second + 0.5) / 7 > 1 - share
    assert (web.texts, web.both) == (7, int((mine & other).sum()))
    assert web.only_first == int((mine & ~other).sum())
    assert web.only_second == int((~mine & other).sum())
    assert web.same == 7 - web.only_first - web.only_second
    assert sorted(x for _, x, _ in compared.points) == pytest.approx(
        [0.1, 0.2, 0.35, 0.5, 0.5, 0.6, 0.7]
    )


def test_those_they_disagree_on_most_come_first(run: Run) -> None:
    compared = compare_scorers(run, open_view(run), "itm", "clip.p")
    picks = compared.disagreements.groups
    assert [pick.texts[0]["text"] for pick in picks["first"]][:1] == ["text 6"]
    assert [pick.texts[0]["text"] for pick in picks["second"]][:1] == ["text 0"]
    (itm, clip) = picks["second"][0].compared[0]
    assert (itm[0], clip[0]) == ("itm", "clip.p")
    assert (itm[1], clip[1]) == pytest.approx((0.1, 0.9))
    assert itm[2] < clip[2]


def test_the_page_shows_both(run: Run) -> None:
    page = Tree(build_report(run, open_view(run), lambda _: None)).root
    assert "only clip.p" in page.one("table", id="agreement").text
    section = page.one("section", id="scorers").text
    assert "Liked by clip.p alone" in section
    assert "clip.p 0.9" in section
    rejudge(
        run,
        ViewRequest("v", {"web": 0.3}, by="clip.p", where="itm > 0.15"),
        open_snapshot(run),
        lambda _: None,
    )
    view = Tree(build_report(run, open_view(run, "v"), lambda _: None)).root
    recipe = view.one("section", id="recipe").text
    assert "itm > 0.15" in recipe
    assert "clip.p" in recipe
    assert "score_below_threshold" in view.one("section", id="reasons").text


def test_a_run_with_one_scorer_has_nothing_to_compare(make_run: MakeRun) -> None:
    made: Any = make_run([{"texts": [{"origin": "web", "text": "a", "itm": 0.5}]}])
    assert scores_to_compare(made, open_view(made)) is None
    page = Tree(build_report(made, open_view(made), lambda _: None)).root
    assert list(page.all("section", id="scorers")) == []
    with pytest.raises(ExpressionError, match="no score or column"):
        compare_scorers(made, open_view(made), "itm", "clip.p")
