"""A sample of a cleaning, by one worker in this process."""

import json
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.engines.engine import ShardResult
from flows.recipe import EngineConfig, Recipe
from flows.stages.estimate import sample as module
from flows.stages.estimate.sample import (
    EmptySample,
    Sample,
    SampleConfig,
    block_sizes,
    enough_samples,
    take_sample,
)
from flows.stages.estimate.sample import process_age_s as age_s
from flows.stages.resolve import resolve
from pipeline.clean.lists import ListError
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.inputs.listing import list_inputs
from shards.run.commit import read_commits
from shards.run.run import Run
from shards.store import Store
from tests.support.driving import committed, table
from tests.support.tars import read_members


class Watch:
    """Counts what it hears of."""

    def __init__(self) -> None:
        self.ends = 0

    def under_way(self, samples: int, size_bytes: int) -> None: ...

    def ended(self, _: ShardResult) -> None:
        self.ends += 1


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 40 toy pictures."""
    folder = tmp_path_factory.mktemp("web")
    write_toy_world(folder, ToyWorldConfig(samples=120, samples_per_shard=40, image_px=32))
    return folder


def sample(web: Path, folder: Path, config: SampleConfig, watch: Any = None, **more: Any) -> Sample:
    recipe = Recipe.model_validate(
        {
            "input": {"urls": [str(web)]},
            "output": str(folder / "never"),
            "dtype": "fp32",
            "caption": {"model": "tiny-captioner"},
            "score": {"model": "tiny-filter"},
            "engine": {"kind": "local", "batch_size": 4},
            **more,
        }
    )
    resolved = resolve(recipe, Store(recipe.output))
    shards = list_inputs([str(web)])
    return take_sample(resolved, shards, str(folder / "sample"), config, watch or Watch())


def test_a_sample_is_cleaned_as_a_run_of_its_own(web: Path, tmp_path: Path) -> None:
    watch = Watch()
    taken = sample(web, tmp_path, SampleConfig(48), watch)
    run = tmp_path / "sample" / "run"
    assert sum(block.samples for block in taken.blocks) == 48
    assert taken.result.statistics["samples_in"] == 48
    assert taken.result.exit_code == 0
    assert watch.ends == len(taken.blocks) == len(committed(run))
    assert taken.timed == len(taken.blocks) - 1  # the first is a start's
    kept = sum(row[0] for row in [(block.kept,) for block in taken.blocks])
    assert kept == taken.result.statistics["kept"]
    whole = Counter(
        data for tar in web.iterdir() for name, data in read_members(tar) if name.endswith(".png")
    )
    inputs = (tmp_path / "sample" / "input").iterdir()
    pictures = Counter(
        data for tar in inputs for name, data in read_members(tar) if name.endswith(".png")
    )
    assert pictures.total() == 48
    assert pictures <= whole
    assert len(table(run, "samples")) == 48
    assert not (tmp_path / "never").exists()
    files = [f for c in run.glob("commits/*.json") for f in json.loads(c.read_bytes())["files"]]
    assert sum(f["size_bytes"] for f in files) == sum(
        sum(block.output_bytes.values()) for block in taken.blocks
    )
    assert Run.open(str(run)).identity["dtype"] == "fp32"
    assert 100e6 < taken.peak_memory_bytes < 100e9


def test_its_times_fill_the_time_that_it_took(web: Path, tmp_path: Path) -> None:
    before, began = age_s(), time.monotonic()
    taken = sample(web, tmp_path, SampleConfig(48))
    passed = time.monotonic() - began
    work = sum(block.seconds or 0 for block in taken.blocks)
    assert 0 < work < passed
    assert before < taken.start_s < before + passed + 1


def test_the_clocks_of_workers_may_be_wrong(
    web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead:  # by an hour, of those on which shards are committed
        def __getattr__(self, name: str) -> Any:
            return getattr(time, name)

        def time(self) -> float:
            return time.time() + 3600

    monkeypatch.setattr(module, "time", Ahead())
    taken = sample(web, tmp_path, SampleConfig(48, budget_s=1800.0))
    assert sum(block.samples for block in taken.blocks) == 48
    assert taken.start_s < 1800


def test_the_budget_ends_it_once_there_is_enough(web: Path, tmp_path: Path) -> None:
    taken = sample(web, tmp_path, SampleConfig(120, budget_s=0.0))
    assert taken.timed == 5
    assert len(taken.blocks) in (6, 7)  # a shard begun ahead may be committed by then
    assert sum(block.samples for block in taken.blocks) < 60


def test_all_is_taken_where_more_is_wanted(web: Path, tmp_path: Path) -> None:
    taken = sample(web, tmp_path, SampleConfig(10_000))
    assert sum(block.samples for block in taken.blocks) == 120


def test_what_is_listed_to_be_skipped_is_skipped_in_the_sample(web: Path, tmp_path: Path) -> None:
    tars = sorted(web.glob("*.tar"))
    keys = {tar.stem: [Path(name).stem for name, _ in read_members(tar)] for tar in tars}
    lines = {f"{shard}/{key}" for shard, of_shard in keys.items() for key in of_shard[:40]}
    (tmp_path / "skip").write_text("\n".join(lines))
    done = sample(web, tmp_path, SampleConfig(1_000), skip=str(tmp_path / "skip"))
    counted = done.result.statistics["rejected_by_reason"]
    assert counted == {"skipped": len(lines)}
    assert "to_skip" not in done.result.statistics


def test_texts_from_outside_come_to_the_samples_that_are_drawn(web: Path, tmp_path: Path) -> None:
    rows: list[dict[str, str | None]] = []
    for tar in sorted(web.glob("*.tar"))[:3]:
        keys = [Path(name).stem for name, _ in read_members(tar)]
        rows += [{"shard": tar.stem, "key": key, "text": f"of {key}"} for key in sorted(set(keys))]
    rows.append({"shard": None, "key": rows[0]["key"], "text": "of any shard"})
    rows.append({"shard": "elsewhere", "key": rows[0]["key"], "text": "of another input"})
    path = tmp_path / "texts.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    thresholds = dict.fromkeys(("web", "synthetic", "imported"), 0.5)
    judged = {"threshold": thresholds}
    done = sample(web, tmp_path, SampleConfig(1_000), candidates=str(path), judge=judged)
    same_key = sum(row["key"] == rows[0]["key"] for row in rows[:-2])
    given = done.result.statistics["texts"]["imported"]["in"]
    assert given == len(rows) - 2 + same_key


def test_a_list_of_another_input_is_refused(web: Path, tmp_path: Path) -> None:
    (tmp_path / "skip").write_text("elsewhere/1")
    with pytest.raises(ListError, match="names 'elsewhere' and no shard of this input"):
        sample(web, tmp_path, SampleConfig(32), skip=str(tmp_path / "skip"))


def test_an_input_without_samples_is_told(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.tar").write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(EmptySample, match=r"no sample was found in 1 input shard.*a\.tar"):
        sample(tmp_path / "web", tmp_path, SampleConfig(32))


def test_small_shards_are_one_batch_or_four() -> None:
    assert list(block_sizes(200, 16)) == [16, 16, 64, 16, 16, 64, 8]
    assert sum(block_sizes(2_000, 16)) == 2_000
    assert list(block_sizes(5, 16)) == [5]


def test_the_age_of_this_process() -> None:
    assert age_s() == pytest.approx(time.time() - psutil.Process().create_time(), abs=2)


def test_each_worker_gets_some_small_shards() -> None:
    assert enough_samples(EngineConfig()) == 2_000
    assert enough_samples(EngineConfig(batch_size=256)) == 30 * 2 * 256
    assert enough_samples(EngineConfig(actors=64)) == 64 * 8 * 2 * 16


def test_one_small_shard_is_better_than_no_time(web: Path, tmp_path: Path) -> None:
    taken = sample(web, tmp_path, SampleConfig(4))
    assert [block.samples for block in taken.blocks] == [4]
    assert taken.timed == 1


def test_of_few_shards_each_takes_the_time_of_its_own_work(web: Path, tmp_path: Path) -> None:
    slow = {"model": "tiny-captioner", "candidates": 200}  # so long that no other cost counts
    taken = sample(web, tmp_path, SampleConfig(8), caption=slow)
    assert [block.samples for block in taken.blocks] == [4, 4]
    (seconds,) = [block.seconds for block in taken.blocks if block.seconds is not None]
    commits = read_commits(Run.open(str(tmp_path / "sample" / "run"))).values()
    ends = [datetime.fromisoformat(commit.ended) for commit in commits]
    begins = [datetime.fromisoformat(commit.started) for commit in commits]
    longest = max(end - begin for begin, end in zip(begins, ends, strict=True))
    assert seconds > 0.3 * longest.total_seconds()
