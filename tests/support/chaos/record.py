"""What a run folder says at this moment, read from its files alone: what is open, what is there."""

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.store import Store


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """An attempt with a record and no ending, on a shard that has no commit."""

    shard: str
    attempt: str
    pid: int
    safe: bool


class RunRecord:
    """Reads one run folder, local or on S3, while others write it."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self._struck: set[str] = set()
        self._pids: dict[str, int] = {}  # of attempts that were read before

    def committed(self) -> set[str]:
        """Name the shards that have a commit."""
        return {Path(name).stem for name in self._names("commits")}

    def attempts(self) -> int:
        """Count the attempts so far."""
        return sum(1 for _ in self._names("attempts"))

    def open(self, pids: Collection[int] | None = None) -> dict[str, OpenAttempt]:
        """Find the open attempts of some processes (of all), by id; none that was struck before."""
        committed, attempts = self.committed(), {}
        for name in list(self._names("attempts")):
            _, shard, file = name.split("/")
            attempt = Path(file).stem
            if shard in committed or attempt in self._struck:
                continue
            if pids is not None and self._pids.get(attempt, next(iter(pids))) not in pids:
                continue
            record = self._read(name)
            if record and record["ending"] is None:
                attempts[attempt] = OpenAttempt(shard, attempt, record["pid"], record["safe"])
                self._pids[attempt] = record["pid"]
        return {
            name: attempt
            for name, attempt in attempts.items()
            if pids is None or attempt.pid in pids
        }

    def note_struck(self, attempts: Collection[str]) -> None:
        """Leave attempts out from now on: their processes are gone, and pids come back."""
        self._struck.update(attempts)

    def published(self) -> set[str]:
        """Name the attempts that have their first data file, committed or not."""
        return {Path(name).stem.rpartition("-")[2] for name in self._names("data/samples")}

    def commits(self) -> dict[str, bytes]:
        """Read all commits, byte for byte."""
        return self.store.read_many(list(self._names("commits")))

    def _names(self, folder: str) -> Iterator[str]:
        if not self.store.is_local:
            yield from self.store.list(folder)
            return
        root = self.store.url()
        for top, _, files in os.walk(f"{root}/{folder}"):  # quicker than fsspec's find
            yield from (f"{top[len(root) + 1 :]}/{file}" for file in files if file[0] != ".")

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self.store.read(name)))
        except FileNotFoundError:
            return None
