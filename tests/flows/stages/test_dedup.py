"""A deduplication, from a run to a view: what is kept, and what it says in numbers."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.stages.dedup import DedupRequest, dedup
from pipeline.views.dedup.groups import DedupConfig
from shards.run.run import Run
from shards.run.verify.run import verify_run
from tests.support.hashed_run import Picture, altered, hashed_run, stranger

LOOK = stranger(0)
PICTURES = [
    [Picture("small", "1", LOOK, side=50), Picture("other", "2", stranger(1))],
    [Picture("again", "1", LOOK, side=50), Picture("large", "3", altered(LOOK, 5), side=90)],
]


def deduplicated(run: Run, *against: Run, **config: Any) -> dict[str, Any]:
    urls = [other.store.url() for other in against]
    request = DedupRequest("unique", None, urls, DedupConfig(**config))
    return dedup(run, request, lambda _: None)


def test_a_view_keeps_one_of_each_picture(tmp_path: Path) -> None:
    run = hashed_run(tmp_path / "run", *PICTURES)
    done = deduplicated(run)
    assert (done["kept_before"], done["kept"], done["excluded"], done["groups"]) == (4, 2, 2, 1)
    assert done["by_kind"] == {"near": 2}
    listed = pq.read_table(done["groups_file"])
    assert listed["key"].to_pylist() == ["large", "small", "again"]
    assert verify_run(run).problems == ()
    assert deduplicated(run) == {**done, "new": False}


def test_what_an_evaluation_holds_is_left_out(tmp_path: Path) -> None:
    run = hashed_run(tmp_path / "run", *PICTURES)
    other = hashed_run(tmp_path / "eval", [Picture("e", "9", altered(LOOK, 3))], screens=True)
    done = deduplicated(run, other)
    assert (done["kept"], done["excluded"]) == (1, 3)
    assert verify_run(run).problems == ()
