"""Rounds, and the views of a trial, as tables that fit 80 columns."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from flows.stages.progress import number
from pipeline.printable import percent, visible

if TYPE_CHECKING:
    from flows.rounds.ledger import Ledger


def print_rounds(ledger: "Ledger") -> None:
    """Print the gate's numbers of each round; to standard error while more are to come."""
    names = ("gate", "TR@1", "IR@1", "CIDEr", "web kept", "synthetic kept")
    table = Table("round", *(Column(name, justify="right") for name in names))
    for entry in ledger.rounds:
        if "gate" not in entry:
            continue
        itm, texts = entry["evaluate"]["retrieval"]["itm"], entry["clean"]["texts"]
        kept = [texts.get(origin, {"in": 0, "kept": 0}) for origin in ("web", "synthetic")]
        best = " (best)" if entry["round"] == ledger.best else ""
        table.add_row(
            f"{entry['round']}{best}",
            number(entry["gate"]["measure"]),
            number(itm["tr@1"]),
            number(itm["ir@1"]),
            number(entry["evaluate"]["captions"]["cider"]),
            *(percent(counts["kept"], counts["in"]) for counts in kept),
        )
    Console(stderr=not ledger.ended).print(table)


def print_trial(views: Sequence[Mapping[str, Any]]) -> None:
    """Print the retrieval of each view, in the order that they come in."""
    names = ("mean of both", "TR@1", "IR@1", "samples")
    table = Table("view", *(Column(name, justify="right") for name in names))
    for entry in views:
        itm = entry["retrieval"]["itm"]
        numbers = (entry["measure"], itm["tr@1"], itm["ir@1"])
        shown = (f"{number:.3f}" for number in numbers)
        view = f"{entry['run']}:{entry['view'] or 'own'}"
        table.add_row(Text(visible(view), overflow="fold"), *shown, f"{entry['samples']:,}")
    Console().print(table)
