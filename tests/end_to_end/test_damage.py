"""One byte of one file of a run is changed, at random: it is told or harmless, and is mended.

`CAPFILT_FLIP_SEED` repeats a series. The seed is told where a flip fails, and in the log with the
figures: `pytest --log-cli-level=INFO`.
"""

import logging
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from tests.support.damage import COMMANDS, JUDGE, FlippedRun, FlipTally
from tests.support.driving import InProcess, Models

_log = logging.getLogger(__name__)


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


def try_flips(flipped: FlippedRun, count: int, commands: int) -> None:
    """Strike so often; of the other commands, try so many after each, in turn."""
    seed = int(os.environ.get("CAPFILT_FLIP_SEED", random.randrange(2**32)))
    _log.info("CAPFILT_FLIP_SEED=%d", seed)
    dice, tally = random.Random(seed), FlipTally()
    for number in range(count):
        flip = flipped.draw(dice)
        try:
            flipped.try_flip(flip, tally, [(number + i) % COMMANDS for i in range(commands)])
        except BaseException as error:
            error.add_note(f"flip {number} of CAPFILT_FLIP_SEED={seed}: {flip}")
            raise
    _log.info("told by verify: %d, %s", tally.told.total(), dict(tally.told))
    _log.info("harmless: %d, %s", tally.harmless.total(), dict(tally.harmless))
    assert tally.told.total() + tally.harmless.total() == count


def test_some_flips_are_told_or_harmless_and_mended(flipped: FlippedRun) -> None:
    try_flips(flipped, 60, commands=1)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_a_thousand_flips_are_told_or_harmless_and_mended(flipped: FlippedRun) -> None:
    try_flips(flipped, 1000, commands=COMMANDS)
