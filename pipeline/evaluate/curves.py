"""Draw a filter's curves: ROC, precision and recall, and how far its probabilities are true."""

import io
from collections.abc import Mapping
from typing import Any

_INK, _FAINT = "#1f4e79", "#999999"


def draw(measures: Mapping[str, Any]) -> bytes:
    """Draw what `measure_filter` measured with its curves, as a PNG of three panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    roc, trade, trust = figure.subplots(1, 3)
    curves = measures["curves"]
    roc.plot(*zip(*(curves["roc"] or [(0, 0)]), strict=True), color=_INK)
    roc.plot([0, 1], [0, 1], color=_FAINT, linestyle=":")
    roc.set(title=f"ROC, area {_number(measures['roc_auc'])}", xlabel="wrong texts that pass")
    roc.set(ylabel="right texts that pass")
    rows = curves["precision_recall"]
    trade.plot([row["recall"] for row in rows], [row["precision"] for row in rows], color=_INK)
    trade.set(title=f"average precision {_number(measures['average_precision'])}", xlabel="recall")
    trade.set(ylabel="precision")
    _mark(trade, measures)
    bins = curves["calibration"]
    predicted, right = ([row[name] for row in bins] for name in ("predicted", "right"))
    trust.plot([0, 1], [0, 1], color=_FAINT, linestyle=":")
    trust.plot(predicted, right, color=_INK, marker="o")
    for row in bins:
        trust.annotate(f"{row['count']:,}", (row["predicted"], row["right"]), fontsize=7)
    trust.set(title=f"calibration error {_number(measures['calibration_error'])}")
    trust.set(xlabel="probability of a match, by ITM", ylabel="share of right texts")
    for panel in (roc, trade, trust):
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        panel.grid(alpha=0.3)
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def _mark(panel: Any, measures: Mapping[str, Any]) -> None:  # noqa: ANN401 - matplotlib's Axes
    """Mark the threshold that was asked for, and the one that was chosen."""
    marks = [(f"threshold {measures['threshold']:g}", measures)]
    if chosen := measures.get("chosen"):
        marks.append((f"chosen: {chosen['threshold']:.3f}", chosen))
    for name, row in marks:
        if row["precision"] is not None and row["recall"] is not None:
            panel.plot([row["recall"]], [row["precision"]], "o", label=name)
            panel.legend(loc="lower left")


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
