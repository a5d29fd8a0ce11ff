"""Three stages overlap, over the ends of shards too; what ends one ends all, and their threads."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import pipeline.clean.line.attempt
import pipeline.clean.line.batch
import pipeline.clean.line.line
import pipeline.clean.line.reading
import pipeline.clean.line.ring
import pipeline.clean.prepare
from pipeline.clean.line.attempt import AttemptLost
from pipeline.clean.prepare import ExecutionConfig
from pipeline.clean.shard import ShardCleaner
from pipeline.media.decode import decode
from shards.inputs.opening import open_samples
from shards.run.attempt import Ending, read_attempts, start_attempt
from shards.run.commit import commit, read_commit, read_commits
from shards.run.run import Run
from shards.run.verify.run import verify_run
from tests.support.bench import Bench

PACE = ExecutionConfig(batch_size=4)


@pytest.fixture
def run(bench: Bench, members: Any, tar_of: Any) -> Run:
    return bench.run(*(bench.put(f"{n:05}", tar_of(members)) for n in range(3)))[0]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Seen:
    """A captioner that calls a function before each batch."""

    def __init__(self, captioner: Any, before: Callable[[str], None]) -> None:
        self._captioner, self._before = captioner, before
        self.digest, self.preprocess = captioner.digest, captioner.preprocess

    def caption(self, images: torch.Tensor, keys: Any, count: int) -> Any:
        self._before(keys[0].split("/")[0])
        return self._captioner.caption(images, keys, count)


def cleaner_of(bench: Bench, run: Run, before: Callable[[str], None]) -> ShardCleaner:
    captioner = Seen(bench.captioner, before)
    return bench.cleaner(run, bench.config, captioner=captioner, pace=PACE)


def clean_all(bench: Bench, run: Run, cleaner: ShardCleaner) -> None:
    for shard, following in zip(run.inputs, [*run.inputs[1:], None], strict=True):
        if following is not None:
            cleaner.expect(following)
        cleaner.clean(shard, bench.ignore)
        assert list(read_commits(run))[-1] == shard.shard


def endings(run: Run) -> dict[str, list[Ending | None]]:
    return {shard: [one.ending for one in read_attempts(run, shard)] for shard in run.shards}


def wait_until(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.005)


# --- Overlap. ---


def test_the_next_shard_is_computed_while_one_is_committed(
    bench: Bench, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def late(a_run: Run, result: Any) -> bool:
        following = f"{int(result.shard) + 1:05}"
        if following in run.shards:
            wait_until(lambda: following in begun)
        return commit(a_run, result)

    monkeypatch.setattr(pipeline.clean.line.attempt, "commit", late)
    clean_all(bench, run, cleaner_of(bench, run, begun.append))
    assert verify_run(run).problems == ()
    assert endings(run) == {shard: [None] for shard in run.shards}


def test_rows_do_not_depend_on_what_comes_next(bench: Bench, run: Run) -> None:
    clean_all(bench, run, bench.cleaner(run, bench.config, pace=PACE))
    alone = bench.run(*(Path(shard.url) for shard in run.inputs))[0]
    for shard in alone.inputs:
        bench.cleaner(alone, bench.config, pace=PACE).clean(shard, bench.ignore)
    for name in run.shards:
        for table in ("samples", "texts", "decisions"):
            assert bench.rows(run, table, name) == bench.rows(alone, table, name)


def note(heard: list[int], samples: int, _: int) -> None:
    heard.append(samples)


def test_progress_is_each_shard_s_own(bench: Bench, run: Run) -> None:
    cleaner = bench.cleaner(run, bench.config, pace=PACE)
    for shard, following in zip(run.inputs, [*run.inputs[1:], None], strict=True):
        heard: list[int] = []
        if following is not None:
            cleaner.expect(following)
        cleaner.clean(shard, partial(note, heard))
        assert (len(heard), heard[-1]) == (5, 23)
        assert heard == sorted(heard)


def test_who_computes_touches_no_file(bench: Bench, run: Run) -> None:
    touched: list[str] = []
    caller, watched = threading.get_ident(), [True]

    def hook(event: str, args: Any) -> None:
        if watched[0] and event in ("open", "os.rename", "os.mkdir", "os.remove", "os.listdir"):
            own = threading.get_ident() == caller
            touched.extend([f"{event} {args[0]}"] if own and "web" in str(args[0]) else [])
            touched.extend([f"{event} {args[0]}"] if own and "/run" in str(args[0]) else [])

    sys.addaudithook(hook)
    cleaner = bench.cleaner(run, bench.config, pace=PACE)
    cleaner.clean(run.inputs[0], bench.ignore)
    assert touched == []
    Path(run.inputs[0].url).read_bytes()
    assert len(touched) == 1, "the look bites"
    watched[0] = False


def test_each_picture_is_copied_once_into_its_batch(
    bench: Bench, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks: list[int] = []
    puts: list[int] = []
    seen: list[int] = []
    put = pipeline.clean.line.ring.Buffer.put

    def counted(buffer: Any, row: int, views: Any) -> None:
        puts.append(len(views))
        put(buffer, row, views)

    def stacked(*_: Any, **__: Any) -> Any:
        stacks.append(1)
        raise AssertionError("a batch is no stack of copies")

    class Looking:
        digest, preprocess = bench.scorer.digest, bench.scorer.preprocess
        count_tokens, scores = bench.scorer.count_tokens, bench.scorer.scores

        def score(self, images: torch.Tensor, texts: Any) -> Any:
            seen.append(images.data_ptr())
            return bench.scorer.score(images, texts)

    def before(_: str) -> None:
        assert stacks == []

    monkeypatch.setattr(pipeline.clean.line.ring.Buffer, "put", counted)
    monkeypatch.setattr(torch, "stack", stacked)
    cleaner = bench.cleaner(
        run, bench.config, captioner=Seen(bench.captioner, before), scorer=Looking(), pace=PACE
    )
    cleaner.clean(run.inputs[0], bench.ignore)
    assert puts == [1] * 20, "one view for both models, where they preprocess alike"
    assert len(set(seen)) <= 4 < len(seen), "batches stand in the same few buffers"


# --- What is taken back. ---


def test_a_shard_that_another_does_is_given_back(bench: Bench, run: Run) -> None:
    def before(_: str) -> None:
        batches.append(1)
        if len(batches) == 3:  # its last ones are in buffers by then
            wait_until(lambda: read_attempts(run, run.shards[1]))
            cleaner.expect(None)

    batches: list[int] = []

    cleaner = cleaner_of(bench, run, before)
    cleaner.expect(run.inputs[1])
    cleaner.clean(run.inputs[0], bench.ignore)
    assert cleaner.close()
    assert endings(run) == {"00000": [None], "00001": [Ending.RELEASED], "00002": []}
    assert list(read_commits(run)) == ["00000"]
    cleaner.clean(run.inputs[1], bench.ignore)
    assert endings(run)["00001"] == [Ending.RELEASED, None]


def test_one_taken_back_between_two_shards(bench: Bench, run: Run) -> None:
    cleaner = bench.cleaner(run, bench.config, pace=PACE)
    cleaner.expect(run.inputs[1])
    cleaner.clean(run.inputs[0], bench.ignore)
    wait_until(lambda: read_attempts(run, run.shards[1]))
    cleaner.expect(None)
    assert endings(run)["00001"] == [Ending.RELEASED]
    assert cleaner.close()


def test_another_shard_than_was_expected(bench: Bench, run: Run) -> None:
    cleaner = bench.cleaner(run, bench.config, pace=PACE)
    cleaner.expect(run.inputs[1])
    cleaner.clean(run.inputs[0], bench.ignore)
    cleaner.clean(run.inputs[2], bench.ignore)
    assert list(read_commits(run)) == ["00000", "00002"]
    assert endings(run)["00001"] in ([], [Ending.RELEASED])


def test_a_shard_with_losses_takes_no_other_along(bench: Bench, run: Run) -> None:
    start_attempt(run, run.shards[0])
    attempts: list[int] = []

    def before(shard: str) -> None:
        if shard == run.shards[0]:
            attempts.append(len(read_attempts(run, run.shards[1])))

    clean_all(bench, run, cleaner_of(bench, run, before))
    assert set(attempts) == {0}


# --- Errors. ---


def failing_decode(data: bytes, limits: Any) -> Any:
    if data.startswith(b"RIFF"):
        raise MemoryError("so it is")
    return decode(data, limits)


def fail(*_: Any) -> Any:
    raise RuntimeError("so it is")


@pytest.mark.parametrize("stage", ["read", "decode", "compute", "write", "commit"])
def test_an_error_in_any_stage_ends_all(
    bench: Bench, run: Run, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    if stage == "read":
        monkeypatch.setattr(pipeline.clean.line.reading, "open_samples", fail)
    if stage == "decode":
        monkeypatch.setattr(pipeline.clean.prepare, "decode", failing_decode)
    if stage == "write":
        monkeypatch.setattr(pipeline.clean.line.attempt, "judge", fail)
    if stage == "commit":
        monkeypatch.setattr(pipeline.clean.line.attempt, "commit", fail)
    cleaner = cleaner_of(bench, run, fail if stage == "compute" else lambda _: None)
    cleaner.expect(run.inputs[1])
    with pytest.raises(AttemptLost if stage == "decode" else RuntimeError, match="so it is"):
        cleaner.clean(run.inputs[0], bench.ignore)
    assert cleaner.close()
    ended = endings(run)
    assert ended["00000"] == [Ending.DIED if stage == "decode" else Ending.FAILED]
    assert all(ending is not None for ending in ended["00001"])
    assert not read_commits(run)
    assert not [name for name in run.store.list("data") if "00000" in name] or stage == "commit"
    monkeypatch.undo()
    clean_all(bench, run, bench.cleaner(run, bench.config, pace=PACE))
    assert len(read_commits(run)) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_releases_all_that_is_under_way(
    bench: Bench, run: Run, error: type[BaseException]
) -> None:
    def before(_: str) -> None:
        batches.append(1)
        if len(batches) == 3:  # its last ones are in buffers by then
            wait_until(lambda: read_attempts(run, run.shards[1]))
            raise error

    batches: list[int] = []
    cleaner = cleaner_of(bench, run, before)
    cleaner.expect(run.inputs[1])
    with pytest.raises(error):
        cleaner.clean(run.inputs[0], bench.ignore)
    assert cleaner.close()
    assert endings(run) == {"00000": [Ending.RELEASED], "00001": [Ending.RELEASED], "00002": []}
    assert not run.store.list("data")
    assert not list(Path(run.store.path("x")).parent.glob(".tmp-*"))


def test_an_error_of_the_next_shard_is_raised_in_its_turn(bench: Bench, run: Run) -> None:
    Path(run.inputs[1].url).unlink()
    cleaner = bench.cleaner(run, bench.config, pace=PACE)
    cleaner.expect(run.inputs[1])
    cleaner.clean(run.inputs[0], bench.ignore)
    cleaner.expect(run.inputs[2])
    with pytest.raises(FileNotFoundError):
        cleaner.clean(run.inputs[1], bench.ignore)
    cleaner.clean(run.inputs[2], bench.ignore)
    assert read_commit(run, "00002") is not None


def test_a_reader_that_hangs_is_left(
    bench: Bench, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that answers no more must not keep an interrupt from ending the process."""
    gate, stuck = threading.Event(), threading.Event()

    def hang(*given: Any) -> Any:
        stuck.set()
        gate.wait(60)
        return open_samples(*given)

    def interrupt() -> None:
        stuck.wait(20)
        line = cleaner._line
        assert line is not None
        line._inbox.put(interrupted)

    interrupted: Any = pipeline.clean.line.batch.Written(None, 0, 0)  # type: ignore[arg-type]

    def report(_: int, __: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.clean.line.reading, "open_samples", hang)
    monkeypatch.setattr(pipeline.clean.line.line, "LEAVE_S", 0.3)
    cleaner = bench.cleaner(run, bench.config, pace=PACE)
    waker = threading.Thread(target=interrupt)
    waker.start()
    with pytest.raises(KeyboardInterrupt):
        cleaner.clean(run.inputs[0], report)
    waker.join(10)
    assert not cleaner.close(), "a thread is left, and it says so"
    assert endings(run)["00000"] == [Ending.RELEASED]
    gate.set()
    wait_until(lambda: all(t.name != "clean-reading" for t in threading.enumerate()))
