"""What a cleaning tells its run's log, beside what is committed."""

import errno
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.engines.engine import ShardFailed, ShardQuarantined, ShardResult
from flows.recipe import Recipe
from flows.run_log.log import RunLog
from flows.stages import clean, logged
from flows.stages.clean import CleanJob
from flows.stages.logged import LoggedProgress, told_to
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.inputs.shard import InputShard
from shards.run.commit import read_commits
from shards.run.run import NotARun, Run
from shards.run.verify.garbage import find_garbage
from shards.run.verify.run import verify_run
from shards.store import Store

SECRET = "kq8Zt/0p+secret"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of two toy pictures, and one that is no tar."""
    folder = tmp_path_factory.mktemp("web")
    write_toy_world(folder, ToyWorldConfig(samples=6, samples_per_shard=2))
    (folder / "spoiled.tar").write_bytes(b"no tar")
    return folder


@pytest.fixture
def prepare(web: Path, tmp_path: Path) -> Callable[..., CleanJob]:
    """Prepare a run in the test's folder; keywords go over the recipe's engine."""

    def make(**engine: Any) -> CleanJob:
        recipe = {
            "input": {"urls": [str(web)]},
            "output": str(tmp_path / "run"),
            "dtype": "fp32",
            "engine": {"kind": "local"} | engine,
            "caption": {"model": "tiny-captioner"},
            "score": {"model": "tiny-filter"},
        }
        return clean.prepare(Recipe.model_validate(recipe))

    return make


class Watch:
    """Hears all, and may end the run where it hears of a shard."""

    def __init__(self, ends: BaseException | None = None) -> None:
        self.ends = ends
        self.heard: list[ShardResult] = []
        self.seen: list[tuple[int, int]] = []

    def begin(self, job: CleanJob) -> None: ...

    def under_way(self, samples: int, size_bytes: int) -> None:
        self.seen.append((samples, size_bytes))

    def ended(self, result: ShardResult) -> None:
        self.heard.append(result)
        if self.ends is not None:
            raise self.ends


def logs(folder: Path) -> list[list[dict[str, Any]]]:
    paths = sorted((folder / "logs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]


def test_a_run_is_told_from_its_beginning_to_its_end(
    prepare: Callable[..., CleanJob], tmp_path: Path
) -> None:
    job, watch = prepare(), Watch()
    assert not (tmp_path / "run" / "logs").exists()
    result = clean.finish(job, clean.clean_shards(job, watch))
    ((begun, ready, *shards, ended),) = logs(tmp_path / "run")
    assert (begun["event"], ready["event"], ended["event"]) == ("begun", "worker_ready", "ended")
    assert (begun["host"], begun["pid"]) == (platform.node(), os.getpid())
    assert begun["shards"] == {"total": 4, "mine": 4, "pending": 4}
    assert begun["engine"]["kind"] == "local"
    assert begun["versions"].keys() >= {"capfilt", "torch", "transformers"}
    assert begun["fingerprint"] == job.run.fingerprint
    assert (ready["host"], ready["device"]) == (platform.node(), "cpu")
    commits = read_commits(job.run)
    assert {line["shard"] for line in shards} == commits.keys()
    for line in shards:
        counts = commits[line["shard"]].counts
        assert line["event"] == "shard_done"
        assert line["samples"] == counts.samples_in
        assert [line[name] for name in ("kept", "filtered", "rejected")] == [
            *(counts.kept, counts.filtered, counts.rejected)
        ]
        assert line.get("damaged", False) == (line["shard"] == "spoiled")
        assert 0 <= line["seconds"] < 60
    assert (ended["exit_code"], ended["samples_in"]) == (result.exit_code, 6) == (3, 6)
    assert ended["shards"] == result.statistics["shards"]
    assert len(watch.heard) == 4
    assert watch.seen


def test_each_command_has_a_log_of_its_own_and_a_run_is_whole_with_them(
    prepare: Callable[..., CleanJob], tmp_path: Path
) -> None:
    for _ in range(2):
        job = prepare()
        clean.finish(job, clean.clean_shards(job, Watch()))
    _, second = logs(tmp_path / "run")
    assert [line["event"] for line in second] == ["begun", "ended"]
    assert second[0]["shards"] == {"total": 4, "mine": 4, "pending": 0}
    run = Run.open(job.run.store.url())
    assert verify_run(run).problems == ()
    garbage = find_garbage(run, 0)
    assert (garbage.old, garbage.unknown) == ((), ())


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (SystemExit(143), {"level": "warning", "exit_code": 143, "signal": "SIGTERM"}),
        (KeyboardInterrupt(), {"level": "warning", "exit_code": 130, "signal": "SIGINT"}),
        (NotARun("no run"), {"exit_code": 2, "error": "NotARun", "why": "no run"}),
        (OSError(errno.ENOSPC, "full"), {"level": "error", "exit_code": 1, "error": "OSError"}),
        (ModuleNotFoundError("no ray", name="ray"), {"exit_code": 2}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_it_ends_is_told(
    prepare: Callable[..., CleanJob], tmp_path: Path, end: BaseException, told: dict[str, Any]
) -> None:
    job = prepare()
    with pytest.raises(type(end)):
        clean.clean_shards(job, Watch(ends=end))
    ((*_, last),) = logs(tmp_path / "run")
    assert last["event"] == "ended"
    assert last.items() >= told.items()


def test_an_error_that_quotes_a_credential_is_told_without_it(
    prepare: Callable[..., CleanJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_LOGIN", SECRET)
    job = prepare(forward_env=["STORE_LOGIN"])
    with pytest.raises(RuntimeError):
        clean.clean_shards(job, Watch(ends=RuntimeError(f"403 for {SECRET}")))
    assert logs(tmp_path / "run")[0][-1]["why"] == "403 for ***"
    files = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [data for data in files if SECRET.encode() in data]


def test_what_is_wrong_before_a_run_is_there_leaves_no_log(tmp_path: Path, web: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("a stranger's")
    values = {"input": {"urls": [str(web)]}, "output": str(tmp_path / "run")}
    models = {"caption": {"model": "tiny-captioner"}, "score": {"model": "tiny-filter"}}
    with pytest.raises(NotARun):
        clean.prepare(Recipe.model_validate(values | models | {"engine": {"kind": "local"}}))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


SHARDS = [InputShard(f"/web/{name}.tar", name, 100, mtime=0.0) for name in "abcd"]


def test_shards_that_fail_or_are_put_aside_and_the_progress_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, watch = RunLog(Store(str(tmp_path))), Watch()
    with told_to(log):
        progress = LoggedProgress(SHARDS, watch)
        progress.under_way(1, 10)  # long before a minute is over
        progress.ended(ShardFailed(SHARDS[0], "gone\nfor good"))
        monkeypatch.setattr(logged, "PROGRESS_EVERY_S", 0.0)
        progress.under_way(5, 100)
        progress.ended(ShardQuarantined(SHARDS[1], "it kills"))
    ((failed, half, aside),) = logs(tmp_path)
    assert (failed["event"], failed["level"]) == ("shard_failed", "warning")
    assert (failed["shard"], failed["why"]) == ("a", "gone\nfor good")
    assert (aside["event"], aside["level"]) == ("shard_quarantined", "warning")
    assert (half["event"], half["level"]) == ("progress", "info")
    assert (half["shards_ended"], half["shards_pending"], half["samples"]) == (1, 3, 5)
    assert half["seconds_left"] == round(half["seconds"])  # half of all bytes are read
    assert watch.seen == [(1, 10), (5, 100)]
    assert [type(result) for result in watch.heard] == [ShardFailed, ShardQuarantined]
