"""Two views side by side, as tables that fit 80 columns."""

import shlex
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.printable import count, number_of, percent, visible

Numbers = Mapping[str, Any]


def print_judged(judged: Numbers, run: str) -> None:
    """Print what a new view keeps, beside what the run itself kept."""
    console = Console()
    console.print(_outcomes(judged["samples"], "view", "own"))
    console.print(_rules(judged))
    name, what = judged["view"], "written" if judged["new"] else "is there already, the same"
    said = f"view {name}: {what}; snapshot {judged['snapshot']}"
    console.print(said, markup=False, highlight=False)
    thresholds = {o: rule["threshold"] for o, rule in judged["rules"].items()}
    if judged["by"] != "itm" or judged["where"] or judged["prefer"]:
        there = {o: at for o, at in thresholds.items() if at is not None}
        line = rules_line({**judged, "thresholds": there})
        console.print(f"judged by: {visible(line)}", markup=False, highlight=False, soft_wrap=True)
    look = f"look at it: capfilt stats {visible(shlex.quote(run))} --view {name} --against own"
    console.print(look, markup=False, highlight=False, soft_wrap=True)


def print_comparison(compared: Numbers) -> None:
    """Print two views' counts, and where their decisions part."""
    console = Console()
    for place in ("here", "there"):
        console.print(_side(place, compared[place]), markup=False, highlight=False, soft_wrap=True)
    console.print(_outcomes(compared["samples"], "here", "there"))
    console.print(_kept_texts(compared["texts"]))
    joined = compared["joined"]
    if not compared["shards_in_common"]:
        console.print("They have no shards in common: no sample can be compared with another.")
        return
    console.print(_crossed(joined))
    all_origins = joined["texts_of"] == "all origins"
    only = "" if all_origins else "; of texts, only those of the web are the same"
    shards = number_of(compared["shards_in_common"], "shard")
    console.print(f"compared sample by sample in {shards}{only}")
    if joined["different_images"]:
        console.print(
            "samples at one place with different images, which are not compared: "
            f"{joined['different_images']:,}; the inputs differ"
        )


def _side(place: str, side: Numbers) -> str:
    return visible(f"{place:5}  view {side['view']} ({rules_line(side)}) of {side['run']}")


def rules_line(view: Numbers) -> str:
    """Write what a view is judged by in one line."""
    said = [f"{origin} {at:.6g}" for origin, at in sorted(view["thresholds"].items())]
    said += [f"by {view['by']}"] if view["by"] != "itm" and said else []
    said += [f"where {view['where']}"] if view["where"] else []
    said += [f"the first of {', '.join(view['prefer'])}"] if view["prefer"] else []
    return ", ".join(said)


def _outcomes(samples: Numbers, here: str, there: str) -> Table:
    table = _table("samples", here, "share", there, "share", "difference")
    whole = samples["samples_in"]
    for name, pair in samples.items():
        shares = [percent(pair[side], whole[side]) for side in ("here", "there")]
        ours, theirs = count(pair["here"]), count(pair["there"])
        table.add_row(name, ours, shares[0], theirs, shares[1], _signed(pair["difference"]))
    return table


def _rules(judged: Numbers) -> Table:
    table = _table("texts", "in", "threshold", "kept", "share", "own threshold", "own kept")
    for origin, rule in judged["rules"].items():
        none = {"in": {"here": 0}, "kept": {"here": 0, "there": 0}}
        texts = judged["texts"].get(origin, none)
        scored, kept = texts["in"]["here"], texts["kept"]
        before = rule["own_threshold"]
        table.add_row(
            Text(visible(origin) + _asked(rule["keep_fraction"])),
            count(scored),
            "none" if rule["threshold"] is None else f"{rule['threshold']:.6g}",
            count(kept["here"]),
            percent(kept["here"], scored),
            "none" if before is None else f"{before:.6g}",
            count(kept["there"]),
        )
    return table


def _asked(fraction: float | None) -> str:
    return "" if fraction is None else f", best {100 * fraction:.4g} %"


def _kept_texts(texts: Numbers) -> Table:
    table = _table("texts kept", "here", "of", "there", "of", "difference")
    for origin, pairs in texts.items():
        kept, scored = pairs["kept"], pairs["in"]
        table.add_row(
            Text(visible(origin)),
            count(kept["here"]),
            count(scored["here"]),
            count(kept["there"]),
            count(scored["there"]),
            _signed(kept["difference"]),
        )
    return table


def _crossed(joined: Numbers) -> Table:
    table = _table("kept by", "both", "only here", "only there", "neither")
    rows = {"samples": joined["samples"]}
    rows |= {f"{origin} texts": places for origin, places in joined["texts"].items()}
    for name, places in rows.items():
        table.add_row(Text(visible(name)), *(count(number) for number in places.values()))
    return table


def _table(first: str, *numbers: str) -> Table:
    return Table(first, *(Column(name, justify="right") for name in numbers))


def _signed(number: int) -> str:
    return f"{number:+,}" if number else "0"
