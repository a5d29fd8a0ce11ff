"""Runs over shards, made by cleaners in this process with the tiny models."""

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from pipeline.clean.config import CleanConfig, identity
from pipeline.clean.prepare import ExecutionConfig
from pipeline.clean.shard import ShardCleaner
from shards.inputs.listing import list_inputs
from shards.run.commit import read_commit
from shards.run.run import Run
from shards.run.verify.run import verify_run
from shards.store import Store
from tests.support.tars import read_members

Row = dict[str, Any]
Models = tuple[list[Any], list[Any]]  # captioners and scorers


class Bench:
    """Makes runs over shards, and cleaners for them."""

    def __init__(
        self, folder: Path, config: CleanConfig, captioner: BlipCaptioner, scorer: Filter
    ) -> None:
        self.folder, self.config = folder, config
        self.captioner, self.scorer = captioner, scorer
        self._runs = 0

    def put(self, name: str, data: bytes) -> Path:
        path = self.folder / "web" / f"{name}.tar"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    def run(
        self, *inputs: Path, models: Models | None = None, **changed: Any
    ) -> tuple[Run, CleanConfig]:
        self._runs += 1
        config = self.config.model_copy(update=changed)
        captioners, scorers = models or ([self.captioner], [self.scorer])
        identity_ = identity(config, captioners, scorers)
        listed = list_inputs([str(path) for path in inputs])
        folder = self.folder / f"run{self._runs}"
        return Run.create(Store(str(folder)), "", identity_, {}, listed), config

    def cleaner(self, run: Run, config: CleanConfig, **other: Any) -> ShardCleaner:
        one = [other.get("captioner", self.captioner)], [other.get("scorer", self.scorer)]
        captioners, scorers = other.get("models") or one
        pace = other.get("pace", ExecutionConfig())
        return ShardCleaner(run, config, captioners, scorers, pace)

    def clean(
        self,
        *inputs: Path,
        pace: ExecutionConfig | None = None,
        models: Models | None = None,
        **changed: Any,
    ) -> Run:
        """Clean all shards of a new run."""
        run, config = self.run(*inputs, models=models, **changed)
        cleaner = self.cleaner(run, config, pace=pace or ExecutionConfig(), models=models)
        for shard in run.inputs:
            cleaner.clean(shard, self.ignore)
        assert verify_run(run).problems == ()
        return run

    @staticmethod
    def ignore(samples: int, size_bytes: int) -> None:
        """Hear how far it is, and say nothing."""

    @staticmethod
    def rows(run: Run, table: str, shard: str | None = None) -> list[Row]:
        done = read_commit(run, shard or run.shards[0])
        assert done is not None
        file = done.file(table)
        assert file is not None
        found: list[Row] = pq.read_table(io.BytesIO(run.store.read(file.name))).to_pylist()
        return found

    @staticmethod
    def clean_members(run: Run, shard: str | None = None) -> dict[str, bytes]:
        done = read_commit(run, shard or run.shards[0])
        assert done is not None
        file = done.file("clean")
        assert file is not None
        return dict(read_members(run.store.read(file.name)))
