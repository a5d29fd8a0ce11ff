"""Arms take turns, so that what slows the machine down slows all of them down alike."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from scripts.bench.arms import Arm
from scripts.bench.ceiling import ceiling
from scripts.bench.data_juicer import NotInstalled
from scripts.bench.inputs import Inputs
from scripts.bench.meter import Cost, measure


@dataclass(slots=True)
class Outcome:
    """The turns of an arm; `skipped` says why there are none."""

    name: str
    whole: bool
    turns: list[Cost] = field(default_factory=list)
    ceilings: list[float] = field(default_factory=list)  # GFLOP/s, around each turn
    skipped: str = ""


def take_turns(picked: Sequence[Arm], made: Inputs, repeats: int) -> list[Outcome]:
    """Measure each arm once, then each again; one that fails is told and left out from there."""
    outcomes = {arm.name: Outcome(arm.name, arm.whole) for arm in picked}
    before = ceiling(made.device, made.dtype)
    for turn in range(repeats):
        for arm in picked:
            outcome = outcomes[arm.name]
            if outcome.skipped:
                continue
            print(f"\r{turn + 1}/{repeats} {arm.name:40}", end="", file=sys.stderr, flush=True)
            try:
                cost = measure(arm.open(made))
            except NotInstalled as missing:
                outcome.skipped = str(missing)
                continue
            except Exception as error:
                outcome.skipped = f"{arm.name}, turn {turn + 1}: {type(error).__name__}: {error}"[
                    :300
                ]
                continue
            after = ceiling(made.device, made.dtype)
            outcome.turns.append(cost)
            outcome.ceilings.append((before + after) / 2)
            before = after
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)
    return list(outcomes.values())
