"""SIGKILLs at random moments lose and double nothing, by the script that publishes the number.

`CAPFILT_CHAOS_SEED` repeats a series of kills (their kinds and pauses; the machine adds its own).
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.chaos.verdict import compare, read_tables

REPOSITORY = Path(__file__).resolve().parents[2]


def strike(*options: str) -> dict[str, Any]:
    """Run the script; return what it says, and print it."""
    command = [sys.executable, "scripts/chaos.py", "--json", *options]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=3600
    )
    sys.stdout.write(done.stderr[-4000:] + done.stdout)
    record: dict[str, Any] = json.loads(done.stdout)
    problems = [problem for kind in record["kinds"] for problem in kind["problems"]]
    assert not problems, problems
    assert done.returncode == 0
    for kind in record["kinds"]:
        assert kind["lost"] == kind["doubled"] == kind["differing"] == 0
        assert kind["blows"] >= kind["asked"], f"{kind['kind']}: too few blows hit"
    return record


@pytest.mark.nightly  # `make chaos` does as much
@pytest.mark.timeout(600)  # 40 s on a quiet machine
def test_kills_of_drivers_lose_and_double_nothing() -> None:
    record = strike("--kinds=driver,commit,s3", "--kills=24")
    assert sum(kind["between"] for kind in record["kinds"]) >= 4


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_kills_of_all_that_ray_is_made_of_lose_and_double_nothing(loopback_only: list[str]) -> None:
    assert loopback_only
    strike("--kinds=actor,raylet,gcs", "--kills=60")


def test_the_verdict_sees_what_is_lost_doubled_or_changed(toy_run: Path) -> None:
    unbroken = read_tables(str(toy_run))
    assert len(unbroken["samples"]) == 300
    same = compare(unbroken, unbroken)
    assert (same.lost, same.doubled, same.differing) == (0, 0, ())

    shorter = unbroken | {"texts": unbroken["texts"][1:]}
    assert compare(shorter, unbroken).lost == 1
    longer = unbroken | {"decisions": [*unbroken["decisions"], unbroken["decisions"][7]]}
    assert compare(longer, unbroken).doubled == 1
    stranger = {**unbroken["samples"][0], "index": 10**6}
    assert compare(unbroken | {"samples": [*unbroken["samples"], stranger]}, unbroken).doubled == 1

    first = unbroken["texts"][0]
    for change, differs in (
        ({"itm": first["itm"] + 5e-6}, False),
        ({"itm": first["itm"] + 5e-5}, True),
        ({"itm": None}, True),
        ({"text": "another"}, True),
    ):
        changed = unbroken | {"texts": [first | change, *unbroken["texts"][1:]]}
        assert compare(changed, unbroken).differing == (("texts",) if differs else ())
