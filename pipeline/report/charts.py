"""Draw how texts scored, as SVG that takes its colours and its font from the page around it.

Nothing but numbers goes in, so that no text of the data can get into the SVG.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = 6  # the page has so many for origins: --origin-0 …

# Colours that stand for the page's own until the drawing is done.
_INK, _GRID, _ORIGIN = "#010203", "#010204", "#0103{:02x}"
_WIDTH_IN = 6.0
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "capfilt",  # else names of clip paths are drawn at random
    "font.size": 10,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "ytick.major.size": 0,
}
_TICKS = (0, 1, 5, 20, 50, 100)  # % of texts
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True, slots=True)
class ScoreHistogram:
    """The histogram of one origin's match probabilities; `colour` is its number on the page."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    threshold: float | None
    colour: int

    @property
    def total(self) -> int:
        """How many texts have a finite score."""
        return sum(self.counts)


def draw_histogram(scores: ScoreHistogram, highest_share: float) -> str:
    """Draw one origin's histogram as shares of its texts; what is below the threshold is pale.

    `highest_share` is that of the highest bar of all origins, so that charts can be compared.
    """
    figure, axes = _figure(2.2)
    shares = [100 * count / max(scores.total, 1) for count in scores.counts]
    colour = _origin(scores)
    lefts, rights = scores.edges[:-1], scores.edges[1:]
    _bars(axes, lefts, rights, shares, colour, alpha=0.3)
    threshold = scores.threshold
    if threshold is not None:
        _bars(axes, [max(left, threshold) for left in lefts], rights, shares, colour, alpha=1)
        _mark(axes, threshold)
    _scale_by_root(axes, 108 * highest_share)
    axes.set_xlabel("probability that text and picture match")
    axes.set_ylabel("% of texts, root scale")
    return _svg(figure, f"histogram-{scores.colour}-")


def draw_kept_shares(all_scores: Sequence[ScoreHistogram]) -> str:
    """Draw, for every threshold that could be set, the share of texts at or above it."""
    figure, axes = _figure(5.25)
    for scores in all_scores:
        above = [sum(scores.counts[first:]) for first in range(len(scores.edges))]
        shares = [100 * count / max(scores.total, 1) for count in above]
        axes.plot(scores.edges, shares, color=_origin(scores), linewidth=2)
    for threshold in sorted({s.threshold for s in all_scores if s.threshold is not None}):
        _mark(axes, threshold)
    axes.set_ylim(0, 104)
    axes.set_xlabel("threshold")
    axes.set_ylabel("% of texts at or above it")
    return _svg(figure, "shares-")


def draw_scatter(points: Sequence[tuple[int, float, float]], first: str, second: str) -> str:
    """Draw two scores of each text against each other; a point has the number of its colour.

    `first` and `second` are names of scores, which hold letters, digits and dots alone.
    """
    figure, axes = _figure(5.25)
    for colour in sorted({colour for colour, _, _ in points}):
        xs, ys = zip(*[(x, y) for c, x, y in points if c == colour], strict=True)
        paint = _ORIGIN.format(colour % COLOURS)
        axes.scatter(xs, ys, s=9, color=paint, alpha=0.45, linewidths=0)
    axes.autoscale()
    axes.margins(0.03)
    _number_freely(axes)
    axes.set_xlabel(first)
    axes.set_ylabel(second)
    return _svg(figure, "scorers-")


def _number_freely(axes: "Axes") -> None:
    """Number the axis of a score that need not lie between 0 and 1."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))


def _figure(height_in: float) -> tuple["Figure", "Axes"]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, height_in))
        axes = figure.add_subplot()
    # Fixed margins: a layout that fits labels would depend on the fonts of this machine.
    top, bottom = 0.12 / height_in, 0.55 / height_in
    figure.subplots_adjust(left=0.1, right=0.985, top=1 - top, bottom=bottom)
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    return figure, axes


def _bars(
    axes: "Axes",
    lefts: Sequence[float],
    rights: Sequence[float],
    heights: Sequence[float],
    colour: str,
    alpha: float,
) -> None:
    gap = 0.004
    for left, right, height in zip(lefts, rights, heights, strict=True):
        if right - left > gap and height:
            axes.bar(left, height, right - left - gap, align="edge", color=colour, alpha=alpha)


def _scale_by_root(axes: "Axes", highest: float) -> None:
    """Make room for what is rare: most texts score near 0 or 1, and thresholds lie between."""
    axes.set_yscale("function", functions=(_root, np.square))
    axes.set_ylim(0, highest)
    ticks = [tick for tick in _TICKS if tick <= highest]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def _root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.maximum(values, 0))


def _mark(axes: "Axes", threshold: float) -> None:
    """Draw the line of a threshold, if it is in the picture."""
    if not 0 <= threshold <= 1:
        return
    axes.axvline(threshold, color=_INK, linewidth=1, linestyle=(0, (4, 3)))


def _origin(scores: ScoreHistogram) -> str:
    return _ORIGIN.format(scores.colour % COLOURS)


def _svg(figure: "Figure", prefix: str) -> str:
    """Write the drawing as an element of a page: own names, the page's colours, no style sheet."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font-family: [^;]*; ", "", svg)  # the page's own
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    svg = svg.replace(_INK, "var(--ink-soft)").replace(_GRID, "var(--line)")
    for number in range(COLOURS):
        svg = svg.replace(_ORIGIN.format(number), f"var(--origin-{number})")
    return svg.replace("<svg ", '<svg class="chart" aria-hidden="true" focusable="false" ', 1)
