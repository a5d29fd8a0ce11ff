"""Batches, threads and bounds of memory change the pace of the work, not what is written."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import pipeline.clean.line.batch
import pipeline.clean.line.reading
import pipeline.clean.line.ring
import pipeline.media.ahead
import shards.inputs.opening
from pipeline.clean.prepare import ExecutionConfig
from shards.inputs.reader import ShardReader
from shards.run.commit import Commit
from shards.run.run import Run
from shards.schema import SCHEMAS
from tests.support.bench import Bench

Row = dict[str, Any]
SCORES = ("itm", "itm_logit", "itc", "logprob")


# --- The pace changes nothing. ---


def same_but_scores(rows: list[Row], expected: list[Row]) -> bool:
    def bare(table: list[Row]) -> list[Row]:
        return [{name: row[name] for name in row if name not in SCORES} for row in table]

    return bare(rows) == bare(expected) and all(
        a[name] == b[name] or abs(a[name] - b[name]) < 1e-5
        for a, b in zip(rows, expected, strict=True)
        for name in SCORES
        if name in a
    )


@pytest.fixture
def slow_run(bench: Bench, shard: Path) -> Run:
    return bench.clean(shard, pace=ExecutionConfig(batch_size=1, decode_threads=1))


@pytest.mark.parametrize(
    "pace", [ExecutionConfig(2, 4), ExecutionConfig(5, 2), ExecutionConfig(64, 3)]
)
def test_rows_do_not_depend_on_the_pace(
    bench: Bench, shard: Path, slow_run: Run, pace: ExecutionConfig
) -> None:
    run = bench.clean(shard, pace=pace)
    for table in SCHEMAS:
        assert same_but_scores(bench.rows(run, table), bench.rows(slow_run, table)), table
    one, other = bench.clean_members(run), bench.clean_members(slow_run)
    assert list(one) == list(other)
    assert all(one[name] == other[name] for name in one if not name.endswith(".json"))


def test_rows_do_not_depend_on_the_bounds_of_memory(
    bench: Bench, shard: Path, slow_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.clean.line.batch, "MAX_BATCH_BYTES", 9_000)
    monkeypatch.setattr(pipeline.clean.line.batch, "MAX_BATCH_ROWS", 3)
    run = bench.clean(shard)
    for table in SCHEMAS:
        assert same_but_scores(bench.rows(run, table), bench.rows(slow_run, table)), table


def test_a_draw_depends_on_seed_shard_and_key_only(
    bench: Bench, members: Any, tar_of: Any, load_captioner: Any
) -> None:
    alone = [(name, data) for name, data in members if name.startswith("k08")]
    rest = [(name, data) for name, data in members if not name.startswith("k08")]

    def written(run: Run, key: str = "k08") -> list[str]:
        index = next(row["index"] for row in bench.rows(run, "samples") if row["key"] == key)
        return [
            row["text"]
            for row in bench.rows(run, "texts")
            if row["index"] == index and row["author"]
        ]

    first = written(bench.clean(bench.put("00000", tar_of(alone))))
    assert written(bench.clean(bench.put("00000", tar_of(rest + alone)))) == first
    texts = [(name, b"other" if name.endswith("txt") else data) for name, data in alone]
    assert written(bench.clean(bench.put("00000", tar_of(texts)))) == first
    assert written(bench.clean(bench.put("00001", tar_of(alone)))) != first
    renamed = [(name.replace("k08", "k99"), data) for name, data in alone]
    assert written(bench.clean(bench.put("00000", tar_of(renamed))), "k99") != first
    bench.captioner = load_captioner(bench.config.model_copy(update={"seed": 1}))
    assert written(bench.clean(bench.put("00000", tar_of(alone)), seed=1)) != first


# --- Memory is bounded. ---


class Watched(ShardReader):
    """A reader that tells how far it was read."""

    reach = 0

    def __iter__(self) -> Iterator[Any]:
        for raw in super().__iter__():
            Watched.reach = raw.end_offset
            yield raw


@pytest.mark.parametrize("bound", [10_000, 40_000])
def test_what_waits_is_bounded_in_bytes(
    bench: Bench, tar_of: Any, noise: Any, encode: Any, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    given = []
    for n in range(60):
        given.append((f"{n:03}.png", encode(noise(32, 32, seed=n), "PNG")))
        given.append((f"{n:03}.txt", b"a cat"))
    path = bench.put("many", tar_of(given))
    sample_bytes = path.stat().st_size // 60 + 2048
    run, config = bench.run(path)
    monkeypatch.setattr(pipeline.clean.line.batch, "MAX_BATCH_BYTES", bound)
    monkeypatch.setattr(pipeline.clean.line.ring, "MAX_WAITING_BYTES", bound)
    monkeypatch.setattr(pipeline.media.ahead, "MAX_WAITING_BYTES", bound)
    monkeypatch.setattr(shards.inputs.opening, "ShardReader", Watched)
    steps, ahead = [0], []

    def report(_: int, size_bytes: int) -> None:
        steps.append(size_bytes)
        ahead.append(Watched.reach - size_bytes)

    bench.cleaner(run, config, pace=ExecutionConfig(batch_size=50)).clean(run.inputs[0], report)
    batches = [later - earlier for earlier, later in pairwise(steps)]
    batches.pop()  # the last one's bytes hold the padding at the end of the tar
    # what is decoded ahead, a batch that waits for room, and what has room
    assert max(ahead) <= 3 * (bound + sample_bytes)
    assert max(batches) <= bound + sample_bytes
    assert max(batches) > bound / 2


def test_rejected_samples_do_not_pile_up(
    bench: Bench, tar_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.put("bad", tar_of([(f"{n:03}.jpg", b"no picture") for n in range(50)]))
    run, config = bench.run(path)
    monkeypatch.setattr(pipeline.clean.line.batch, "MAX_BATCH_ROWS", 12)
    heard: list[int] = []
    done = bench.cleaner(run, config).clean(run.inputs[0], lambda samples, _: heard.append(samples))
    assert heard == [12, 24, 36, 48, 50]
    assert isinstance(done, Commit)
    assert done.counts.rejected_by_reason == {"image_undecodable": 50}
