"""Plans of a cleaning: what stands in its way, what is done, what the rest will take."""

import gzip
import math
import shutil
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from flows.engines.engine import WorkerReport
from flows.recipe import Recipe
from flows.stages import clean
from flows.stages.estimate import plan
from flows.stages.estimate.plan import Plan, check, make_plan
from flows.stages.estimate.problems import Problem
from flows.stages.estimate.sample import SampleConfig
from pipeline.clean.forecast import Interval
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.inputs.shard import InputShard
from tests.flows.stages.estimate.test_sample import Watch
from tests.support.tars import read_members
from tests.support.toy_run import clean_world, write_tar

Make = Callable[..., Recipe]
SMALL = SampleConfig(32)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards of 20 toy pictures."""
    folder = tmp_path_factory.mktemp("web")
    write_toy_world(folder, ToyWorldConfig(samples=120, samples_per_shard=20, image_px=32))
    return folder


@pytest.fixture
def recipe(web: Path, tmp_path: Path) -> Make:
    """Make a recipe of a run in the test's folder; what is given goes over it."""

    def make(**changes: Any) -> Recipe:
        values: dict[str, Any] = {
            "input": {"urls": [str(web)]},
            "output": str(tmp_path / "out" / "run"),
            "dtype": "fp32",
            "caption": {"model": "tiny-captioner"},
            "score": {"model": "tiny-filter"},
            "engine": {"kind": "local", "batch_size": 4},
        }
        return Recipe.model_validate(values | changes)

    return make


def planned(recipe: Recipe, part: tuple[int, int] = (0, 1), config: SampleConfig = SMALL) -> Plan:
    return make_plan(recipe, part, config, Watch())


def named(problems: "list[Problem] | tuple[Problem, ...]") -> dict[str, str]:
    return {problem.subject: problem.message for problem in problems}


def test_the_whole_lies_in_its_intervals(recipe: Make, tmp_path: Path) -> None:
    made = planned(recipe())
    assert made.ready
    assert made.forecast is not None
    assert made.forecast.images.low <= 120 <= made.forecast.images.high
    assert made.forecast.images.half_width < 0.1
    assert 0 < made.forecast.start_seconds < made.forecast.seconds.value
    assert made.forecast.gpu_hours.value == 0
    assert list((tmp_path / "out").iterdir()) == []  # of the sample nothing is left


def test_tables_have_about_the_size_that_was_told(recipe: Make, web: Path, tmp_path: Path) -> None:
    made = planned(recipe(), config=SampleConfig(60))
    clean_world(web, tmp_path / "whole")
    assert made.forecast is not None
    for table in ("samples", "texts", "decisions", "clean"):
        files = (tmp_path / "whole" / "data" / table).iterdir()
        size_bytes = sum(path.stat().st_size for path in files)
        assert made.forecast.output_bytes[table].value == pytest.approx(size_bytes, rel=0.35)


def test_what_is_done_is_not_planned_again(recipe: Make) -> None:
    run = recipe()
    job = clean.prepare(run, (0, 3))
    clean.clean_shards(job, type("Begun", (Watch,), {"begin": lambda *_: None})())
    made = planned(run)
    assert made.task is not None
    assert made.forecast is not None
    assert (len(made.task.shards), len(made.task.pending), made.task.samples_done) == (6, 4, 40)
    assert made.forecast.images.low <= 80 <= made.forecast.images.high
    done = planned(run, (0, 3))
    assert done.ready
    assert done.task is not None
    assert done.task.pending == ()
    assert done.sample is None


