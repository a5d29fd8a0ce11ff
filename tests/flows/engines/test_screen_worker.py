"""The worker of a screening: it tells what a worker of cleaning tells."""

from pathlib import Path

from flows.engines.engine import ShardDone
from flows.engines.job import Grant
from flows.engines.pace import Pace
from flows.engines.screen_worker import ScreenSpec
from pipeline.clean.config import screen_identity
from pipeline.clean.screen import ScreenConfig
from shards.inputs.listing import list_inputs
from shards.run.run import Run
from shards.store import Store


def test_a_shard_is_screened_and_counted(one_shard: Path, tmp_path: Path) -> None:
    config = ScreenConfig(min_side=16)
    inputs = list_inputs([str(one_shard)])
    run = Run.create(Store(str(tmp_path / "run")), "", screen_identity(config, "txt"), {}, inputs)
    spec = ScreenSpec(run.store.url(), config, Pace("auto", "auto", 600))
    worker = spec.open(Grant(worker="w1"))
    worker.expect(run.inputs[0])
    done = worker.process(run.inputs[0])
    assert isinstance(done, ShardDone)
    assert (done.counts.kept, done.counts.samples_in, done.worker) == (6, 6, "w1")
    assert (worker.samples, worker.counts, worker.device) == (6, (0, 0), "cpu")
    assert worker.close()
