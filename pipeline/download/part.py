"""Does one part of a list: fetches its addresses, packs what came, and commits what became of all.

An outage is no result: where nobody answers any more, nothing is recorded, and the part is done
again by a later command.
"""

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.download.environment import VERSION
from pipeline.download.fetcher.process import Fetcher, FetcherOptions
from shards.download.record import (
    Download,
    DownloadCounts,
    PartCommit,
    commit_part,
    new_attempt,
    now,
    numbered,
    publish,
    tar_name,
)
from shards.download.tables import ROWS, write_rows
from shards.download.tar import PartTar, key_of
from shards.errors import CapfiltError
from shards.reasons import DownloadReason, is_worth_a_retry

OUTAGE_FROM = 20  # addresses in a row, as they were asked for, that nobody answered for
OUTAGE_SHARE = 0.5  # of all addresses of a part, if there are so many

Row = dict[str, Any]


class Outage(CapfiltError, OSError):  # noqa: N818 - reads as what happened
    """Nobody answers any more: the network is down, or the one server that a list is about."""


@dataclass(frozen=True, slots=True)
class PartTask:
    """A part to be done: for the first time, or again for the rows that failed before."""

    part: str
    before: PartCommit | None = None

    @property
    def shard(self) -> str:
        """Name what comes of it."""
        return numbered(self.part, self.before.retry + 1 if self.before else 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an address: where its picture lies, or why there is none."""

    offset: int = 0
    size_bytes: int = 0
    sha256: str | None = None
    reason: str | None = None
    detail: str | None = None


def do_part(
    download: Download,
    task: PartTask,
    fetcher: Fetcher,
    heard: Callable[[Mapping[str, int]], None],
    outage_is_news: bool = True,
) -> PartCommit:
    """Fetch, pack and commit a part; return its commit, be it another's.

    `outage_is_news`: without it, rows that nobody answered for count as failed, however many.
    Raises Outage, FetcherLost, and OSError.
    """
    started, attempt, store = now(), new_attempt(), download.store
    listed = download.listed(task.part)
    before = download.rows(task.before) if task.before else None
    wanted = _wanted(listed, before)
    with store.staging() as folder:
        answers = _fetch(folder, wanted, fetcher, heard, outage_is_news) if wanted else {}
        tar = PartTar(folder / "tar")
        rows = _pack(folder, tar, task, listed, before, answers)
        tar.close()
        write_rows(folder / "rows", rows, ROWS)
        name = f"record/rows/{task.shard}-{attempt}"
        pictures = None
        if tar.samples:
            pictures = publish(store, tar.path, "pictures", f"{name}.pictures", tar.samples)
        table = publish(store, folder / "rows", "rows", f"{name}.parquet", len(rows))
    tars = (*(task.before.tars if task.before else ()), *_tars(task, pictures is not None))
    done = PartCommit(
        part=task.part,
        retry=task.before.retry + 1 if task.before else 0,
        attempt=attempt,
        fingerprint=download.fingerprint,
        rows=table,
        pictures=pictures,
        tars=tars,
        counts=count_rows(rows),
        worth_a_retry=sum(map(_may_go_better, rows)),
        environment=_environment(fetcher.options),
        started=started,
        ended=now(),
    )
    commit_part(download, done)
    return done


def count_rows(rows: Sequence[Row]) -> DownloadCounts:
    """Count what became of rows."""
    reasons = Counter(row["reason"] for row in rows if row["status"] != "ok")
    return DownloadCounts(
        rows=len(rows),
        ok=len(rows) - reasons.total(),
        failed=reasons.total(),
        failed_by_reason=dict(sorted(reasons.items())),
        size_bytes=sum(row["bytes"] or 0 for row in rows),
    )


def _may_go_better(row: Row) -> bool:
    return is_worth_a_retry(row["reason"], row["detail"])


def _tars(task: PartTask, has_pictures: bool) -> tuple[str, ...]:
    return (tar_name(task.shard),) if has_pictures else ()


def _wanted(listed: Sequence[Row], before: Sequence[Row] | None) -> list[str]:
    """List the addresses to ask for, each once: all, or those that may go better this time."""
    olds: Sequence[Row | None] = before if before is not None else [None] * len(listed)
    addresses = {
        row["address"]: None
        for row, old in zip(listed, olds, strict=True)
        if row["address"] is not None and (old is None or _may_go_better(old))
    }
    return list(addresses)


def _fetch(
    folder: Path,
    addresses: Sequence[str],
    fetcher: Fetcher,
    heard: Callable[[Mapping[str, int]], None],
    outage_is_news: bool,
) -> dict[str, Answer]:
    table = pa.table({"url": pa.array(addresses, pa.string())})
    with pa.ipc.new_file(str(folder / "urls.arrow"), table.schema) as writer:
        writer.write_table(table)
    fetcher.fetch(folder, heard)
    with (folder / "rows.jsonl").open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    if {line["row"] for line in lines} != set(range(len(addresses))):
        raise RuntimeError(f"img2dataset lost rows: {len(lines)} of {len(addresses)} are told of")
    if outage_is_news:
        _refuse_outage(lines)
    return {addresses[line["row"]]: _answer(line) for line in lines}


def _answer(line: Mapping[str, Any]) -> Answer:
    if "reason" in line:
        return Answer(reason=line["reason"], detail=line["detail"])
    return Answer(line["offset"], line["bytes"], line["sha256"])


def _refuse_outage(lines: Sequence[Mapping[str, Any]]) -> None:
    """Raise Outage where it looks as if the network, not an address, were at fault.

    Slow failures end last whatever they are, so what counts is which addresses were asked for
    after the last answer: while some server lives, those are few.
    """
    unanswered = [line for line in lines if not line.get("answered", True)]
    others = [line["at"] for line in lines if line.get("answered", True)]
    unanswered = [line for line in unanswered if line["reason"] != DownloadReason.BLOCKED_ADDRESS]
    since = [line for line in unanswered if line["begun"] > max(others, default=0.0)]
    is_large = len(lines) >= OUTAGE_FROM
    if (
        len(since) >= OUTAGE_FROM
        or (unanswered and not others)
        or (is_large and len(unanswered) > OUTAGE_SHARE * len(lines))
    ):
        raise Outage(
            f"of {len(lines):,} addresses, nobody answered for {len(unanswered):,}, "
            f"{len(since):,} of them in a row at the end (the last: {unanswered[-1]['detail']})"
        )


def _pack(
    folder: Path,
    tar: PartTar,
    task: PartTask,
    listed: Sequence[Row],
    before: Sequence[Row] | None,
    answers: Mapping[str, Answer],
) -> list[Row]:
    """Write the pictures that came into the tar, and say what became of each row."""
    rows, seen = [], dict[tuple[str, str | None], int]()
    pictures = folder / "pictures"
    pictures.touch()  # where nothing was asked for
    with pictures.open("rb") as file:
        for number, row in enumerate(listed):
            old = before[number] if before else None
            again = seen.setdefault((str(row["address"]), row["text"]), row["row"])
            is_new = row["address"] in answers and (old is None or _may_go_better(old))
            if row["address"] is not None and again != row["row"]:
                rows.append(_failed(row, DownloadReason.DUPLICATE_URL, f"as row {again}", 0))
            elif old is not None and not is_new:
                rows.append(old)
            elif row["address"] is None:
                rows.append(_failed(row, row["reason"], row["detail"], 0))
            else:
                tries = (old["tries"] if old else 0) + 1
                rows.append(_packed(file, tar, task, row, answers[row["address"]], tries))
    return rows


def _packed(
    file: BinaryIO, tar: PartTar, task: PartTask, row: Row, answer: Answer, tries: int
) -> Row:
    """Pack a picture that came, unless it is not the one that the list means."""
    if answer.reason is not None:
        return _failed(row, answer.reason, answer.detail, tries)
    file.seek(answer.offset)
    picture = file.read(answer.size_bytes)
    md5 = hashlib.md5(picture, usedforsecurity=False).hexdigest() if row["md5"] else None
    for kind, expected, actual in (
        ("sha256", row["sha256"], answer.sha256),
        ("md5", row["md5"], md5),
    ):
        if expected and expected != actual:
            detail = f"{kind} {actual}, expected {expected}"
            return _failed(row, DownloadReason.HASH_MISMATCH, detail, tries)
    key = key_of(row["row"])
    tar.add(key, picture, row["text"], _facts(row, key, answer))
    return _row(row, tries) | {
        "status": "ok",
        "tar": tar_name(task.shard),
        "key": key,
        "bytes": answer.size_bytes,
        "sha256": answer.sha256,
    }


def _facts(row: Row, key: str, answer: Answer) -> dict[str, Any]:
    """Say what stands beside a picture: where it is from, and the list's other columns."""
    facts = {"key": key, "url": row["url"], "sha256": answer.sha256, "row": row["row"]}
    if row["columns"] is not None:
        facts["columns"] = json.loads(row["columns"])
    return facts


def _failed(row: Row, reason: str, detail: str | None, tries: int) -> Row:
    return _row(row, tries) | {"status": "failed", "reason": str(reason), "detail": detail}


def _row(row: Row, tries: int) -> Row:
    empty = dict.fromkeys(ROWS.names)
    return empty | {"row": row["row"], "url": row["url"], "text": row["text"], "tries": tries}


def _environment(options: FetcherOptions) -> dict[str, Any]:
    return {
        "img2dataset": VERSION,
        "host": platform.node(),
        "threads": options.threads,
        "allow_private": options.allow_private,
        "timeout_s": options.bounds.timeout_s,
        "deadline_s": options.bounds.deadline_s,
        "most_bytes": options.bounds.most_bytes,
    }


def pending_tasks(
    names: Sequence[str], commits: Mapping[str, PartCommit], retry: bool
) -> Iterator[PartTask]:
    """Yield the parts that are not done, and with `retry` those with rows worth another try."""
    for name in names:
        commit = commits.get(name)
        if commit is None:
            yield PartTask(name)
        elif retry and commit.worth_a_retry:
            yield PartTask(name, commit)
