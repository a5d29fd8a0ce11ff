"""Groups of the same picture: a keeper, and those that are it again, byte for byte or nearly."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.media.difference_hash import DISTANCE
from pipeline.views.dedup.candidates import (
    Candidates,
    KeepRule,
    hash_kind,
    joined,
    read_candidates,
)
from pipeline.views.dedup.near import find_keepers
from shards.reasons import SampleReason
from shards.run.data import read_data
from shards.run.run import Run
from shards.run.view import View
from shards.schema import GROUPS

_log = logging.getLogger(__name__)

EXACT, NEAR = "exact", "near"


@dataclass(frozen=True, slots=True)
class DedupConfig:
    """What counts as the same picture, and which of them is kept.

    `distance` is of difference hashes, in bits; None compares bytes alone.
    """

    keep: KeepRule = "largest"
    distance: int | None = DISTANCE


@dataclass(frozen=True, slots=True)
class Side:
    """A run by one of its views."""

    run: Run
    view: View


@dataclass(frozen=True, slots=True)
class Found:
    """Who is whose copy: row numbers of keepers (their own, of those without), and how near."""

    keeper: NDArray[np.int64]
    is_exact: NDArray[np.bool_]
    distance: NDArray[np.int16]


def find_groups(here: Side, against: Sequence[Side], config: DedupConfig) -> pa.Table:
    """Find the groups among a run's kept pictures, as a table of `GROUPS`.

    What stands in a run of `against`, too, is not kept here. Difference hashes of another kind are
    compared by nobody, which is said.
    """
    ours = read_candidates(here.run, here.view, config.keep)
    ours = ours.taken(np.lexsort((ours.index, ours.shard, -ours.worth)))
    parts, sides, first = list[Candidates](), [here], len(here.view.shards)
    for other in against:
        theirs = read_candidates(other.run, other.view, None, first)
        parts.append(_comparable(here.run, other.run, theirs))
        sides.append(other)
        first += len(other.view.shards)
    fixed = sum(map(len, parts))
    everything = joined([*parts, ours])
    return _table(sides, everything, find(everything, config, fixed))


def find(pictures: Candidates, config: DedupConfig, fixed: int = 0) -> Found:
    """Find each picture's keeper; the first `fixed` are others', and kept whatever they are."""
    keeper = _same_bytes(pictures, fixed)
    itself = np.arange(len(keeper))
    if config.distance is not None:
        rows = np.flatnonzero((keeper == itself) & pictures.hashed)
        near, _ = find_keepers(
            pictures.hashes[rows], config.distance, int(np.searchsorted(rows, fixed))
        )
        keeper[rows] = rows[near]
        keeper = keeper[keeper]  # copies of what is now a member have its keeper
    apart = pictures.hashes ^ pictures.hashes[keeper]
    is_exact = (pictures.sha256 == pictures.sha256[keeper]).all(axis=1)
    return Found(keeper, is_exact, np.bitwise_count(apart).sum(axis=1, dtype=np.int16))


def _same_bytes(pictures: Candidates, fixed: int) -> NDArray[np.int64]:
    """Return the first picture with the same bytes as each."""
    order = np.lexsort((pictures.sha256[:, 1], pictures.sha256[:, 0]))  # stable: the first is first
    ordered = pictures.sha256[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    keeper = np.empty(len(order), np.int64)
    keeper[order] = order[begins][np.cumsum(begins) - 1]
    keeper[:fixed] = np.arange(fixed)
    return keeper


def _comparable(run: Run, other: Run, theirs: Candidates) -> Candidates:
    if hash_kind(run) == hash_kind(other):
        return theirs
    _log.warning(
        "warning: the difference hashes of %s are %s, those of %s %s: between these runs only "
        "pictures with the same bytes are found. Screen one of them again to compare them",
        run.store.url(),
        hash_kind(run),
        other.store.url(),
        hash_kind(other),
    )
    return replace(theirs, hashed=np.zeros(len(theirs), bool))


def _table(sides: Sequence[Side], pictures: Candidates, copies: Found) -> pa.Table:
    """List every group, its keeper first; groups in the order of their keepers."""
    members = np.flatnonzero(copies.keeper != np.arange(len(pictures)))
    keepers = np.unique(copies.keeper[members])
    rows = np.concatenate([keepers, members])
    of = copies.keeper[rows]  # a keeper is its own
    order = np.lexsort((rows, rows != of, of))
    rows, of = rows[order], of[order]
    is_member = rows != of
    kinds = np.where(copies.is_exact[rows], EXACT, NEAR)
    reasons = np.full(len(rows), str(SampleReason.DUPLICATE_IMAGE))
    places = _places(sides, pictures, rows)
    columns = {
        **places,
        "group": np.searchsorted(keepers, of),
        "kind": pa.array(kinds, pa.string(), mask=~is_member),
        "distance": pa.array(
            copies.distance[rows], pa.int16(), mask=~is_member | ~pictures.hashed[rows]
        ),
        "reason": pa.array(reasons, pa.string(), mask=~is_member),
    }
    return pa.table({name: columns[name] for name in GROUPS.names}).cast(GROUPS)


def _places(
    sides: Sequence[Side], pictures: Candidates, rows: NDArray[np.int64]
) -> dict[str, pa.Array]:
    """Look up where pictures stand, and their keys, shard by shard."""
    numbers, indices = pictures.shard[rows], pictures.index[rows]
    listed = [(side, shard) for side in sides for shard in side.view.shards]
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(len(listed) + 1))
    keys, hashes = [pa.array([], pa.string())], [pa.array([], pa.string())]
    for number in np.unique(numbers):
        side, shard = listed[number]
        file = next(file for file in shard.files if file.table == "samples")
        samples = read_data(side.run, file, ["key", "sha256"])  # rows stand by their index
        wanted = pa.array(indices[order[starts[number] : starts[number + 1]]])
        keys.append(samples["key"].combine_chunks().take(wanted))
        hashes.append(samples["sha256"].combine_chunks().take(wanted))
    back = pa.array(np.argsort(order, kind="stable"))
    urls = pa.array(
        [None if side is sides[0] else side.run.store.url() for side, _ in listed], pa.string()
    )
    names = pa.array([shard.shard for _, shard in listed], pa.string())
    where = pa.array(numbers)
    return {
        "run": urls.take(where),
        "shard": names.take(where),
        "index": pa.array(indices),
        "key": pa.concat_arrays(keys).take(back),
        "sha256": pa.concat_arrays(hashes).take(back),
    }
