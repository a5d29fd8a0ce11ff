"""A run's numbers, as tables that fit 80 columns."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.printable import count, number_of, percent, visible
from pipeline.report.wording import HOW_TO_JOIN, shown_languages, warning_of_languages

REASONS_SHOWN = DAMAGED_SHOWN = FIELDS_SHOWN = LANGUAGES_SHOWN = 5


def print_statistics(run_url: str, statistics: dict[str, Any]) -> None:
    """Print a run's numbers: samples, texts by origin, shards."""
    console = Console()
    console.print(_sample_table(statistics))
    if statistics["kind"] != "screen" and (statistics["texts"] or statistics["text_reasons"]):
        console.print(_text_table(statistics))
    if statistics.get("languages") and (languages := _language_table(statistics)).row_count:
        console.print(languages)
    shards = statistics["shards"]
    counted = ", ".join(f"{count(number)} {name}" for name, number in shards.items() if number)
    console.print(f"shards: {counted}")
    for scores in statistics.get("scores", {}).values():
        names, of = ", ".join(scores["names"]), number_of(scores["shards"], "shard")
        console.print(f"scores: {names}, of {of}", markup=False, highlight=False, soft_wrap=True)
    for line in (*_damaged(statistics), *_no_texts(statistics), *_unused(statistics)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if apart := statistics["rows_apart"]:
        console.print(
            f"{number_of(apart, 'row')} (image_missing, text_missing, not_adjacent) of shards that "
            "cannot be sought in, where the members of a sample stand apart: each is a row of its "
            f"own. To join them, {HOW_TO_JOIN}"
        )
    for line in _nothing_kept(statistics):
        console.print(line, markup=False)
    if warning := warning_of_languages(statistics):
        console.print(f"warning: {warning}.", style="bold", markup=False, highlight=False)
    console.print(f"output: {run_url}", markup=False, soft_wrap=True)


def _nothing_kept(statistics: dict[str, Any]) -> Iterator[str]:
    """Say of which origin no text is kept, and how near the best came."""
    for origin, highest in statistics["highest_itm"].items():
        texts = statistics["texts"].get(origin)
        if texts and texts["in"] and not texts["kept"]:
            yield (
                f"no {visible(origin)} text passed: the best match of {count(texts['in'])} is "
                f"{highest:.4f}. Is this the right filter for such pictures?"
            )


def _unused(statistics: dict[str, Any]) -> Iterator[str]:
    """Tell of candidates that are not among the texts, and of a skip-list of another input."""
    if statistics["shards"]["pending"]:
        return
    to_skip = statistics.get("to_skip", 0)
    skipped = statistics["rejected_by_reason"].get("skipped", 0)
    if skipped < to_skip / 2:  # shards of two folders may share their names
        yield (
            f"the skip-list names {number_of(to_skip, 'sample')}, and {count(skipped)} were here "
            "to skip: is it from a run over this input?"
        )
    for origin, texts in statistics.get("candidates", {}).items():
        if unused := texts["given"] - texts["scored"]:
            yield (
                f"{count(unused)} of {number_of(texts['given'], 'candidate')} of {visible(origin)} "
                "are for no sample of this run, or for one that was rejected"
            )


def _sample_table(statistics: dict[str, Any]) -> Table:
    table = Table("samples", Column("", justify="right"), Column("share", justify="right"))
    total = statistics["samples_in"]
    reasons = sorted(statistics["rejected_by_reason"].items(), key=lambda item: -item[1])
    rows = [(name, statistics[name]) for name in ("samples_in", "kept", "filtered", "rejected")]
    rows += [(f"  {reason}", number) for reason, number in reasons[:REASONS_SHOWN]]
    if others := sum(number for _, number in reasons[REASONS_SHOWN:]):
        rows.append((f"  {len(reasons) - REASONS_SHOWN} other reasons", others))
    for name, number in rows:
        table.add_row(name, count(number), percent(number, total))
    return table


def _damaged(statistics: dict[str, Any]) -> Iterator[str]:
    for shard in statistics["damaged_shards"][:DAMAGED_SHOWN]:
        yield f"  damaged: {shard['shard']}: {shard['state']}, {visible(shard['detail'] or '')}"
    if (more := statistics["shards"]["damaged"] - DAMAGED_SHOWN) > 0:
        yield f"  and {count(more)} more; capfilt report tells of all"


def _no_texts(statistics: dict[str, Any]) -> Iterator[str]:
    """Say where texts may stand if not one was found: `input.text` may not be what was meant."""
    if statistics["lacks_all_texts"]:
        named = ", ".join(visible(name) for name in statistics["sidecar_fields"][:FIELDS_SHOWN])
        fields = f" Their sidecars have: {named}." if named else ""
        yield (
            "warning: no sample has a web text. input.text says where they stand (txt, another "
            f"ending, json:FIELD of the sidecar, or none).{fields}"
        )


def _text_table(statistics: dict[str, Any]) -> Table:
    numbers = (Column(name, justify="right") for name in ("in", "kept", "share"))
    table = Table("texts", *numbers)
    for origin, texts in statistics["texts"].items():
        scored, kept = texts["in"], texts["kept"]
        name = Text(visible(origin))  # as Text: an origin's name may look like markup
        table.add_row(name, count(scored), count(kept), percent(kept, scored))
    for reason, number in statistics["text_reasons"].items():
        table.add_row(f"  {reason}", count(number), "", "")
    return table


def _language_table(statistics: dict[str, Any]) -> Table:
    """Count web texts by language: those that were judged, or seen by a screening."""
    screens = statistics["kind"] == "screen"
    numbers = ("texts",) if screens else ("in", "kept", "share")
    table = Table("web texts in", *(Column(name, justify="right") for name in numbers))
    languages = {
        name: texts for name, texts in statistics["languages"].items() if screens or texts["in"]
    }
    for name, texts in shown_languages(languages, LANGUAGES_SHOWN):
        judged, kept = texts["in"], texts["kept"]
        cells = [count(texts["texts"])]
        if not screens:
            cells = [count(judged), count(kept), percent(kept, judged)]
        table.add_row(name, *cells)
    looked_at, committed = statistics["languages_of_shards"], statistics["shards"]["committed"]
    if looked_at < committed:
        table.caption = f"of {count(looked_at)} of {number_of(committed, 'shard')}"
    return table
