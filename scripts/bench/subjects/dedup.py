"""Near-duplicates among made-up hashes: how many planted copies are found, in what time and memory.

Hashes are strangers' (random bits), but for copies of some (1 to `--distance` bits changed), and
one crowd of near-blank ones, of which few bits are set. Nothing is read from files.
"""

import argparse
import resource
import time

import numpy as np
from numpy.typing import NDArray

from pipeline.media.difference_hash import DISTANCE
from pipeline.views.dedup.candidates import Candidates
from pipeline.views.dedup.groups import DedupConfig, find
from pipeline.views.dedup.near import as_words

Bits = NDArray[np.uint8]
FEW_BITS = (12, 24)  # set in a near-blank hash


def make(count: int, copies: int, blank: int, distance: int) -> tuple[Bits, NDArray[np.int64]]:
    """Make hashes in random order, and say whose copy each is (itself, if nobody's)."""
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 256, (count, 32), dtype=np.uint8)
    first = count - copies  # copies stand behind their originals
    original = chance.integers(blank, blank + copies // 2, copies)
    hashes[first:] = hashes[original]
    flip(hashes[first:], chance.integers(1, distance + 1, copies), chance)
    hashes[:blank] = 0
    flip(hashes[:blank], chance.integers(*FEW_BITS, blank), chance)
    source = np.arange(count)
    source[first:] = original
    return hashes, source


def flip(hashes: Bits, bits: NDArray[np.int64], chance: np.random.Generator) -> None:
    """Change so many bits of each hash, none twice."""
    for begin in range(0, len(hashes), 10_000):
        part = hashes[begin : begin + 10_000]
        order = chance.random((len(part), 256)).argsort(axis=1)
        ranks = order.argsort(axis=1)
        part ^= np.packbits(ranks < bits[begin : begin + len(part), None], axis=1)


def main(o: argparse.Namespace) -> None:
    """Make hashes, find the groups, and print what came of it."""
    hashes, source = make(o.hashes, o.hashes // 100, o.blank, o.distance)
    count = len(hashes)
    pictures = Candidates(
        shard=np.zeros(count, np.int32),
        index=np.arange(count, dtype=np.int32),
        sha256=np.random.default_rng(1).integers(0, 2**63, (count, 2), dtype=np.uint64),
        hashes=as_words(hashes),
        hashed=np.ones(count, bool),
        worth=np.zeros(count),
    )
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    groups = find(pictures, DedupConfig("first", o.distance))
    wall_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
    copies = np.flatnonzero(source != np.arange(count))
    members = np.flatnonzero(groups.keeper != np.arange(count))
    strangers = members[(source[members] != source[groups.keeper[members]]) & (members >= o.blank)]
    recall = (groups.keeper[copies] == source[copies]).mean()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{count:,} hashes, {o.blank:,} near-blank, distance {o.distance}")
    print(f"recall {recall:.4f} of {len(copies):,} copies; strangers joined: {len(strangers)}")
    print(
        f"farthest member {groups.distance.max()} bits; keepers that are members: "
        f"{int((groups.keeper[groups.keeper] != groups.keeper).sum())}"
    )
    print(f"near-blank members: {int((members < o.blank).sum()):,}")
    print(f"{wall_s:.0f} s, {cpu_s:.0f} CPU s, {peak:.2f} GiB at most")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hashes", type=int, default=10_000_000)
    parser.add_argument("--blank", type=int, default=100_000)
    parser.add_argument("--distance", type=int, default=DISTANCE)
    main(parser.parse_args())
