"""Cleaning beside its peers: images per second, and what they cost, in one table.

All arms have the same pictures, texts, weights and number of tokens, and take turns: A B C, A B C.
capfilt does all of a run, tar to commit; the others decode, caption, and score both texts by ITM.
Around each turn the machine's own matmul ceiling is read. An hour on two cores; a first look:

    python -m scripts.bench --size tiny --repeats 2 --arms capfilt transformers
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from models.blip.config import resolve_dtype
from models.devices import choose_device
from scripts.bench import arms, inputs, table
from scripts.bench.inputs import Inputs
from scripts.bench.turns import Outcome, take_turns


def main(arguments: Sequence[str] | None = None) -> int:
    """Write inputs, take turns, and print the table; 130 if that was interrupted, 2 for bad use."""
    o = _options(arguments)
    try:
        picked = arms.chosen(o.arms)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="capfilt-bench-") as scratch:
        made = make_inputs(Path(scratch), o)
        outcomes, is_whole = take_turns(picked, made, o.repeats)
    what = f"{made.images} pictures, {o.size} at {o.px} px, {made.dtype}, {made.tokens} tokens, "
    facts = table.about(made.device, f"{what}batches of {made.batch} elsewhere")
    facts["turns"] = o.repeats if is_whole else f"{o.repeats}, interrupted: fewer, as said below"
    show(outcomes, facts, table.NUMERATORS.get((o.size, o.px)), o)
    return 0 if is_whole else 130


def make_inputs(folder: Path, o: argparse.Namespace) -> Inputs:
    """Write pictures and models."""
    device = choose_device(o.device)
    warm_up = min(o.batch, o.images)
    pairs = inputs.real_pairs(o.shards) if o.shards else inputs.made_up_pairs(warm_up + o.images)
    pairs = islice(pairs, warm_up + o.images)
    written = inputs.write_inputs(folder / "input", pairs, warm_up, o.per_shard)
    inputs.write_models(folder, o.size, o.px)
    inputs.write_models(folder / "tiny", "tiny", 64)
    dtype = resolve_dtype(o.dtype, device)
    return Inputs(folder, device, dtype, o.batch, written - warm_up, o.tokens, o.peer_python)


def show(
    outcomes: Sequence[Outcome],
    facts: dict[str, Any],
    numerator: int | None,
    o: argparse.Namespace,
) -> None:
    """Print the table, or JSON, and write the record."""
    cells = table.rows(outcomes, numerator, arms.WHOLE)
    skipped = [outcome.skipped for outcome in outcomes if outcome.skipped]
    facts |= table.of_ceilings(outcomes) | {"GFLOP of an image": numerator or "not counted"}
    if o.json:
        turns = [
            {"arm": x.name, "skipped": x.skipped, "ceilings": x.ceilings}
            | {"turns": [cost.to_dict() for cost in x.turns]}
            for x in outcomes
        ]
        print(json.dumps(facts | {"arms": turns}))
    else:
        print("\n".join([table.heading(facts), "", table.text(cells), *skipped, "", table.LEGEND]))
    if o.record:
        body = [f"# Cleaning beside its peers, {facts['date']}", table.heading(facts)]
        body += [table.markdown(cells), table.LEGEND, *skipped]
        o.record.write_text("\n\n".join(body) + "\n", encoding="utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m scripts.bench",
        description=__doc__,
        epilog="arms: " + "; ".join(arm.name for arm in arms.ARMS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arms", nargs="*", default=[], help="beginnings of names; default: all")
    for name, choices, what in (
        ("size", ("base", "tiny", "large"), "of BLIP"),
        ("dtype", ("auto", "fp32", "bf16"), "of all arms but int8's"),
        ("device", ("auto", "cpu", "cuda"), "of all arms"),
    ):
        default = choices[0]
        parser.add_argument(
            f"--{name}", choices=choices, default=default, help=f"{what}; default: {default}"
        )
    parser.add_argument("--px", type=int, help="side of a picture; default: 384, of tiny 64")
    parser.add_argument("--shards", help="a folder of tars with real JPEGs (default: made up)")
    parser.add_argument("--peer-python", type=Path, help="of an environment with Data-Juicer")
    parser.add_argument("--record", type=Path, help="markdown file to write")
    parser.add_argument("--json", action="store_true", help="for machines")
    for name, value, what in (
        ("images", 8, "pictures of a turn; a quarter of them for the slowest arms"),
        ("per-shard", 10_000, "pictures of a tar"),
        ("batch", 8, "pictures at a time, of the others; ours takes its own"),
        ("repeats", 5, "turns of each arm"),
        ("tokens", inputs.TOKENS, "of each caption"),
    ):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{what}; default: {value}")
    o = parser.parse_args(arguments)
    o.px = o.px or (64 if o.size == "tiny" else 384)
    return o


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # turn and folder end with it
    sys.exit(main())
