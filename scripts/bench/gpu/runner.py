"""Cases of a stage, one JSON line each, written as they end; what is there is not done again.

A case that fails or takes too long leaves a line that says so, and the others go on. A stage that
does not come back is ended by a watchdog, with the stacks of its threads.
"""

import faulthandler
import json
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.gpu.time_limit import time_limit

GRACE_S, LEAST_S = 20.0, 2.0  # beyond a stage's limit; and what is worth beginning a case for
Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement of a stage, by a name of its own."""

    name: str
    work: Callable[[], Facts]
    limit_s: float = 120.0


def run_stage(
    stage: str, cases: Iterable[Case], out: Path, limit_s: float, about: Facts
) -> dict[str, int]:
    """Do the cases that have no line without an error yet; count what they came to.

    `about` stands in every line; those of another note, as of a smoke, do not count.
    """
    path = out / f"{stage}.jsonl"
    done, deadline = _done(path, about.get("note")), time.monotonic() + limit_s
    counts = {"measured": 0, "failed": 0, "left": 0, "there": 0}
    faulthandler.dump_traceback_later(limit_s + GRACE_S, exit=True)
    try:
        for case in cases:
            left_s = deadline - time.monotonic()
            if case.name in done:
                counts["there"] += 1
            elif left_s < LEAST_S:
                counts["left"] += 1
            else:
                begin = time.monotonic()
                facts = attempt(case, min(case.limit_s, left_s))
                counts["failed" if "error" in facts else "measured"] += 1
                seconds = round(time.monotonic() - begin, 2)
                line = {"stage": stage, "case": case.name, "seconds": seconds, **about, **facts}
                _write(path, line)
    finally:
        faulthandler.cancel_dump_traceback_later()
    _write(path, {"stage": stage, "case": "end", **about, **counts})
    return counts


def attempt(case: Case, limit_s: float) -> Facts:
    """Do one case; an error is a fact, too."""
    try:
        with time_limit(limit_s):
            return case.work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:500], "at": _place(error)}


def guarded(cases: Callable[[], Iterator[Case]], name: str) -> Iterator[Case]:
    """Yield the cases; where preparing them fails, yield one that says so."""
    try:
        yield from cases()
    except Exception as error:
        raised = error  # the name of the clause ends with it

        def fail() -> Facts:
            raise raised

        yield Case(name, fail)


def _place(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"


def _done(path: Path, note: str | None) -> set[str]:
    """Read which cases have a line without an error; a line that a kill has cut is closed."""
    if not path.is_file():
        return set()
    text, names = path.read_text(encoding="utf-8"), set[str]()
    if text and not text.endswith("\n"):
        path.write_text(text + "\n", encoding="utf-8")
    for line in text.splitlines():
        with suppress(ValueError):
            facts = json.loads(line)
            if "error" not in facts and facts.get("note") == note:
                names.add(facts["case"])
    return names - {"end"}


def _write(path: Path, line: Facts) -> None:
    text = json.dumps(line, default=str)
    print(text, flush=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
