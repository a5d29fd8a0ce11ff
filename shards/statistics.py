"""The numbers of a run, finished or not: what went in, what came of it, and how texts scored."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.commit import read_commits, total_counts
from shards.run import Run
from shards.schema import SCHEMAS, check_schema
from shards.snapshot import SnapshotShard, as_snapshot_shard, newest_snapshot_id, open_snapshot

_BINS = 20
_SCORES = pa.schema([pa.field("origin", pa.string()), pa.field("itm", pa.float32())])


def run_statistics(run: Run) -> dict[str, Any]:
    """Count a run, as `capfilt stats --json` prints it.

    Reads the newest snapshot if that lists every shard, or else the commits.
    """
    shards = _committed(run)
    counts = total_counts(shard.counts for shard in shards)
    return {
        "samples_in": counts.samples_in,
        "kept": counts.kept,
        "filtered": counts.filtered,
        "rejected": counts.rejected,
        "rejected_by_reason": counts.rejected_by_reason,
        "texts": {origin: texts.model_dump() for origin, texts in counts.texts.items()},
        "shards": {
            "total": len(run.shards),
            "committed": len(shards),
            "damaged": sum(shard.state.damaged for shard in shards),
            "quarantined": 0,
            "pending": len(run.shards) - len(shards),
        },
        "histograms": itm_histograms(run, shards),
    }


def itm_histograms(run: Run, shards: Sequence[SnapshotShard]) -> dict[str, Any]:
    """Count match probabilities per origin in 20 bins from 0 to 1; the last one holds 1 too.

    Texts without a score, or with one that is not finite, are in no bin.
    """
    names = [file.name for shard in shards for file in shard.files if file.table == "texts"]
    counts = {origin: [0] * _BINS for origin in _origins(shards)}
    for origin, place, count in _binned(run, names) if names else []:
        counts.setdefault(origin, [0] * _BINS)[place] = count
    edges = [place / _BINS for place in range(_BINS + 1)]
    return {origin: {"edges": edges, "counts": bins} for origin, bins in counts.items()}


def _origins(shards: Sequence[SnapshotShard]) -> list[str]:
    return sorted({origin for shard in shards for origin in shard.counts.texts})


def _committed(run: Run) -> list[SnapshotShard]:
    if newest_snapshot_id(run) is not None:
        snapshot = open_snapshot(run)
        if len(snapshot.shards) == len(run.shards):
            return list(snapshot.shards)
    return [as_snapshot_shard(done) for done in read_commits(run).values()]


def _binned(run: Run, names: list[str]) -> list[tuple[str, int, int]]:
    """Give (origin, bin, count) over the texts files.

    DuckDB reads them through an Arrow data set: any fsspec store, and no glob signs in names.
    """
    import duckdb
    import pyarrow.dataset

    store = run.store
    for name in names:  # a data set would read a missing column as nulls
        with store.open(name) as file:
            check_schema(pq.read_schema(file), SCHEMAS["texts"], store.url(name))
    paths = [store.path(name) for name in names]
    texts = pyarrow.dataset.dataset(paths, schema=_SCORES, filesystem=store.fs, format="parquet")
    with duckdb.connect() as connection:
        connection.register("texts", texts)
        return connection.execute(
            "SELECT origin, least(greatest(floor(itm::DOUBLE * ?), 0), ? - 1)::INT AS bin, "
            "count(*) FROM texts WHERE isfinite(itm) GROUP BY ALL ORDER BY ALL",
            [_BINS, _BINS],
        ).fetchall()
