"""Attempts on a shard: recorded before the work, so that one that never ends is counted too.

An attempt *ends* by a commit or by an outcome of its own. One without either, or whose death was
seen, is *lost*; lost attempts make the next ones careful, and at last put the shard aside.
"""

import logging
import os
import secrets
import socket
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from shards.errors import DamagedFile
from shards.run.record import as_model, read_record, write_record
from shards.run.run import Run

SAFE_FROM = 3  # lost attempts; the next one works in safe mode
DEATHS_TO_QUARANTINE = 2  # in safe mode, each seen by a process that lived on

_log = logging.getLogger(__name__)
_FROZEN = ConfigDict(frozen=True, extra="forbid")


class Ending(StrEnum):
    """How an attempt ended that made no commit."""

    RELEASED = "released"  # told to stop, by SIGTERM or by the end of its driver's run
    FAILED = "failed"  # an error that says what is wrong
    DIED = "died"  # the worker died, hung, or ran out of memory


class Attempt(BaseModel):
    """One attempt, as `attempts/SHARD/ATTEMPT.json` records it; `worker` names who made it."""

    model_config = _FROZEN
    shard: str
    attempt: str
    started: str
    safe: bool = False
    worker: str | None = None
    host: str | None = None
    pid: int | None = None
    ending: Ending | None = None
    detail: str | None = None

    @property
    def lost(self) -> bool:
        """Whether it came to nothing, for no reason that anyone can give."""
        return self.ending in (None, Ending.DIED)


class Quarantine(BaseModel):
    """Why a shard was put aside: safe mode itself died, and could not name a sample."""

    model_config = _FROZEN
    shard: str
    why: str
    attempts: tuple[str, ...]
    written: str


def start_attempt(run: Run, shard: str, safe: bool = False, worker: str | None = None) -> str:
    """Record, before any work, that an attempt on a shard begins; give its random id."""
    begun = Attempt(
        shard=shard,
        attempt=secrets.token_hex(8),
        started=_now(),
        safe=safe,
        worker=worker,
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    _put(run, begun)
    return begun.attempt


def end_attempt(run: Run, shard: str, attempt: str, ending: Ending, detail: str = "") -> None:
    """Record how an attempt ended."""
    begun = _read(run, f"attempts/{shard}/{attempt}.json")
    if begun is not None:
        _put(run, begun.model_copy(update={"ending": ending, "detail": detail[:2000] or None}))


def end_attempts_of(run: Run, shard: str, worker: str, ending: Ending, detail: str = "") -> None:
    """Record, for a worker that cannot any more, how its attempt on a shard ended."""
    for begun in read_attempts(run, shard):
        if begun.worker == worker and begun.ending is None:
            end_attempt(run, shard, begun.attempt, ending, detail)


def read_attempts(run: Run, shard: str) -> list[Attempt]:
    """Return the attempts on a shard, those under way too, in the order in which they began."""
    found = [_read(run, name) for name in run.store.list(f"attempts/{shard}")]
    return sorted((one for one in found if one is not None), key=lambda one: one.started)


def quarantine(run: Run, shard: str, deaths: list[Attempt]) -> Quarantine:
    """Put a shard aside, so that the run can be finished without it."""
    aside = Quarantine(
        shard=shard,
        why=f"safe mode ended {len(deaths)} times without naming a sample; the last time: "
        f"{deaths[-1].detail or 'no word'}",
        attempts=tuple(one.attempt for one in deaths),
        written=_now(),
    )
    run.store.create(f"quarantine/{shard}.json", write_record(aside.model_dump(mode="json")))
    return aside


def read_quarantined(run: Run) -> dict[str, Quarantine]:
    """Return the shards put aside, by SHARD; one that is committed all the same counts as that."""
    found = run.store.read_many(run.store.list("quarantine"))
    asides = {}
    for name, data in found.items():
        try:
            aside = parse_quarantine(run, name, data)
        except DamagedFile as error:
            _log.warning("it counts as absent: %s", error)
            continue
        asides[aside.shard] = aside
    return asides


def parse_quarantine(run: Run, name: str, data: bytes) -> Quarantine:
    """Read the record of a shard that was put aside; raises DamagedFile."""
    where = run.store.url(name)
    aside = as_model(Quarantine, read_record(data, where), where)
    if name != f"quarantine/{aside.shard}.json":
        raise DamagedFile(where, "the record of a shard under its name", aside.shard)
    return aside


def _put(run: Run, one: Attempt) -> None:
    name = f"attempts/{one.shard}/{one.attempt}.json"
    run.store.put(name, write_record(one.model_dump(mode="json")))


def _read(run: Run, name: str) -> Attempt | None:
    where = run.store.url(name)
    try:
        return as_model(Attempt, read_record(run.store.read(name), where), where)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        _log.warning("the record of an attempt is left out: %s", error)
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat()
