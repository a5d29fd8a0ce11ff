"""A cleaning run in its three stages, with one worker in this process."""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.engines.engine import ShardDone, ShardFailed, ShardResult
from flows.recipe import Recipe, RecipeError
from flows.stages import clean
from flows.stages.clean import CleanJob, LimitExceeded, RunResult
from flows.stages.logged import LIBRARIES
from models.captioners.config import BlipCaptionerConfig
from models.checkpoints import locate
from models.checkpoints.locate import CheckpointError
from pipeline.clean.config import CleanConfig
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.inputs.listing import InputMismatch
from shards.inputs.shard import InputChanged
from shards.run import repair
from shards.run.commit import Counts, TextCounts, read_commits
from shards.run.run import Run, RunMismatch
from shards.run.segment import Committed
from shards.run.snapshot import (
    as_snapshot_shard,
    newest_snapshot_id,
    open_snapshot,
    write_snapshot,
)
from tests.support.changed_run import problems, record_of

MODELS = {"caption": "tiny-captioner", "score": "tiny-filter"}
Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five shards of four toy pictures."""
    folder = tmp_path_factory.mktemp("web")
    write_toy_world(folder, ToyWorldConfig(samples=20, samples_per_shard=4))
    return folder


@pytest.fixture
def recipe(web: Path, tmp_path: Path) -> Make:
    """Make a recipe of a run in the test's folder; dotted keys go over it."""

    def make(**changes: Any) -> Recipe:
        values: dict[str, Any] = {
            "input": {"urls": [str(web)]},
            "output": str(tmp_path / "run"),
            "dtype": "fp32",
            "engine": {"kind": "local"},
            **{section: {"model": name} for section, name in MODELS.items()},
        }
        return Recipe.model_validate(values | changes)

    return make


class Watch:
    """Keeps the results that it hears of."""

    def __init__(self) -> None:
        self.results: list[ShardResult] = []

    def begin(self, job: CleanJob) -> None: ...

    def under_way(self, samples: int, size_bytes: int) -> None: ...

    def ended(self, result: ShardResult) -> None:
        self.results.append(result)


def names(job: CleanJob) -> list[str]:
    return [shard.shard for shard in job.pending]


def result(*, pending_here: int = 0, damaged: int = 0, quarantined: int = 0) -> RunResult:
    shards = {"damaged": damaged, "quarantined": quarantined}
    return RunResult("run", {"shards": shards}, (), (), pending_here)


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (result(), 0),
        (result(pending_here=1), 1),
        (result(damaged=1), 3),
        (result(quarantined=2), 3),
        (result(pending_here=1, damaged=1, quarantined=1), 1),
    ],
)
def test_the_exit_code_follows_the_commits(ended: RunResult, code: int) -> None:
    assert ended.exit_code == code


def test_a_run_is_cleaned_and_listed(recipe: Make) -> None:
    job, watch = clean.prepare(recipe()), Watch()
    assert names(job) == job.run.shards
    ended = clean.finish(job, clean.clean_shards(job, watch))
    assert (ended.exit_code, ended.pending_here, ended.failures) == (0, 0, ())
    assert ended.statistics["samples_in"] == 20
    assert all(isinstance(result, ShardDone) for result in watch.results)
    assert len(open_snapshot(job.run).shards) == 5
    again = clean.prepare(recipe())
    assert names(again) == []
    assert again.done.samples_in == 20


def change_commit(run: Run, shard: int = 0) -> None:
    """Make a commit that of an older version, which knew no content apart from numbers."""
    name = f"commits/{run.shards[shard]}.json"
    record = record_of(run, name)
    files = [file | {"content_sha256": None} for file in record["files"]]
    run.store.put(name, json.dumps(record | {"files": files}).encode())


def test_a_shard_done_again_otherwise_leaves_no_list_of_what_was(
    recipe: Make, caplog: pytest.LogCaptureFixture
) -> None:
    job = clean.prepare(recipe())
    clean.finish(job, clean.clean_shards(job, Watch()))
    change_commit(job.run)
    before = write_snapshot(job.run).id
    job.run.store.put(f"commits/{job.run.shards[0]}.json", b"torn")
    again = clean.prepare(recipe())
    assert names(again) == job.run.shards[:1]
    ended = clean.finish(again, clean.clean_shards(again, Watch()))
    assert ended.exit_code == 0
    assert newest_snapshot_id(job.run) != before
    assert f"moved snapshots/{before}.parquet to set_aside/snapshots/{before}" in caplog.text
    assert problems(job.run) == ""


