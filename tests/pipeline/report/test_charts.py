"""Charts are well-formed SVG in the page's own colours, the same bytes every time."""

import re
from xml.etree import ElementTree

import pytest

from pipeline.report.charts import (
    COLOURS,
    ScoreHistogram,
    draw_histogram,
    draw_kept_shares,
    draw_scatter,
)

EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)
SCORES = ScoreHistogram(EDGES, (6, 0, 2, 2), 0.6, 1)


def bars(svg: str) -> list[float]:
    """Read the opacity of each bar."""
    return [
        float(share) for share in re.findall(r"fill: var\(--origin-1\); opacity: ([\d.]+)", svg)
    ]


@pytest.mark.parametrize(
    "svg", [draw_histogram(SCORES, 0.6), draw_kept_shares([SCORES])], ids=["histogram", "shares"]
)
def test_a_chart_is_an_element_that_fits_any_page(svg: str) -> None:
    ElementTree.fromstring(svg)
    assert svg.startswith('<svg class="chart" aria-hidden="true"')
    assert "var(--origin-1)" in svg
    for part in ("<style", "<metadata", "<!--", "font-family", "#0102", "#0103"):
        assert part not in svg
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert all(name.startswith(("histogram-1-", "shares-")) for name in ids)
    assert len(set(ids)) == len(ids)


def test_bars_are_pale_below_the_threshold_and_full_above() -> None:
    svg = draw_histogram(SCORES, 0.6)
    bars = re.findall(r"fill: var\(--origin-1\)(; opacity: 0\.3)?", svg)
    assert len(bars) == 5  # three counts are not zero; of two of them a part is above
    assert len([pale for pale in bars if pale]) == 3


def test_the_same_scores_give_the_same_bytes() -> None:
    assert draw_histogram(SCORES, 0.6) == draw_histogram(SCORES, 0.6)
    assert draw_kept_shares([SCORES]) == draw_kept_shares([SCORES])


def test_a_threshold_outside_and_scores_of_nothing_can_be_drawn() -> None:
    empty = ScoreHistogram(EDGES, (0, 0, 0, 0), 1.1, COLOURS + 1)
    assert empty.total == 0
    ElementTree.fromstring(draw_histogram(empty, 1.0))
    assert "var(--origin-1)" in draw_kept_shares([empty])  # colours start again


def test_a_scatter_has_a_point_for_each_text_and_numbers_its_own_scales() -> None:
    points = [(1, 0.5, -20.0), (1, 0.75, 3.0), (0, 5.0, 40.0)]
    svg = draw_scatter(points, "itm", "siglip2.logit")
    drawn = ElementTree.fromstring(svg)
    assert svg.count("var(--origin-1)") == 2 * svg.count("var(--origin-0)") > 0
    labels = [
        "".join(node.itertext()).strip() for node in drawn.iter() if node.tag.endswith("text")
    ]
    assert {"itm", "siglip2.logit", "20", "40"} <= set(labels)
    assert draw_scatter(points, "itm", "siglip2.logit") == svg
    ElementTree.fromstring(draw_scatter([], "a", "b"))
