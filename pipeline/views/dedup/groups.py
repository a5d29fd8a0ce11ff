"""Groups of the same picture: a keeper, and those that are it again, byte for byte or nearly."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.media.difference_hash import DISTANCE
from pipeline.views.dedup.alike import Embeddings, cosines, find_alike, numbers_of
from pipeline.views.dedup.candidates import (
    Candidates,
    KeepRule,
    hash_kind,
    joined,
    read_candidates,
)
from pipeline.views.dedup.near import are_near, find_keepers
from shards.errors import UsageError
from shards.reasons import SampleReason
from shards.run.data import read_data
from shards.run.run import Run
from shards.run.view import View
from shards.schema import GROUPS

_log = logging.getLogger(__name__)


class NoEmbeddings(UsageError):  # noqa: N818 - reads as what happened
    """An index of other pictures than those that are compared."""


EXACT, NEAR, ALIKE = "exact", "near", "semantic"


@dataclass(frozen=True, slots=True)
class DedupConfig:
    """What counts as the same picture, and which of them is kept.

    `distance` is of difference hashes, in bits; None compares no hashes. `similarity` is the cosine
    of embeddings; None compares none.
    """

    keep: KeepRule = "largest"
    distance: int | None = DISTANCE
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """A run by one of its views."""

    run: Run
    view: View


@dataclass(frozen=True, slots=True)
class Found:
    """Who is whose copy: row numbers of keepers (their own, of those without), and how near.

    `similarity` is NaN where it was not looked at.
    """

    keeper: NDArray[np.int64]
    is_exact: NDArray[np.bool_]
    is_near: NDArray[np.bool_]
    distance: NDArray[np.int16]
    similarity: NDArray[np.float32]


def find_groups(
    here: Side,
    against: Sequence[Side],
    config: DedupConfig,
    embeddings: Embeddings | None = None,
) -> pa.Table:
    """Find the groups among a run's kept pictures, as a table of `GROUPS`.

    What stands in a run of `against`, too, is not kept here. Difference hashes of another kind are
    compared by nobody, and neither are pictures without embeddings, where these are given; both is
    said. Raises NoEmbeddings where no picture has any.
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
    return _table(sides, everything, find(everything, config, fixed, embeddings))


def find(
    pictures: Candidates, config: DedupConfig, fixed: int = 0, embeddings: Embeddings | None = None
) -> Found:
    """Find each picture's keeper; the first `fixed` are others', and kept whatever they are."""
    same = _same_bytes(pictures, fixed)
    keeper = itself = np.arange(len(same))
    if config.distance is not None:
        rows = np.flatnonzero((same == itself) & pictures.hashed)
        near, _ = find_keepers(
            pictures.hashes[rows], config.distance, int(np.searchsorted(rows, fixed))
        )
        keeper = itself.copy()
        keeper[rows] = rows[near]
    numbers = None
    if embeddings is not None and config.similarity is not None:
        numbers = _numbers(embeddings, pictures, fixed)
        alone = (same == itself) & (keeper == itself) & (numbers >= 0)
        keeper = _with_alike(pictures, keeper, config, embeddings, numbers, alone, fixed)
    keeper = keeper[same]  # copies of what is a member have its keeper
    members = np.flatnonzero(keeper != itself)
    its = keeper[members]
    copies = Found(
        keeper,
        is_exact=(pictures.sha256 == pictures.sha256[keeper]).all(axis=1),
        is_near=np.ones(len(keeper), np.bool_),
        distance=np.zeros(len(keeper), np.int16),
        similarity=np.full(len(keeper), np.nan, np.float32),
    )
    copies.is_near[members], copies.distance[members] = _near(
        pictures, members, its, config.distance
    )
    if numbers is not None and embeddings is not None:
        embedded = (numbers[members] >= 0) & (numbers[its] >= 0)
        members, its = members[embedded], its[embedded]
        copies.similarity[members] = cosines(embeddings, numbers[members], numbers[its])
    return copies


def _numbers(embeddings: Embeddings, pictures: Candidates, fixed: int) -> NDArray[np.int64]:
    """Look up the embeddings of pictures, and say how many of ours have none."""
    numbers = numbers_of(embeddings, pictures.sha256)
    ours = numbers[fixed:]
    missing = int((ours < 0).sum())
    if missing and missing == len(ours):
        raise NoEmbeddings(
            "the index holds none of these pictures, by the SHA-256 of their bytes: index this "
            "run, or, where it has encoded its pictures again, its input"
        )
    if missing:
        _log.warning(
            "warning: %s of %s pictures are not in the index, and are compared without it",
            f"{missing:,}",
            f"{len(ours):,}",
        )
    return numbers


def _with_alike(
    pictures: Candidates,
    keeper: NDArray[np.int64],
    config: DedupConfig,
    embeddings: Embeddings,
    numbers: NDArray[np.int64],
    alone: NDArray[np.bool_],
    fixed: int,
) -> NDArray[np.int64]:
    """Let keepers by hash join those they are like.

    Their members go with them where they are near the new keeper, too, by either measure; the
    others are kept.
    """
    assert config.similarity is not None
    rows, keeper = np.flatnonzero(alone), keeper.copy()
    first = int(np.searchsorted(rows, fixed))
    keeper[rows] = rows[find_alike(embeddings, numbers[rows], config.similarity, first)]
    lost = np.flatnonzero(keeper[keeper] != keeper)
    second = keeper[keeper[lost]]
    stays, _ = _near(pictures, lost, second, config.distance)
    embedded = np.flatnonzero((numbers[lost] >= 0) & (numbers[second] >= 0))
    found = cosines(embeddings, numbers[lost[embedded]], numbers[second[embedded]])
    stays[embedded] |= found >= config.similarity
    keeper[lost] = np.where(stays, second, lost)
    return keeper


def _near(
    pictures: Candidates,
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    distance: int | None,
) -> tuple[NDArray[np.bool_], NDArray[np.int16]]:
    """Tell which pairs are near by their hashes, if these are compared, and how many bits apart."""
    close, apart = are_near(pictures.hashes[left], pictures.hashes[right], distance or 0)
    hashed = pictures.hashed[left] & pictures.hashed[right]
    return close & hashed & (distance is not None), apart


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
    unequal = np.where(copies.is_near[rows], NEAR, ALIKE)
    kinds = np.where(copies.is_exact[rows], EXACT, unequal)
    reasons = np.full(len(rows), str(SampleReason.DUPLICATE_IMAGE))
    places = _places(sides, pictures, rows)
    columns = {
        **places,
        "group": np.searchsorted(keepers, of),
        "kind": pa.array(kinds, pa.string(), mask=~is_member),
        "distance": pa.array(
            copies.distance[rows], pa.int16(), mask=~is_member | ~pictures.hashed[rows]
        ),
        "similarity": pa.array(copies.similarity[rows], from_pandas=True),
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