def test_every_problem_is_named_with_its_mend(
    recipe: Make, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEVER_SET", raising=False)
    shutil.copytree(web, tmp_path / "pictures")
    made = planned(
        recipe(
            input={"urls": [str(tmp_path / "picturse")]},
            caption={"model": "tiny-captoner/"},
            score={"model": "./nowhere"},
            engine={"kind": "ray", "address": "127.0.0.1:9", "forward_env": ["NEVER_SET"]},
        )
    )
    assert not made.ready
    problems = named(made.problems)
    subjects = {"input", "captioner", "filter", "engine.forward_env", "engine.address"}
    assert set(problems) == subjects
    assert problems["input"].endswith(f"Did you mean {tmp_path / 'pictures'}?")
    assert "no checkpoint folder" in problems["captioner"]
    assert "Did you mean tiny-captioner" in problems["captioner"]
    assert "NEVER_SET" in problems["engine.forward_env"]


def test_both_models_are_looked_into_when_all_else_is_right(recipe: Make) -> None:
    swapped = recipe(caption={"model": "tiny-filter"}, score={"model": "tiny-captioner"})
    assert set(named(check(swapped)[1])) == {"captioner", "filter"}


def test_a_run_of_another_recipe_stands_in_the_way(recipe: Make) -> None:
    clean.prepare(recipe())
    task, problems = check(recipe(seed=1))
    assert task is None
    assert "seed: 0 -> 1" in named(problems)["output"]
    task, problems = check(recipe())
    assert task is not None
    assert problems == []


def test_a_folder_of_something_else_stands_in_the_way(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "out" / "run").mkdir(parents=True)
    (tmp_path / "out" / "run" / "letter.txt").write_text("Dear all")
    task, problems = check(recipe())
    assert task is None
    assert "letter.txt" in named(problems)["output"]


@pytest.mark.parametrize("below", ["", "a/b"])
def test_a_file_stands_where_the_output_is_to_be(recipe: Make, tmp_path: Path, below: str) -> None:
    (tmp_path / "letter").write_text("Dear all")
    task, problems = check(recipe(output=str(tmp_path / "letter" / below)))
    assert task is None
    assert f"{tmp_path / 'letter'} is a file" in named(problems)["output"]


def test_a_bucket_without_credentials_is_named(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    _, problems = check(recipe(input={"urls": ["s3://bucket-of-nobody/web.tar"]}))
    assert named(problems)["input"].startswith("s3://bucket-of-nobody/web.tar: Unable to locate")


def test_each_input_that_is_not_there_is_named(recipe: Make, tmp_path: Path) -> None:
    _, problems = check(recipe(input={"urls": [str(tmp_path / "a"), str(tmp_path / "b")]}))
    assert [problem.subject for problem in problems] == ["input", "input"]


def test_what_is_to_be_skipped_is_no_problem(recipe: Make, web: Path, tmp_path: Path) -> None:
    members = {tar.stem: read_members(tar) for tar in web.glob("*.tar")}
    pictures = {f"{shard}/{Path(name).stem}" for shard in members for name, _ in members[shard]}
    (tmp_path / "skip").write_text("\n".join(sorted(pictures)[:90]))
    made = planned(recipe(skip=str(tmp_path / "skip")), config=SampleConfig(1_000))
    assert made.ready, made.problems
    assert made.forecast is not None
    assert made.forecast.rejected.value == 90 / 120
    assert "limits.rejected" not in named(made.problems)


def test_a_full_disk_and_bad_pictures_are_told(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(100, 99, 1))
    made = planned(recipe(screen={"min_side": 4_000}))
    assert not made.ready
    problems = named(made.problems)
    assert set(problems) >= {"disk", "limits.rejected"}
    assert "image_too_small" in problems["limits.rejected"]
    assert made.forecast is not None
    assert (made.forecast.rejected.value, made.forecast.kept.value) == (1, 0)


def test_a_single_picture_has_a_plan_too(recipe: Make, tmp_path: Path) -> None:
    write_toy_world(tmp_path / "one", ToyWorldConfig(samples=1, image_px=32))
    made = planned(recipe(input={"urls": [str(tmp_path / "one")]}))
    assert made.ready
    assert made.forecast is not None
    assert made.forecast.images.value == 1


def test_what_speaks_against_a_run_is_told(recipe: Make) -> None:
    made = planned(recipe(judge={"threshold": {"web": 50}}))
    assert made.task is not None
    assert made.sample is not None
    worker = WorkerReport("here", "NVIDIA H100", 1, 20, 5.0)
    sample = replace(made.sample, workers=(worker,) * 4, peak_memory_bytes=1 << 50)
    forecast = plan.forecast_of(made.task, sample)
    assert forecast.workers == 4
    assert forecast.gpu_hours.value == pytest.approx(4 * forecast.seconds.value / 3600)
    doubts = {d.subject: d.warning for d in plan.doubts(made.task, sample, forecast)}
    assert doubts.items() >= {"shards": True, "memory": False, "judge.threshold": True}.items()


def test_what_makes_it_surer_is_an_option_of_the_command(recipe: Make) -> None:
    made = planned(recipe(judge={"threshold": {"web": 50}}))
    assert made.sample is not None
    assert made.forecast is not None
    unsure = replace(made.forecast, seconds=Interval(1.0, 0.0, 9.0))
    for budget_s, options in ((30.0, "--n, --budget"), (None, "--n")):  # of `plan`, and of `try`
        config = SampleConfig(60, budget_s)
        (problem,) = plan.told_of_width(made.sample, unsure, config)
        assert problem.message.endswith(f"surer: {options}")


def test_a_store_that_is_no_disk(recipe: Make, web: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{web}/", "/plan-web/", recursive=True)
    urls = {"urls": ["memory://plan-web"]}
    made = planned(recipe(input=urls, output="memory://plan-runs/run"))
    assert made.ready
    assert made.forecast is not None
    assert made.forecast.images.low <= 120 <= made.forecast.images.high
    assert memory.find("/plan-runs") == []


def test_a_shard_that_gives_nothing_is_told(recipe: Make, web: Path, tmp_path: Path) -> None:
    shutil.copytree(web, tmp_path / "mixed")
    size_bytes = sum(tar.stat().st_size for tar in web.iterdir())
    (tmp_path / "mixed" / "page.tar").write_bytes(b"<html>404" * (size_bytes // 9))
    made = planned(recipe(input={"urls": [str(tmp_path / "mixed")]}), config=SampleConfig(60))
    assert made.ready
    assert "page.tar" in named(made.problems)["input"]
    assert made.forecast is not None
    assert made.forecast.images.low <= 120 <= made.forecast.images.high


@pytest.mark.parametrize("packing", ["gzip", "apart"])
def test_samples_from_the_beginning_of_shards_are_told(
    recipe: Make, web: Path, tmp_path: Path, packing: str
) -> None:
    (tmp_path / "packed").mkdir()
    for path in web.iterdir():
        data = path.read_bytes()
        if packing == "apart":
            members = sorted(read_members(data), key=lambda member: member[0][::-1])
            write_tar(tmp_path / "packed" / path.name, dict(members))
        else:
            (tmp_path / "packed" / path.name).write_bytes(gzip.compress(data))
    made = planned(recipe(input={"urls": [str(tmp_path / "packed")]}), config=SampleConfig(60))
    assert made.ready
    assert "Samples were taken from the beginning" in named(made.problems)["input"]
    assert made.forecast is not None
    assert made.forecast.images.value == pytest.approx(120, rel=0.15)


def test_torn_samples_have_no_number_and_are_told_with_the_mend(
    recipe: Make, web: Path, tmp_path: Path
) -> None:
    members = read_members((web / "00000.tar").read_bytes())
    members.sort(key=lambda member: member[0][::-1], reverse=True)  # texts come first
    write_tar(tmp_path / "a.tar", dict(members))
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    made = planned(recipe(input={"urls": [str(packed)]}), config=SampleConfig(200))
    assert made.forecast is not None
    assert made.forecast.images.high == made.forecast.rejected.high == math.inf
    (told,) = [problem.message for problem in made.problems if problem.subject == "input"]
    assert f"1 shard ({packed})" in told
    assert "tar --sort=name" in told
    rejected = named(made.problems)["limits.rejected"]
    assert "{" not in rejected
    assert "tar --sort=name" in rejected


def test_members_that_may_stand_apart_in_a_store_are_told(recipe: Make) -> None:
    sample = planned(recipe()).sample
    assert sample is not None
    doubtful = replace(sample, doubtful=(InputShard("s3://web/0.tar", "0", 1),))
    (problem,) = plan.told_of_order(doubtful)
    assert problem.warning
    assert "s3://web/0.tar" in problem.message
    assert list(plan.told_of_order(sample)) == []


def test_texts_that_stand_elsewhere_are_told(recipe: Make, toy_shards: Path) -> None:
    told = planned(recipe(input={"urls": [str(toy_shards)], "text": "json:captoin"})).problems
    assert "not one of the samples has a web text" in named(told)["input.text"]
    assert all(problem.warning for problem in told if problem.subject == "input.text")
    assert "input.text" not in named(planned(recipe()).problems)
    none = planned(recipe(input={"urls": [str(toy_shards)], "text": "none"}))
    assert "input.text" not in named(none.problems)
