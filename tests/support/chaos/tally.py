"""What a kind of blow came to, and the table of them all."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Tally:
    """What was done in the runs of one kind, and what was found in them."""

    kind: str
    asked: int = 0
    blows: int = 0  # SIGKILLs that hit with an attempt open
    missed: int = 0  # SIGKILLs that hit between two attempts; they count for nothing
    between: int = 0  # of the blows, those between a first data file and its commit
    runs: int = 0
    shards: int = 0
    drivers: int = 0
    pairs: int = 0  # times that two drivers worked on the run at once
    frozen: int = 0  # drivers stopped by SIGSTOP with an attempt open, and woken later
    woken_late: int = 0  # of these, woken after the run's end
    attempts: int = 0
    faults: int = 0  # of a store, injected
    lost: int = 0
    doubled: int = 0
    differing: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # for people

    @property
    def held(self) -> bool:
        """Whether nothing was lost, doubled, changed, or otherwise wrong."""
        return not (self.lost or self.doubled or self.differing or self.problems)


COLUMNS = (
    "blows", "between", "runs", "shards", "drivers", "pairs", "frozen", "attempts", "faults",
    "lost", "doubled", "differing", "seconds",
)  # fmt: skip


def in_all(tallies: Iterable[Tally]) -> Tally:
    """Add tallies up."""
    total = Tally("in all")
    for tally in tallies:
        for name, value in asdict(tally).items():
            if name != "kind":
                setattr(total, name, getattr(total, name) + value)
    return total


def as_table(tallies: Iterable[Tally]) -> str:
    """Set the tallies in a Markdown table, with their sum."""
    lines = list(tallies)
    rows = [["kind", *COLUMNS], ["---", *("---:" for _ in COLUMNS)]]
    rows += [[tally.kind, *_cells(asdict(tally))] for tally in (*lines, in_all(lines))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(record: Mapping[str, Any]) -> list[str]:
    return [f"{record[name]:,.0f}" for name in COLUMNS]