def test_a_snapshot_written_while_commits_are_read_stays(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another driver has done a shard again meanwhile, otherwise, and has finished."""
    job = clean.prepare(recipe())
    clean.finish(job, clean.clean_shards(job, Watch()))
    stale = newest_snapshot_id(job.run)
    change_commit(job.run)
    ours, old = write_snapshot(job.run).id, read_commits(job.run)

    def read_as_another_finishes(run: Run, _known: Committed | None) -> Committed:
        change_commit(run, 1)
        write_snapshot(run)
        return Committed(old)

    monkeypatch.setattr(repair, "read_committed", read_as_another_finishes)
    (moved,) = repair.set_snapshots_aside(job.run, ours)
    assert f"snapshots/{stale}.parquet" in moved
    assert open_snapshot(job.run).shards != tuple(map(as_snapshot_shard, old.values()))


def test_parts_share_the_shards(recipe: Make) -> None:
    whole = clean.prepare(recipe())
    parts = [clean.prepare(recipe(), (number, 3)) for number in range(3)]
    assert sorted(shard.shard for part in parts for shard in part.mine) == whole.run.shards
    assert [len(part.mine) for part in parts] == [2, 2, 1]
    one = parts[1]
    ended = clean.finish(one, clean.clean_shards(one, Watch()))
    assert (ended.exit_code, ended.statistics["shards"]["pending"]) == (0, 3)
    assert read_commits(one.run).keys() == {shard.shard for shard in one.mine}


def test_the_first_driver_goes_in_order_and_one_that_joins_from_anywhere(recipe: Make) -> None:
    ordered = names(clean.prepare(recipe()))
    assert ordered == sorted(ordered)
    joined = [names(clean.prepare(recipe())) for _ in range(12)]
    for order in joined:
        first = ordered.index(order[0])
        assert order == ordered[first:] + ordered[:first]
    assert len({order[0] for order in joined}) > 1  # all equal once in 5 ** 11


def test_a_shard_that_is_gone_stays_pending_and_the_others_go_on(
    recipe: Make, web: Path, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for path in sorted(web.glob("*.tar"))[:3]:
        (copies / path.name).write_bytes(path.read_bytes())
    job = clean.prepare(recipe(input={"urls": [str(copies)]}))
    gone = job.pending[1]
    Path(gone.url).unlink()
    ended = clean.finish(job, clean.clean_shards(job, Watch()))
    assert [(type(fault), fault.shard) for fault in ended.failures] == [(ShardFailed, gone)]
    assert (ended.exit_code, ended.pending_here) == (1, 1)
    assert ended.left.startswith(f"1 shard still pending; {gone.shard}: ")
    with pytest.raises(InputMismatch, match="1 no longer there"):
        clean.prepare(recipe(input={"urls": [str(copies)]}))
    Path(gone.url).write_bytes(b"other")
    with pytest.raises(InputChanged, match=gone.shard):
        clean.prepare(recipe(input={"urls": [str(copies)]}))


def rejecting(samples: int, rejected: int) -> Counts:
    return Counts(
        samples_in=samples,
        kept=samples - rejected,
        rejected=rejected,
        rejected_by_reason={"no_image": rejected},
    )


def test_a_run_over_its_limits_stops_and_says_how_to_go_on(recipe: Make) -> None:
    job = replace(clean.prepare(recipe()), done=rejecting(1_000, 900))
    with pytest.raises(LimitExceeded) as caught:
        clean.clean_shards(job, Watch())
    message = str(caught.value)
    assert message.startswith("limits.rejected is 0.5, but 89.6% of 1,004 samples are")
    assert "by reason: no_image 900. Look at the input" in message
    assert message.endswith("--set limits.rejected=1")
    assert len(read_commits(job.run)) in (1, 2)  # kept; a shard begun ahead may be committed, too


def test_what_was_to_be_skipped_is_no_fault_of_the_input(recipe: Make) -> None:
    def go_on_after(**by_reason: int) -> None:
        counts = rejecting(9_000, sum(by_reason.values()))
        done = counts.model_copy(update={"rejected_by_reason": by_reason})
        clean.clean_shards(replace(clean.prepare(recipe()), done=done), Watch())

    with pytest.raises(LimitExceeded, match=r"89.6% of 1,004 samples .* no_image 900\. Look"):
        go_on_after(skipped=8_000, no_image=900)
    go_on_after(skipped=8_000, no_image=400)


def test_a_limit_that_torn_samples_hit_says_how_to_join_them(recipe: Make) -> None:
    torn = rejecting(1_000, 900).model_copy(update={"rejected_by_reason": {"not_adjacent": 900}})
    with pytest.raises(LimitExceeded, match="tar --sort=name"):
        clean.clean_shards(replace(clean.prepare(recipe()), done=torn), Watch())


def test_limits_count_texts_that_have_no_finite_score(recipe: Make) -> None:
    counts = Counts(
        samples_in=2_000, kept=2_000, not_finite=100, texts={"web": TextCounts(given=2_000, kept=0)}
    )
    job = replace(clean.prepare(recipe()), done=counts)
    with pytest.raises(LimitExceeded, match=r"limits\.not_finite is 0\.01, but 5\.0%"):
        clean.clean_shards(job, Watch())


@pytest.mark.parametrize(
    ("counts", "limits"),
    [
        (rejecting(900, 900), {}),  # too few to say anything
        (rejecting(1_000, 500), {}),
        (rejecting(1_000, 900), {"rejected": 1}),
    ],
)
def test_a_run_within_its_limits_goes_on(
    recipe: Make, counts: Counts, limits: dict[str, float]
) -> None:
    job = replace(clean.prepare(recipe(limits=limits)), done=counts)
    assert clean.clean_shards(job, Watch()).failures == ()


def test_models_are_pinned_for_workers_elsewhere(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = locate.SHIPPED["tiny-captioner"]
    monkeypatch.chdir(captioner.parent)
    job = clean.prepare(recipe(caption={"model": captioner.name, "revision": "main"}))
    config = job.spec.config
    assert isinstance(config, CleanConfig)
    (section,) = config.captioners
    assert isinstance(section, BlipCaptionerConfig)
    assert (section.model, section.revision) == (str(captioner), None)
    assert config.scorers[0].model == str(locate.SHIPPED["tiny-filter"])
    assert isinstance(job.recipe, Recipe)
    assert job.recipe.caption == config.caption
    assert job.spec.run_url == job.run.store.url()


def test_a_run_keeps_the_dtype_of_its_beginning(recipe: Make) -> None:
    clean.prepare(recipe(dtype="bf16"))
    again = clean.prepare(recipe(dtype="auto")).spec.config
    assert isinstance(again, CleanConfig)
    assert again.dtype == "bf16"
    with pytest.raises(RunMismatch, match="dtype: bf16 -> fp32"):
        clean.prepare(recipe(dtype="fp32"))


def test_a_creation_cut_short_is_finished_by_the_next(recipe: Make) -> None:
    job = clean.prepare(recipe(dtype="auto"))
    for name in ("input.parquet", "recipe.yaml"):
        job.run.store.delete(name)
    assert len(clean.prepare(recipe(dtype="auto")).pending) == 5
    assert job.run.store.list() == ["input.parquet", "recipe.yaml", "run.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"caption": {"model": MODELS["caption"], "max_tokens": 500}}, "lower max_tokens"),
        ({"score": {"model": MODELS["score"], "max_tokens": 500}}, "max_tokens is 500; .* takes"),
    ],
)
def test_settings_that_do_not_fit_the_models_are_refused(
    recipe: Make, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        clean.prepare(recipe(**changes))


def test_checkpoints_of_the_wrong_kind_are_refused_before_anything_is_written(
    recipe: Make, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"holds a filter .* expected a captioner"):
        clean.prepare(recipe(caption={"model": MODELS["score"]}))
    assert not (tmp_path / "run").exists()


def test_the_run_records_what_made_it(recipe: Make, tmp_path: Path) -> None:
    clean.prepare(recipe())
    about = json.loads((tmp_path / "run" / "run.json").read_bytes())["about"]
    assert about["versions"]["torch"] == importlib.metadata.version("torch")
    for name in ("capfilt", *LIBRARIES):
        assert name in about["versions"]
    assert about["captioner"]["role"] == "captioner"
    assert about["filter"]["digest"] == Run.open(str(tmp_path / "run")).identity["score"]["digest"]


def test_where_it_runs_is_resolved_once(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert clean.prepare(recipe(engine={})).recipe.engine.kind == "ray"
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    job = clean.prepare(recipe(engine={}))
    assert job.recipe.engine.kind == "local"
    assert clean.finish(job, clean.clean_shards(job, Watch())).exit_code == 0


@pytest.mark.slow
def test_one_process_needs_neither_ray_nor_prefect(web: Path, tmp_path: Path) -> None:
    flags = [f"--input={web / '00000.tar'}", f"--output={tmp_path / 'run'}", "--direct"]
    flags += ["--captioner=tiny-captioner", "--filter=tiny-filter"]
    script = (
        "import sys; sys.modules.update(ray=None, prefect=None)\n"  # as if not installed
        "import flows.recipe, flows.stages.clean\n"
        "from flows.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "clean", *flags]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
