"""Report: one page that shows what a cleaning did, for those who must judge whether it is right.

The page holds everything it shows: no script, no link to elsewhere, no network. The same snapshot
gives the same bytes. What the data holds passes `visible` and HTML's escaping on its way in.
"""

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import printable
from pipeline.explain.run_models import run_models
from pipeline.report.card import make_card
from pipeline.report.charts import (
    COLOURS,
    ScoreHistogram,
    draw_histogram,
    draw_kept_shares,
    draw_scatter,
)
from pipeline.report.duplicates import show_groups
from pipeline.report.gallery import COUNT, Gallery, choose_gallery
from pipeline.report.scorers import ScorerComparison, compare_scorers, scores_to_compare
from pipeline.report.thumbnail import SampleId, make_thumbnails
from pipeline.report.wording import (
    HOW_TO_JOIN,
    MEANING,
    shown_languages,
    warning_of_languages,
)
from shards.query.query import count_groups
from shards.run.commit import total_counts
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard
from shards.run.view import View
from shards.statistics import run_statistics

if TYPE_CHECKING:
    from pipeline.report.dropped import DroppedText

MOST_ROWS = 200  # of the table of shards
MOST_CHARTS = COLOURS
MOST_LANGUAGES = 12
_TEMPLATES = Path(__file__).with_name("templates")
_DETAIL_SHOWN = 200  # characters
_RECIPE_SHOWN = 20_000

Numbers = dict[str, Any]


def report_name(view: View) -> str:
    """Name a view's report in the run folder."""
    return "report/index.html" if view.name is None else f"report/{view.name}/index.html"


def build_report(
    run: Run,
    view: View,
    tell: Callable[[str], None],
    gallery_count: int = COUNT,
    explained: int = 0,
    compare: tuple[str, str] | None = None,
) -> bytes:
    """Build the page of a run by one of its views; `tell` hears how far it is.

    Of so many filtered samples it is `explained` which words sank their texts, by the run's filter.
    `compare` names two scores to lay side by side (default: the filter's and an added one, if any).
    """
    tell("counting")
    statistics = run_statistics(run, view)
    origins = _origins(view, statistics)
    reasons = _reasons(run, view, statistics)
    charts = _charts(origins)  # early: what they are drawn with may not be installed
    tell("choosing samples")
    gallery = choose_gallery(run, view, gallery_count)
    pair = compare or scores_to_compare(run, view)
    comparison = compare_scorers(run, view, *pair) if pair else None
    dropped, why_none = _explain(run, gallery, explained, tell) if explained else ({}, "")
    return _render(
        run=run.store.url(),
        name=run.store.url().rstrip("/").rpartition("/")[2],
        view=view,
        numbers=statistics,
        origins=origins,
        languages=shown_languages(statistics["languages"], MOST_LANGUAGES),
        foreign=warning_of_languages(statistics),
        charts=charts,
        reasons=reasons,
        gallery=_cards(run, view, gallery, dropped, tell),
        comparison=comparison,
        scatter=_scatter(comparison, origins),
        disagreements=_cards(run, view, comparison.disagreements, {}, tell) if comparison else {},
        **_left_out(run, view, tell),
        explained=len(dropped),
        not_explained=why_none,
        colour_of={origin["name"]: origin["colour"] for origin in origins},
        gallery_shards=len(gallery.shards),
        shards_with_samples=sum(shard.counts.samples_in > 0 for shard in view.shards),
        shards=_noteworthy(view.shards),
        recipe=_recipe(run, view),
        recipe_yaml=printable.cut(_recipe_yaml(run), _RECIPE_SHOWN),
        version=importlib.metadata.version("capfilt"),
    )


def _explain(
    run: Run, gallery: Gallery, count: int, tell: Callable[[str], None]
) -> "tuple[dict[SampleId, dict[int, DroppedText]], str]":
    from pipeline.report.dropped import explain_gallery  # torch, which the rest can do without

    return explain_gallery(run, gallery, count, tell)


def _left_out(run: Run, view: View, tell: Callable[[str], None]) -> Numbers:
    """Show what the view leaves out whatever its texts, and some groups of the same picture."""
    excluded = view.record.excluded if view.record is not None else None
    return {
        "left_out": excluded.samples if excluded else 0,
        "groups_file": excluded.groups if excluded else "",
        "same": show_groups(run, view, tell),
    }


def _render(**page: object) -> bytes:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for form in ("count", "number_of", "percent", "score", "margin", "cut"):
        environment.filters[form] = getattr(printable, form)
    environment.globals.update(meaning=MEANING, how_to_join=HOW_TO_JOIN)
    return environment.get_template("report.html.jinja").render(page).encode()


def _shown(value: object) -> object:
    """Make every text that the template puts out visible; what it wrote itself is Markup."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable.visible(value)
    return value


def _origins(view: View, statistics: Numbers) -> list[Numbers]:
    """List each origin's numbers: web and synthetic first, so that they keep their colours."""
    usual = ["web", "synthetic"]
    names = sorted(statistics["texts"], key=lambda name: (name not in usual, name != "web", name))
    others = iter(range(len(usual), len(names) + len(usual)))
    colours = {name: usual.index(name) if name in usual else next(others) for name in names}
    return [
        {
            "name": name,
            "colour": colours[name] % COLOURS,
            "threshold": _itm_thresholds(view).get(name),
            **statistics["texts"][name],
            **statistics["histograms"][name],
        }
        for name in names
    ]


