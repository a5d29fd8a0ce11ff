"""A shard is committed once, by one attempt, whole; what is torn counts as absent."""

import json
import logging
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shards.run.attempt import start_attempt
from shards.run.commit import (
    Commit,
    Counts,
    FilesGone,
    RunGone,
    TextCounts,
    commit,
    read_commit,
    read_commits,
    total_counts,
)
from shards.run.run import Run
from shards.schema import SchemaError
from tests.shards.conftest import MakeRun
from tests.support.changed_run import record_of

Work = Callable[[Run, str], Commit]


def test_the_loser_removes_its_own_files_alone(
    any_url: str, make_run: MakeRun, do_work: Work
) -> None:
    run = make_run(any_url, committed=False)
    shard = run.shards[0]
    first, second = do_work(run, shard), do_work(run, shard)
    assert first.attempt != second.attempt
    assert commit(run, first)
    assert not commit(run, second)
    assert commit(run, first)  # told twice, as after a lost answer
    assert read_commit(run, shard) == first
    assert run.store.list("data") == sorted(file.name for file in first.files)


def test_a_loser_never_removes_files_of_others(
    any_url: str, make_run: MakeRun, do_work: Work
) -> None:
    run = make_run(any_url, committed=False)
    first, second = do_work(run, run.shards[0]), do_work(run, run.shards[0])
    assert commit(run, first)
    assert not commit(run, second.model_copy(update={"files": first.files}))
    assert {file.name for file in first.files} <= set(run.store.list("data"))


TORN = [b"", b"{", b"null", b"[]", b'{"schema_version": 1}', b"\xff", b"\0" * 9, b"[" * 200_000]


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_commit_counts_as_absent_and_is_mended(
    any_url: str, make_run: MakeRun, do_work: Work, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(any_url, committed=False)
    shard = run.shards[0]
    run.store.put(f"commits/{shard}.json", torn)
    with caplog.at_level(logging.WARNING):
        assert read_commit(run, shard) is None
    assert shard in caplog.text
    assert read_commits(run) == {}
    done = do_work(run, shard)
    assert commit(run, done)
    assert read_commits(run) == {shard: done}


@pytest.mark.parametrize("kept", [0, 10, None])
def test_no_commit_names_what_is_gone_or_cut(
    any_url: str, make_run: MakeRun, do_work: Work, kept: int | None
) -> None:
    run = make_run(any_url, committed=False)
    done, name = do_work(run, run.shards[0]), ""
    for file in done.files:
        name, data = file.name, run.store.read(file.name)
        run.store.delete(name)
        if kept is not None:
            run.store.put(name, data[:kept])
        with pytest.raises(FilesGone, match=f"{name} was published with .* it is done again"):
            commit(run, done)
        assert read_commits(run) == {}
        run.store.put(name, data)
    assert commit(run, done)


def test_a_commit_whose_files_went_meanwhile_is_taken_back(
    any_url: str, make_run: MakeRun, do_work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen between the look at its files and the commit, as long as it takes to lose them."""
    run = make_run(any_url, committed=False)
    done, other = do_work(run, run.shards[0]), do_work(run, run.shards[0])
    create = type(run.store).create

    def lose_then_create(store: Any, name: str, data: bytes) -> bool:
        store.delete(done.files[1].name)
        return create(store, name, data)

    with monkeypatch.context() as frozen:
        frozen.setattr(type(run.store), "create", lose_then_create)
        with pytest.raises(FilesGone):
            commit(run, done)
    assert read_commits(run) == {}
    assert commit(run, other)
    assert not commit(run, done), "the other's commit stands, and is not taken back"
    assert read_commits(run) == {done.shard: other}
    assert run.store.list("data") == sorted(file.name for file in other.files)


def test_nothing_is_committed_into_a_folder_that_is_no_run_any_more(
    any_url: str, make_run: MakeRun, do_work: Work
) -> None:
    run = make_run(any_url, committed=False)
    done = do_work(run, run.shards[0])
    run.store.delete("run.json")
    with pytest.raises(RunGone, match="moved or deleted"):
        commit(run, done)
    assert run.store.list("commits") == []


def test_a_newer_commit_is_refused_not_redone(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(str(tmp_path / "run"))
    name = f"commits/{run.shards[0]}.json"
    record = record_of(run, name) | {"schema_version": 99}
    run.store.put(name, json.dumps(record).encode())
    with pytest.raises(SchemaError, match="newer"):
        read_commits(run)


def test_commits_come_in_the_order_of_the_list(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url, shards=4)
    run.store.put("commits/stranger.json", b"{}")
    commits = read_commits(run)
    assert list(commits) == run.shards
    assert commits == {shard: read_commit(run, shard) for shard in run.shards}
    assert [done.state.damaged for done in commits.values()] == [False, False, False, True]
    assert total_counts(done.counts for done in commits.values()).samples_in > 36


def test_attempts_are_recorded_before_the_work(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url, committed=False)
    attempt = start_attempt(run, run.shards[0])
    record = json.loads(run.store.read(f"attempts/{run.shards[0]}/{attempt}.json"))
    assert record["attempt"] == attempt
    assert len(attempt) == 16
    assert record["pid"]
    assert start_attempt(run, run.shards[0]) != attempt


def compete(url: str, work: Work, barrier: Any, results: Any) -> None:
    run = Run.open(url)
    for shard in run.shards:
        done = work(run, shard)
        barrier.wait(60)
        results.put((shard, done.attempt, commit(run, done)))


def test_two_drivers_commit_each_shard_once(
    make_run: MakeRun, do_work: Work, tmp_path: Path
) -> None:
    run = make_run(str(tmp_path / "run"), shards=8, committed=False)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    drivers = [
        context.Process(target=compete, args=(run.store.url(), do_work, barrier, results))
        for _ in range(2)
    ]
    for driver in drivers:
        driver.start()
    ended = [results.get(timeout=60) for _ in range(16)]
    for driver in drivers:
        driver.join(60)
    winners = {shard: attempt for shard, attempt, won in ended if won}
    assert sum(won for _, _, won in ended) == len(winners) == 8
    commits = read_commits(run)
    assert {shard: done.attempt for shard, done in commits.items()} == winners
    kept = {file.name for done in commits.values() for file in done.files}
    assert set(run.store.list("data")) == kept


def test_samples_are_conserved() -> None:
    one = Counts(
        samples_in=3,
        kept=1,
        filtered=1,
        rejected=1,
        rejected_by_reason={"image_empty": 1},
        text_reasons={"itm_below_threshold": 2},
        texts={"web": TextCounts(given=2, kept=1)},
    )
    two = Counts(samples_in=1, rejected=1, rejected_by_reason={"image_blank": 1}, not_finite=2)
    total = one + two
    assert (total.samples_in, total.rejected, total.not_finite) == (4, 2, 2)
    assert total.rejected_by_reason == {"image_blank": 1, "image_empty": 1}
    assert total.text_reasons == {"itm_below_threshold": 2}
    assert (total + one).text_reasons == {"itm_below_threshold": 4}
    assert (total + one).texts == {"web": TextCounts(given=4, kept=2)}
    with pytest.raises(ValidationError, match="samples are lost: 3 in"):
        Counts(samples_in=3, kept=1)
    with pytest.raises(ValidationError, match="by reason"):
        Counts(samples_in=1, rejected=1)
    assert json.loads(one.model_dump_json())["texts"] == {"web": {"in": 2, "kept": 1}}
    assert Counts.model_validate_json(one.model_dump_json()) == one
