"""The table of a benchmark: at 80 columns, as markdown, or as JSON."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any

import torch
import transformers

from models.devices import name_device
from scripts.bench.meter import Cost
from scripts.bench.turns import Outcome

# GFLOP of an image (2 per multiply-add): two models, prompt and 20 tokens, one web and one
# synthetic text; the same for all arms, whatever they really compute
NUMERATORS = {("base", 224): 93, ("base", 384): 267, ("large", 224): 273, ("large", 384): 820}
COLUMNS = ("arm", "img/s", "least-most", "ours", "MFU", "GiB", "CPU s/k", "read", "wrote")
WIDTHS = (25, 7, 12, 5, 5, 6, 8, 6, 6)
UNQUIET = 1.5  # times, from the lowest ceiling to the highest
LEGEND = (
    "ours: capfilt's rate over the arm's, median of turns. MFU: of the matmul\n"
    "ceiling, by the same GFLOP an image for all. GiB: at its most, of the GPU where\n"
    "there is one. CPU s/k: CPU seconds of 1,000 images. read, wrote: kB an image,\n"
    "caches included"
)


def rows(outcomes: Sequence[Outcome], numerator: int | None, reference: str) -> list[list[str]]:
    """Make the cells of each arm that ran."""
    by_name = {outcome.name: outcome for outcome in outcomes}
    ours = by_name[reference].turns if reference in by_name else []
    return [_row(outcome, numerator, ours) for outcome in outcomes if outcome.turns]


def _row(outcome: Outcome, numerator: int | None, ours: Sequence[Cost]) -> list[str]:
    turns = outcome.turns
    rates = [turn.images_per_s for turn in turns]
    ratios = [us.images_per_s / rate for us, rate in zip(ours, rates, strict=False)]
    mfu = "-"
    if numerator and outcome.whole:
        shares = (rate * numerator / top for rate, top in zip(rates, outcome.ceilings, strict=True))
        mfu = f"{median(shares):.0%}"
    peak = max(turn.gpu_gib or turn.peak_gib for turn in turns)
    cpu = median(1_000 * turn.cpu_s / turn.images for turn in turns)
    read, wrote = (
        median(getattr(turn, name) / turn.images / 1e3 for turn in turns)
        for name in ("read_bytes", "written_bytes")
    )
    spread = f"{short(min(rates))}-{short(max(rates))}"
    ratio = short(median(ratios)) if ratios else "-"
    cells = [outcome.name, short(median(rates)), spread, ratio, mfu, f"{peak:.2f}"]
    return [*cells, short(cpu), short(read), short(wrote)]


def short(number: float) -> str:
    """Write three digits of a number, or all before the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:.{1 if number >= 10 else 2}f}"


def text(cells: Sequence[Sequence[str]]) -> str:
    """Lay a table out for a terminal of 80 columns."""
    lines = []
    for row in [COLUMNS, *cells]:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], WIDTHS[1:], strict=True))
        lines.append(row[0][: WIDTHS[0]].ljust(WIDTHS[0]) + "".join(rest))
    return "\n".join(lines)


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """Write a table as markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)])


def about(device: torch.device, what: str) -> dict[str, Any]:
    """Say when and where this was measured, and by which command."""
    commit = subprocess.getoutput("git rev-parse --short HEAD 2>/dev/null || echo none")
    threads = f"{torch.get_num_threads()} threads of {torch.backends.cpu.get_cpu_capability()}"
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit,
        "machine": name_device(device) if device.type == "cuda" else threads,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "command": "python -m scripts.bench " + " ".join(sys.argv[1:]),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "work": what,
    }


def of_ceilings(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Say how fast the machine was, and whether it was so all along."""
    tops = [top for outcome in outcomes for top in outcome.ceilings]
    facts = {"ceiling, GFLOP/s": f"{min(tops):.0f} to {max(tops):.0f}" if tops else "not read"}
    if tops and max(tops) > UNQUIET * min(tops):
        facts["not quiet"] = "something else was at work: compare ratios alone, of many turns"
    return facts


def heading(facts: Mapping[str, Any]) -> str:
    """Write what a record begins with."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())
