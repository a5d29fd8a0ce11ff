"""What an actor tells of itself; actors in processes of their own run in end_to_end."""

import logging
import os
import pickle
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from flows.engines.job import Grant
from flows.engines.ray.actor import LINES_KEPT, PoolActor, Progress, _keep_warnings
from flows.engines.start_checks import Demands, MachineUnfit, requirements


def test_an_actor_answers_before_its_models_are_loaded() -> None:
    assert PoolActor().report() == Progress((0, 0))


def test_a_machine_is_checked_before_anything_of_the_job_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED", "here")
    with requirements(Demands(str(tmp_path), ()), ["FORWARDED"]) as needed:
        monkeypatch.delenv("FORWARDED")
        with pytest.raises(MachineUnfit, match="Install the same capfilt"):
            PoolActor().start(replace(needed, code="other"), b"of another capfilt", Grant(), 1)
        with pytest.raises(pickle.UnpicklingError):
            PoolActor().start(needed, b"of another capfilt", Grant(), 1)
        assert os.environ["FORWARDED"] == "here"


def test_warnings_are_kept_for_the_driver_the_newest_of_too_many() -> None:
    lines: deque[str] = deque(maxlen=LINES_KEPT)
    _keep_warnings(lines)
    log = logging.getLogger("pipeline.clean.shard")
    log.info("nothing to speak of")
    for number in range(LINES_KEPT + 1):
        log.warning("shard %d is odd", number)
    assert len(lines) == LINES_KEPT
    assert lines[0] == "pipeline.clean.shard: shard 1 is odd"
