"""What is compared of a run's pictures: hashes, and what makes one the better of two.

Of 10 million pictures that is less than a gigabyte: no key, text or address is held.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.clean.facts import read_facts
from pipeline.media.ahead import read_ahead
from pipeline.views.dedup.near import Hashes, as_words
from shards.run.data import read_shard
from shards.run.exclusion import left_out_of, read_groups
from shards.run.run import Run
from shards.run.scoring.expression import Column
from shards.run.scoring.score_set import with_scores
from shards.run.snapshot import SnapshotShard
from shards.run.view import View
from shards.schema import GROUPS

KeepRule = Literal["largest", "score", "first"]
THREADS = 4
SHA_BYTES, HASH_BYTES = 32, 32
AVERAGED_SINCE = 3  # output version: the difference hash is taken from an averaged picture
_SAMPLES = ["index", "status", "sha256", "phash", "width", "height"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pictures by place (number of the shard, index), as columns of one length.

    `sha256` is its first half, which no chance makes equal; a picture without a difference hash is
    not `hashed`. `worth` is higher for the better picture.
    """

    shard: NDArray[np.int32]
    index: NDArray[np.int32]
    sha256: Hashes  # (n, 2)
    hashes: Hashes  # (n, 4)
    hashed: NDArray[np.bool_]
    worth: NDArray[np.float64]

    def __len__(self) -> int:
        """Count them."""
        return len(self.index)

    def taken(self, rows: NDArray[np.int64]) -> "Candidates":
        """Return some, in this order."""
        return Candidates(*(getattr(self, field.name)[rows] for field in fields(self)))


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Put parts behind each other."""
    columns = [[getattr(part, field.name) for part in parts] for field in fields(Candidates)]
    return Candidates(*(np.concatenate(column) for column in columns))


def hash_kind(run: Run) -> str:
    """Name how a run's difference hashes were made; those of different kinds say nothing."""
    version = run.identity.get("output_version", 1)
    return "averaged" if version >= AVERAGED_SINCE else "plain"


def read_candidates(run: Run, view: View, keep: KeepRule | None, first: int = 0) -> Candidates:
    """Read the pictures that a view keeps; without a rule all that have a hash, kept or not.

    Shards are numbered from `first` on.
    """
    shards: Sequence[SnapshotShard] = view.shards
    if keep == "score" and "." in view.by:
        shards = with_scores(run, shards, [view.by.partition(".")[0]])
    work = _Reading(run, view.by, _left_out(run, view), keep).of_shard
    numbered = list(enumerate(shards, first))
    ahead = read_ahead(numbered, work, lambda _: 0, 2 * THREADS, threads=THREADS)
    return joined([_none(), *(part for _, part in ahead)])


def _left_out(run: Run, view: View) -> pa.Table:
    """Read what a view leaves out where no decision on a text tells: in a run that has none."""
    groups = read_groups(run, view.excluded) if run.only_screens else GROUPS.empty_table()
    return left_out_of(groups).select(["shard", "index"])


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the reading of each shard needs."""

    run: Run
    by: str
    left_out: pa.Table
    keep: KeepRule | None

    def of_shard(self, numbered: tuple[int, SnapshotShard]) -> Candidates:
        """Read the pictures of a shard."""
        number, shard = numbered
        samples = _read(self.run, shard, "samples", _SAMPLES)
        wanted = pc.is_valid(samples["sha256"]).to_numpy()
        if self.keep is not None:
            wanted &= pc.equal(samples["status"], "ok").to_numpy()
            wanted &= self._is_kept(shard, samples["index"].to_numpy())
        samples = samples.filter(pa.array(wanted))
        hashed = pc.is_valid(samples["phash"])
        hashes = samples["phash"].fill_null(bytes(HASH_BYTES)).to_pylist()
        sha256 = bytes.fromhex("".join(samples["sha256"].to_pylist()))
        return Candidates(
            shard=np.full(len(samples), number, np.int32),
            index=samples["index"].to_numpy(),
            sha256=_rows(sha256, SHA_BYTES)[:, : SHA_BYTES // 2].copy().view(np.uint64),
            hashes=as_words(_rows(b"".join(hashes), HASH_BYTES)),
            hashed=hashed.to_numpy(),
            worth=self._worth(shard, samples),
        )

    def _is_kept(self, shard: SnapshotShard, indices: NDArray[np.int32]) -> NDArray[np.bool_]:
        if self.run.only_screens:
            out = self.left_out.filter(pc.equal(self.left_out["shard"], shard.shard))
            return ~np.isin(indices, out["index"].to_numpy())
        decisions = read_shard(self.run, shard, "decisions", ["index", "keep"])
        return np.isin(indices, decisions["index"].filter(decisions["keep"]).to_numpy())

    def _worth(self, shard: SnapshotShard, samples: pa.Table) -> NDArray[np.float64]:
        if self.keep == "largest":
            width, height = (
                samples[side].fill_null(0).to_numpy().astype(np.float64)
                for side in ("width", "height")
            )
            return width * height
        if self.keep != "score" or self.run.only_screens:
            return np.zeros(len(samples))
        scores = read_facts(self.run, shard, [Column(self.by, "number", is_score=True)])[self.by]
        numbers = np.nan_to_num(scores.to_numpy().astype(np.float64), nan=-np.inf)
        best = np.full(shard.counts.samples_in, -np.inf)
        np.maximum.at(best, _read(self.run, shard, "texts", ["index"])["index"].to_numpy(), numbers)
        return best[samples["index"].to_numpy()]


def _rows(data: bytes, size: int) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8).reshape(-1, size)


def _none() -> Candidates:
    numbers = np.empty(0, np.int32)
    return Candidates(
        numbers,
        numbers,
        np.empty((0, 2), np.uint64),
        np.empty((0, 4), np.uint64),
        np.empty(0, np.bool_),
        np.empty(0),
    )


def _read(run: Run, shard: SnapshotShard, table: str, columns: list[str]) -> pa.Table:
    return read_shard(run, shard, table, columns)
