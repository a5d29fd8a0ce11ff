"""Runs of pictures that are known by their hashes alone: no model, no file of a picture."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.inputs.reader import ShardState, State
from shards.inputs.shard import InputShard
from shards.run.attempt import start_attempt
from shards.run.commit import Commit, InputRecord, commit
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.store import Store
from shards.writer import ShardWriter

THRESHOLD = 0.5


@dataclass(frozen=True)
class Picture:
    """A picture: `bytes_of` names its bytes, `hash` its look; `itm` scores its only text."""

    key: str
    bytes_of: str
    hash: bytes | None
    side: int = 100
    itm: float = 0.9
    status: str = "ok"


def stranger(seed: int) -> bytes:
    """Return a difference hash like no other seed's."""
    return np.random.default_rng(seed).integers(0, 256, 32, dtype=np.uint8).tobytes()


def altered(hash: bytes, bits: int) -> bytes:
    """Change so many bits of a hash, spread evenly."""
    number = int.from_bytes(hash)
    for bit in range(bits):
        number ^= 1 << (bit * 256 // bits)
    return number.to_bytes(32)


def hashed_run(
    folder: Path, *shards: Sequence[Picture], version: int = 3, screens: bool = False
) -> Run:
    """Make a finished run of shards 000, 001, …; where it only screens, there are no texts."""
    identity: dict[str, Any] = {"output_version": version, "write": {"clean": "none"}}
    identity |= {"kind": "screen"} if screens else {"judge": {"threshold": {"web": THRESHOLD}}}
    inputs = [
        InputShard(f"/absent/{n:03}.tar", f"{n:03}", 1, None, 0.0) for n in range(len(shards))
    ]
    run = Run.create(Store(str(folder)), "", identity, {}, inputs)
    for listed, pictures in zip(run.inputs, shards, strict=True):
        _commit(run, listed, pictures, screens)
    write_snapshot(run)
    return run


def _commit(run: Run, listed: InputShard, pictures: Sequence[Picture], screens: bool) -> None:
    attempt = start_attempt(run, listed.shard)
    with ShardWriter(run.store, listed.shard, attempt, only_screens=screens) as writer:
        for index, picture in enumerate(pictures):
            is_ok = picture.status == "ok"
            facts: Any = {
                "index": index,
                "key": picture.key,
                "status": picture.status,
                "reason": None if is_ok else "image_blank",
                "width": picture.side,
                "height": picture.side,
                "sha256": hashlib.sha256(picture.bytes_of.encode()).hexdigest(),
                "phash": picture.hash,
                "web_text": picture.key,
            }
            if screens or not is_ok:
                writer.add(facts, [], [])
                continue
            keep = picture.itm >= THRESHOLD
            text: Any = {"text_no": 0, "origin": "web", "text": picture.key, "itm": picture.itm}
            reason = "kept" if keep else "itm_below_threshold"
            reason = "score_not_finite" if math.isnan(picture.itm) else reason
            writer.add(facts, [text], [{"text_no": 0, "keep": keep, "reason": reason}])
        files = tuple(writer.finish())
        counts = writer.counts
    done = Commit(
        shard=listed.shard,
        fingerprint=run.fingerprint,
        attempt=attempt,
        input=InputRecord(url=listed.url, size_bytes=1, mtime=0.0, sha256="0" * 64),
        state=ShardState(state=State.COMPLETE),
        files=files,
        counts=counts,
        environment={},
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:00:01+00:00",
    )
    assert commit(run, done)
