"""A run's numbers, as tables that fit 80 columns."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.printable import count, percent, visible

REASONS_SHOWN = 5


def print_statistics(run_url: str, statistics: dict[str, Any]) -> None:
    """Print a run's numbers: samples, texts by origin, shards."""
    console = Console()
    console.print(_sample_table(statistics))
    console.print(_text_table(statistics))
    shards = statistics["shards"]
    counted = ", ".join(f"{count(number)} {name}" for name, number in shards.items() if number)
    console.print(f"shards: {counted}")
    apart = statistics["rejected_by_reason"].get("not_adjacent", 0)
    if apart:
        console.print(
            f"{count(apart)} rows are members that stand apart from the rest of their sample, in "
            "shards that cannot be sought in: unpack .tar.gz, or sort the members by name"
        )
    for line in _nothing_kept(statistics):
        console.print(line, markup=False)
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


def _sample_table(statistics: dict[str, Any]) -> Table:
    table = Table("samples", Column("", justify="right"), Column("share", justify="right"))
    total = statistics["samples_in"]
    reasons = sorted(statistics["rejected_by_reason"].items(), key=lambda item: -item[1])
    rows = [(name, statistics[name]) for name in ("samples_in", "kept", "filtered", "rejected")]
    rows += [(f"  {reason}", number) for reason, number in reasons[:REASONS_SHOWN]]
    for name, number in rows:
        table.add_row(name, count(number), percent(number, total))
    return table


def _text_table(statistics: dict[str, Any]) -> Table:
    numbers = (Column(name, justify="right") for name in ("in", "kept", "share"))
    table = Table("texts", *numbers)
    for origin, texts in statistics["texts"].items():
        scored, kept = texts["in"], texts["kept"]
        name = Text(visible(origin))  # as Text: an origin's name may look like markup
        table.add_row(name, count(scored), count(kept), percent(kept, scored))
    return table
