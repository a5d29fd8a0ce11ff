"""How far a cleaning or a training is, as the terminal and Prefect's page say it."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows.engines.download_worker import PartDone, PartFailed
from flows.engines.engine import ShardDone
from flows.stages.progress import CleanProgress, DownloadProgress, stage_line, training_line
from pipeline.download.part import PartTask
from shards.download.record import DownloadCounts
from shards.inputs.shard import InputShard
from shards.run.commit import Counts

CLEAN = {
    "samples_in": 1200,
    "kept": 1000,
    "texts": {"web": {"in": 1200, "kept": 300}, "synthetic": {"in": 1000, "kept": 990}},
}
EVALUATE = {"retrieval": {"itm": {"tr@1": 0.5, "ir@1": 0.25}}, "captions": {"cider": None}}


@pytest.mark.parametrize(
    ("stage", "entry", "line"),
    [
        ("clean", CLEAN, "1,000 of 1,200 samples kept; texts kept: web 25.0 %, synthetic 99.0 %"),
        ("evaluate", EVALUATE, "TR@1 0.500, IR@1 0.250, CIDEr none"),
        (
            "pretrain",
            {"steps": 4000, "samples": 128000, "last_numbers": {"loss": 2.0}},
            "4,000 steps, 128,000 samples, loss 2.000",
        ),
        ("filter", {"steps": 1, "samples": 2, "last_numbers": {}}, "1 step, 2 samples"),
    ],
)
def test_a_stage_is_one_line(stage: Any, entry: dict[str, Any], line: str) -> None:
    assert stage_line(stage, entry) == line


def test_a_cleaning_is_as_far_as_the_bytes_of_its_input() -> None:
    shards = [InputShard(f"{n}.tar", str(n), size, None, 0.0) for n, size in enumerate((100, 300))]
    job: Any = SimpleNamespace(pending=shards, mine=shards)
    heard: list[tuple[float, str]] = []
    progress = CleanProgress(lambda share, line: heard.append((share, line)))
    progress.begin(job)
    assert heard[-1][0] == 0
    assert heard[-1][1].endswith("starting workers")
    progress.under_way(5, 200)
    assert heard[-1][0] == 0.5
    progress.ended(ShardDone(shards[0], Counts(samples_in=4, filtered=4), damaged=False))
    assert heard[-1][0] == 0.5  # what is left of the other counts on
    assert heard[-1][1].startswith("1/2 shards, 5 samples")
    progress.ended(ShardDone(shards[1], Counts(samples_in=9, filtered=9), damaged=False))
    assert heard[-1][0] == 1
    assert heard[-1][1].startswith("2/2 shards, 13 samples")


def test_a_training_says_its_step_its_numbers_and_the_time_left() -> None:
    line = {"step": 5, "samples": 40, "samples_per_s": 2.0, "loss": 1.5, "rate": 0.1}
    assert training_line(line, 20) == "step 5 of 20: loss 1.500, 2 samples/s, 60 s left"


def test_a_download_is_as_far_as_its_rows_and_tells_failures_by_reason() -> None:
    heard: list[tuple[float, str]] = []
    progress = DownloadProgress(lambda share, line: heard.append((share, line)))
    tasks = [PartTask("00000"), PartTask("00001")]
    job: Any = SimpleNamespace(rows=200, tasks=tasks)
    progress.begin(job)
    progress.under_way({"ok": 40, "timeout": 10})
    assert heard[-1][0] == 0.25
    assert heard[-1][1].startswith("50 of 200 rows")
    assert heard[-1][1].endswith("ok 40, timeout 10")
    counts = DownloadCounts(rows=100, ok=80, failed=20, failed_by_reason={"timeout": 20})
    progress.ended(PartDone(tasks[0], counts, asked=100))
    assert heard[-1][0] == 0.5
    assert heard[-1][1].endswith("ok 80, timeout 20")
    progress.ended(PartFailed(tasks[1], "why"))
    assert heard[-1][0] == 0.5
