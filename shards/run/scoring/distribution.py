"""How a run's texts scored, by origin: a histogram and the best of each.

It is counted from the tables of texts, one file after the other, and kept beside the snapshot of
a large run: to open 100,000 files for a few numbers takes minutes. What is kept names the files
that it was counted from by their hashes, and counts for no others.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from shards.errors import DamagedFile
from shards.run.commit import FileRecord
from shards.run.data import read_data
from shards.run.record import as_model, read_record, write_record
from shards.run.run import Run
from shards.run.scoring.compaction import Compaction, open_compaction
from shards.run.snapshot import SnapshotShard, table_files

BINS = 20
LEAST = 100  # files; fewer are as soon counted
_THREADS = 16  # an object store answers many at once
_AT_A_TIME = 1_000
_READ = ["origin", "itm"]
_Count = tuple[str, NDArray[np.int64], float]  # of an origin: its texts by bin, and the best
_log = logging.getLogger(__name__)


class Scores(BaseModel):
    """Texts by their match probability, in bins from 0 to 1, and the best; by origin.

    Texts without a score, or with one that is not finite, are in no bin. `texts_sha256` is of the
    hashes of the files they stand in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    texts_sha256: str
    counts: dict[str, list[int]] = {}
    highest: dict[str, float] = {}


def scores_of(run: Run, shards: Sequence[SnapshotShard], snapshot: str | None) -> Scores:
    """Return how the texts of shards scored: as kept beside their snapshot, or counted now."""
    kept = None if snapshot is None else read_scores(run, snapshot)
    if kept is not None and kept.texts_sha256 == _digest(table_files(shards, "texts")):
        return kept
    return count_scores(run, shards)


def keep_scores(run: Run, shards: Sequence[SnapshotShard], snapshot: str) -> None:
    """Keep how the texts of a large run's snapshot scored, unless that is kept already."""
    if len(shards) < LEAST:
        return
    kept = read_scores(run, snapshot)
    if kept is not None and kept.texts_sha256 == _digest(table_files(shards, "texts")):
        return
    compaction = open_compaction(run, shards, snapshot)
    try:
        now = count_scores(run, shards, compaction)
    except DamagedFile as error:
        _log.warning("scores are counted from the tables: %s", error)
        now = count_scores(run, shards)
    run.store.put(scores_name(snapshot), write_record(now.model_dump(mode="json")))


def scores_name(snapshot: str) -> str:
    """Name the file beside a snapshot's."""
    return f"snapshots/{snapshot}.scores.json"


def read_scores(run: Run, snapshot: str) -> Scores | None:
    """Read what is kept; None where it is not there, or damaged, as `verify` says."""
    try:
        return parse_scores(run, snapshot)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        _log.warning("scores are counted again: %s", error)
        return None


def parse_scores(run: Run, snapshot: str) -> Scores:
    """Read what is kept; raises FileNotFoundError, DamagedFile."""
    name = scores_name(snapshot)
    where = run.store.url(name)
    return as_model(Scores, read_record(run.store.read(name), where), where)


def count_scores(
    run: Run, shards: Sequence[SnapshotShard], compaction: Compaction | None = None
) -> Scores:
    """Count them from the tables, or their compaction; raises DamagedFile, SchemaError."""
    files = table_files(shards, "texts")
    counts: dict[str, NDArray[np.int64]] = {}
    highest: dict[str, float] = {}
    counted = _counted(run, files) if compaction is None else map(_count, compaction.tables(_READ))
    for origin, bins, best in chain.from_iterable(counted):
        counts[origin] = counts.get(origin, np.zeros(BINS, np.int64)) + bins
        highest[origin] = max(highest.get(origin, best), best)
    return Scores(
        texts_sha256=_digest(files),
        counts={origin: counts[origin].tolist() for origin in sorted(counts)},
        highest={origin: highest[origin] for origin in sorted(highest)},
    )


def _counted(run: Run, files: Sequence[FileRecord]) -> Iterator[list[_Count]]:
    waiting = iter(files)
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(islice(waiting, _AT_A_TIME)):
            yield from pool.map(lambda file: _count(read_data(run, file, _READ)), some)


def _count(texts: pa.Table) -> list[_Count]:
    origins = texts["origin"].combine_chunks().dictionary_encode()
    itm = texts["itm"].to_numpy().astype(np.float64)
    finite = np.isfinite(itm)
    itm, codes = itm[finite], origins.indices.to_numpy()[finite]
    places = np.clip(np.floor(itm * BINS), 0, BINS - 1).astype(np.int64)
    counted = []
    for code, origin in enumerate(origins.dictionary.to_pylist()):
        own = codes == code
        if own.any():
            bins = np.bincount(places[own], minlength=BINS)
            counted.append((origin, bins, float(itm[own].max())))
    return counted


def _digest(files: Sequence[FileRecord]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.sha256.encode())
    return digest.hexdigest()
