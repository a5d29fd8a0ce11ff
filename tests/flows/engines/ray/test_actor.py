"""What an actor tells of itself; actors in processes of their own run in end_to_end."""

import logging
from collections import deque

from flows.engines.ray.actor import LINES_KEPT, PoolActor, Progress, _keep_warnings


def test_an_actor_answers_before_its_models_are_loaded() -> None:
    assert PoolActor().report() == Progress((0, 0))


def test_warnings_are_kept_for_the_driver_the_newest_of_too_many() -> None:
    lines: deque[str] = deque(maxlen=LINES_KEPT)
    _keep_warnings(lines)
    log = logging.getLogger("pipeline.clean.shard")
    log.info("nothing to speak of")
    for number in range(LINES_KEPT + 1):
        log.warning("shard %d is odd", number)
    assert len(lines) == LINES_KEPT
    assert lines[0] == "pipeline.clean.shard: shard 1 is odd"