def _charts(origins: Sequence[Numbers]) -> Numbers:
    """Draw the histograms, and what each threshold would keep; nothing where nothing is scored."""
    from markupsafe import Markup  # the drawings hold no text of the data

    drawn = [
        (origin, ScoreHistogram(tuple(origin["edges"]), tuple(origin["counts"]), threshold, colour))
        for origin in origins[:MOST_CHARTS]
        for threshold, colour in [(origin["threshold"], origin["colour"])]
    ]
    drawn = [(origin, scores) for origin, scores in drawn if scores.total]
    if not drawn:
        return {}
    highest = max(max(scores.counts) / scores.total for _, scores in drawn)
    histograms = [
        (origin, Markup(draw_histogram(scores, highest)))  # noqa: S704 - a drawing of numbers
        for origin, scores in drawn
    ]
    shares = Markup(draw_kept_shares([scores for _, scores in drawn]))  # noqa: S704 - of numbers
    return {"histograms": histograms, "shares": shares}


def _itm_thresholds(view: View) -> dict[str, float]:
    """Return the thresholds that are on the filter's match, which the page draws."""
    return view.thresholds if view.basis.by == "itm" else {}


def _scatter(comparison: ScorerComparison | None, origins: Sequence[Numbers]) -> object:
    """Draw two scores against each other, where two are compared."""
    if comparison is None or not comparison.points:
        return None
    from markupsafe import Markup  # the drawing holds numbers, and names of scores

    colours = {origin["name"]: origin["colour"] for origin in origins}
    points = [(colours.get(origin, 0), x, y) for origin, x, y in comparison.points]
    drawn = draw_scatter(points, comparison.first, comparison.second)
    return Markup(drawn)  # noqa: S704 - as above


def _reasons(run: Run, view: View, statistics: Numbers) -> list[Numbers]:
    """Count every reason: of samples, of web texts, of decisions, and the conversions."""
    counts = total_counts(shard.counts for shard in view.shards)
    decisions = count_groups(
        run,
        view.shards,
        "decisions",
        "SELECT reason, count(*) FROM decisions WHERE NOT keep GROUP BY reason",
    )
    notes = count_groups(
        run,
        view.shards,
        "samples",
        "SELECT note, count(*) FROM (SELECT unnest(notes) AS note FROM samples) GROUP BY note",
    )
    samples = statistics["samples_in"]
    texts = sum(origin["in"] for origin in statistics["texts"].values())
    return [
        _reason_table(
            "Samples rejected before any model", "samples", counts.rejected_by_reason, samples
        ),
        _reason_table("Web texts that could not be used", "samples", counts.text_reasons, samples),
        _reason_table("Texts not kept", "texts", decisions, texts),
        _reason_table("Converted on the way", "samples", notes, samples),
    ]


def _reason_table(title: str, unit: str, counts: Mapping[str, int], whole: int) -> Numbers:
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {"title": title, "unit": unit, "rows": rows, "whole": whole}


def _cards(
    run: Run,
    view: View,
    gallery: Gallery,
    dropped: "Mapping[SampleId, Mapping[int, DroppedText]]",
    tell: Callable[[str], None],
) -> dict[str, list[Numbers]]:
    thumbnails = make_thumbnails(run, [pick.facts for pick in gallery.picks()], tell)
    return {
        group: [
            make_card(
                pick, _itm_thresholds(view), thumbnails[pick.sample_id], dropped.get(pick.sample_id)
            )
            for pick in picks
        ]
        for group, picks in gallery.groups.items()
    }


def _noteworthy(shards: Sequence[SnapshotShard]) -> list[Numbers]:
    """List the shards of the table: the damaged ones first, then those that kept the least."""
    worst = sorted(shards, key=lambda shard: (not shard.state.damaged, _kept_share(shard)))
    return [
        {
            "shard": shard.shard,
            "state": str(shard.state.state),
            "damaged": shard.state.damaged,
            "detail": _damage(shard),
            "counts": shard.counts,
        }
        for shard in worst[:MOST_ROWS]
    ]


def _kept_share(shard: SnapshotShard) -> float:
    return shard.counts.kept / shard.counts.samples_in if shard.counts.samples_in else 1.0


def _damage(shard: SnapshotShard) -> str:
    state = shard.state
    where = "" if state.offset is None else f"at byte {state.offset:,}"
    detail = printable.cut(state.detail, _DETAIL_SHOWN) or ""
    return ": ".join(part for part in (where, detail) if part)


def _recipe(run: Run, view: View) -> list[tuple[str, str]]:
    """List what decided the output, for those who want to compare two reports."""
    identity, about = run.identity, run.about
    versions = about.get("versions", {})
    rows = [
        ("run", run.store.url()),
        ("view", view.name or "the run's own"),
        ("snapshot", view.snapshot or "none yet"),
        ("fingerprint", run.fingerprint),
        *((role, model.digest) for role, model in run_models(run, "captioner").items()),
        *((role, model.digest) for role, model in run_models(run, "filter").items()),
        ("not reproducible", ", ".join(about.get("not_reproducible", ()))),
        ("thresholds", _thresholds(view)),
        ("judged by", view.basis.by if view.basis.by != "itm" else None),
        ("where", view.basis.where),
        ("preferred", ", ".join(view.basis.prefer)),
        ("dtype", identity.get("dtype")),
        ("seed", identity.get("seed")),
        ("begun", run.created[:19].replace("T", " ") + " UTC"),
        ("cleaned by", ", ".join(f"{name} {versions[name]}" for name in sorted(versions))),
    ]
    return [(term, str(value)) for term, value in rows if value not in (None, "")]


def _thresholds(view: View) -> str:
    parts = []
    for origin, threshold in sorted(view.thresholds.items()):
        fraction = view.keep_fractions.get(origin)
        why = "" if fraction is None else f" (to keep {fraction:.1%})"
        parts.append(f"{origin} {threshold:g}{why}")
    return ", ".join(parts)


def _recipe_yaml(run: Run) -> str:
    try:
        return run.store.read("recipe.yaml").decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
