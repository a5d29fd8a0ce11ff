"""A file of a run is damaged, a random byte of it or all: it is told or harmless, and is mended.

`CAPFILT_FLIP_SEED` repeats a series. The seed is told where a flip fails, and in the log with the
figures: `pytest --log-cli-level=INFO`.
"""

import json
import logging
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from tests.support.damage import COMMANDS, JUDGE, Change, FlippedRun, FlipTally
from tests.support.driving import InProcess, Models

_log = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(600)  # half a minute each on a machine that does nothing else


@pytest.fixture
def flipped(
    capfilt: InProcess, flags: Callable[..., list[str]], toy_models: Models, tmp_path: Path
) -> FlippedRun:
    write_toy_world(tmp_path / "web", ToyWorldConfig(samples=8, samples_per_shard=4))
    run = tmp_path / "run"
    limits = ["--set=judge.threshold.web=0", "--set=judge.threshold.synthetic=0.5"]
    clean = [*flags(toy_models, tmp_path / "web", run), *limits, "--engine=local", "--direct"]
    assert capfilt.run(*clean).returncode == 0
    assert capfilt.run("judge", run, *JUDGE).returncode == 0
    assert capfilt.run("report", run, "--gallery=2").returncode == 0
    return FlippedRun(capfilt, run, clean, "00000/00000000")


def turn(number: int, commands: int) -> list[int]:
    """Choose the commands that have their turn."""
    return [(number + i) % COMMANDS for i in range(commands)]


def try_flips(flipped: FlippedRun, count: int, commands: int) -> None:
    """Strike so often; of the other commands, try so many after each, in turn."""
    seed = int(os.environ.get("CAPFILT_FLIP_SEED", random.randrange(2**32)))
    _log.info("CAPFILT_FLIP_SEED=%d", seed)
    dice, tally = random.Random(seed), FlipTally()
    for number in range(count):
        flip = flipped.draw(dice)
        try:
            told = flipped.try_damage(flip, turn(number, commands))
        except BaseException as error:
            error.add_note(f"flip {number} of CAPFILT_FLIP_SEED={seed}: {flip}")
            raise
        (tally.told if told else tally.harmless)[flip.name.split("/")[0]] += 1
    _log.info("told by verify: %d, %s", tally.told.total(), dict(tally.told))
    _log.info("harmless: %d, %s", tally.harmless.total(), dict(tally.harmless))
    assert tally.told.total() + tally.harmless.total() == count


DEEP = b"[" * 200_000
ELSEWHERE = json.dumps({"id": "../../../etc/passwd"}).encode()
CONTENTS: dict[str, Callable[[bytes], bytes | None]] = {
    "zeros": lambda data: b"\0" * max(len(data), 900),
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "garbage": lambda _: b"garbage \xff\x1b[2J" * 40,
    "gone": lambda _: None,
    "deep": lambda _: DEEP,
    "deep value": lambda data: data.replace(b": ", b': {"a": ' + DEEP + b", ", 1),
    "other id": lambda _: ELSEWHERE,
    "rotten name": lambda data: data.replace(b"shard", b"\xf3hard"),
}
TABLES = ("data/samples/", "data/texts/", "data/decisions/", "views/most/decisions/")
LISTS = ("snapshots/", "views/most/shards-", "input.parquet")
RECORDS = ("commits/", "run.json", "snapshot.json", "views/most/view.json", "attempts/")
DAMAGES = [
    *((name, kind) for name in TABLES for kind in ("rotten name", "garbage", "empty", "gone")),
    *((name, kind) for name in LISTS for kind in ("rotten name", "zeros", "empty", "cut")),
    *((name, kind) for name in RECORDS for kind in ("zeros", "deep", "deep value")),
    *((name, "deep") for name in ("quarantine/00000.json", "attempts/00000/x.json")),
    *((name, "other id") for name in ("snapshot.json", "commits/", "views/most/view.json")),
    *((name, "cut") for name in ("data/clean/", "views/most/clean/", "clean.txt", "recipe.yaml")),
]
MENDED_BY_CLEAN = [
    *(("commits/", kind) for kind in ("zeros", "empty", "cut", "deep", "gone")),
    *(("snapshots/", kind) for kind in ("zeros", "empty", "cut", "gone")),
    *(("snapshot.json", kind) for kind in ("zeros", "empty", "cut", "deep", "other id")),
    *(("clean.txt", kind) for kind in ("zeros", "empty", "cut", "gone")),
    *(("recipe.yaml", kind) for kind in ("zeros", "empty", "cut", "gone")),
]


def try_kinds(flipped: FlippedRun, damages: Sequence[tuple[str, str]], commands: int) -> None:
    """Try each damage, and of the other commands so many after each, in turn."""
    for number, (start, kind) in enumerate(damages):
        damage = Change(flipped.name(start), CONTENTS[kind])
        try:
            told = flipped.try_damage(damage, turn(number, commands))
        except BaseException as error:
            error.add_note(f"{kind}: {damage.name}")
            raise
        assert told or start.startswith("attempts/"), f"{kind}: {damage.name}"


@pytest.mark.slow
def test_some_kinds_of_damage_are_told_plainly_and_mended(flipped: FlippedRun) -> None:
    try_kinds(flipped, DAMAGES[::5], commands=2)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_each_kind_of_damage_is_told_plainly_and_mended(flipped: FlippedRun) -> None:
    try_kinds(flipped, DAMAGES, COMMANDS)


@pytest.mark.slow
def test_clean_alone_mends_what_a_power_cut_tears(flipped: FlippedRun) -> None:
    for start, kind in MENDED_BY_CLEAN:
        damage = Change(flipped.name(start), CONTENTS[kind])
        try:
            flipped.try_clean(damage)
        except BaseException as error:
            error.add_note(f"{kind}: {damage.name}")
            raise


@pytest.mark.nightly
def test_some_flips_are_told_or_harmless_and_mended(flipped: FlippedRun) -> None:
    try_flips(flipped, 60, commands=1)


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
def test_a_thousand_flips_are_told_or_harmless_and_mended(flipped: FlippedRun) -> None:
    try_flips(flipped, 1000, commands=COMMANDS)
