"""Arms take turns, so that what slows the machine down slows all of them down alike.

Each turn is a process of its own: none has memory at its most, or kept, that another took.
"""

import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection

from scripts.bench.arms import Arm
from scripts.bench.ceiling import ceiling
from scripts.bench.data_juicer import NotInstalled
from scripts.bench.inputs import Inputs
from scripts.bench.meter import Cost, measure, peak_of_children_gib

_PROCESSES = multiprocessing.get_context("forkserver")  # torch may not be forked once it computed
_PROCESSES.set_forkserver_preload([__name__])


@dataclass(slots=True)
class Outcome:
    """The turns of an arm; `skipped` says why there are none."""

    name: str
    whole: bool
    turns: list[Cost] = field(default_factory=list)
    ceilings: list[float] = field(default_factory=list)  # GFLOP/s, around each turn
    skipped: str = ""


def take_turns(picked: Sequence[Arm], made: Inputs, repeats: int) -> tuple[list[Outcome], bool]:
    """Measure each arm once, then each again, and say whether all turns were taken.

    Ctrl-C ends it with what is measured by then.
    """
    outcomes = {arm.name: Outcome(arm.name, arm.whole) for arm in picked}
    begun, before = time.monotonic(), ceiling(made.device, made.dtype)
    try:
        for turn in range(repeats):
            left = ""
            if turn:
                left_s = (time.monotonic() - begun) / turn * (repeats - turn)
                left = f"about {left_s / 60:.0f} min left as this turn began"
            for arm in picked:
                if outcomes[arm.name].skipped:
                    continue
                told = f"\r{turn + 1}/{repeats} {arm.name:28}{left:40}"
                print(told, end="", file=sys.stderr, flush=True)
                before = _take_turn(arm, made, outcomes[arm.name], before)
    except KeyboardInterrupt:
        print("\rinterrupted: what follows is what was measured", file=sys.stderr)
        for outcome in outcomes.values():
            if not outcome.skipped and len(outcome.turns) < repeats:
                turns = f"{len(outcome.turns)} of {repeats} turns"
                outcome.skipped = f"{outcome.name}: interrupted after {turns}"
        return list(outcomes.values()), False
    print(file=sys.stderr)
    return list(outcomes.values()), True


def _take_turn(arm: Arm, made: Inputs, outcome: Outcome, before: float) -> float:
    """Measure a turn, and return the ceiling after it; what fails is left out from there."""
    try:
        cost = _in_process(arm, made)
    except NotInstalled as missing:
        outcome.skipped = str(missing)
        return before
    except Exception as error:
        outcome.skipped = f"{arm.name}, turn {len(outcome.turns) + 1}: {error}"[:300]
        return before
    after = ceiling(made.device, made.dtype)
    outcome.turns.append(cost)
    outcome.ceilings.append((before + after) / 2)
    return after


def _in_process(arm: Arm, made: Inputs) -> Cost:
    """Open and measure an arm elsewhere; raises what that raises."""
    here, there = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_measured, args=(arm, made, there))
    process.start()
    there.close()
    try:
        result = here.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"its process ended by {process.exitcode}") from None
    finally:
        process.terminate()  # of an interrupt it may not have heard
        process.join()
    if not isinstance(result, Cost):
        raise result
    return result


def _measured(arm: Arm, made: Inputs, there: Connection) -> None:
    """Send a turn's cost, or what ended it; peers may do their work in a child."""
    try:
        cost = measure(arm.open(made))
        there.send(replace(cost, peak_gib=max(cost.peak_gib, peak_of_children_gib())))
    except (NotInstalled, KeyboardInterrupt) as ended:
        there.send(ended)
    except Exception as error:  # which may not be fit to be sent
        there.send(RuntimeError(f"{type(error).__name__}: {error}"))
