"""Progress by samples: rate and time left, with or without their number."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.cli.display import progress
from flows.cli.display.progress import (
    RunProgress,
    SampleProgress,
    counted,
    counted_by_bytes,
    watch_samples,
    watch_shards,
    watch_training,
)
from flows.engines.engine import ShardDone, ShardFailed, ShardQuarantined
from flows.stages import progress as stages_progress
from pipeline.evaluate import LabelledPair, read_pairs
from pipeline.search.build import items_of_tars
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.inputs.shard import InputShard
from shards.run.commit import Counts
from shards.store import Store

Lines = Callable[[], list[str]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still, and lines without a pause between them."""
    now = [0.0]
    stopped = SimpleNamespace(monotonic=lambda: now[0])
    for module in (progress, stages_progress):
        monkeypatch.setattr(module, "time", stopped)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    return now


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """What was written to standard error since the last call."""
    return lambda: capsys.readouterr().err.splitlines()


def test_a_known_number_gives_the_time_left(clock: list[float], lines: Lines) -> None:
    shown = SampleProgress("evaluating", 40)
    for _ in counted(range(10), shown):
        clock[0] += 0.5
    assert lines()[-1] == "evaluating: 10 of 40 samples, 2 samples/s, 15 s left"


def test_a_share_of_the_work_gives_the_time_left(clock: list[float], lines: Lines) -> None:
    shown = SampleProgress("indexing", None)
    shown.add(1)
    assert lines() == ["indexing: 1 sample, 1,000,000,000 samples/s"]
    clock[0] = 8.0
    shown.add(3, 0.25)
    assert lines() == ["indexing: 4 samples, 0 samples/s, 24 s left"]


def test_a_limit_is_nearer_than_the_end_of_the_tars(clock: list[float], lines: Lines) -> None:
    pairs = [LabelledPair("", b"", (), share_read=n / 100) for n in range(1, 11)]
    for _ in counted_by_bytes(pairs[:5], SampleProgress("evaluating", None), 10):
        clock[0] += 1
    assert lines()[-1] == "evaluating: 5 samples, 1 samples/s, 5 s left"
    for _ in counted_by_bytes(pairs, SampleProgress("evaluating", None), 1000):
        clock[0] += 1
    assert lines()[-1].endswith("90 s left")


def test_another_phase_counts_anew(clock: list[float], lines: Lines) -> None:
    shown = SampleProgress("evaluating", None)
    shown.add(7, 0.7)
    ranked = shown.phase("ranking")
    clock[0] += 100
    ranked(1, 4)
    clock[0] += 2
    ranked(2, 4)
    assert lines()[-1] == "ranking: 2 of 4 samples, 1 samples/s, 2 s left"


def test_lines_are_ten_seconds_apart(
    clock: list[float], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 10)
    shown = SampleProgress("judging", 100)
    for _ in counted(range(100), shown):
        clock[0] += 0.5
    assert [line.split()[1] for line in lines()] == ["20", "40", "60", "80", "100"]


@pytest.mark.parametrize("read", [read_pairs, items_of_tars])
def test_tars_tell_how_far_they_are_read(
    tmp_path: Path, clock: list[float], lines: Lines, read: Any
) -> None:
    write_toy_world(tmp_path, ToyWorldConfig(samples=60, samples_per_shard=25))
    (tmp_path / "zz.tar").write_bytes(b"no tar" * 1000)
    shares = []
    for sample in counted_by_bytes(read([str(tmp_path)]), SampleProgress("evaluating", None)):
        clock[0] += 1
        shares.append(sample.share_read)
    assert shares == sorted(shares)
    assert len(shares) == 61
    assert 0 < shares[0] < 0.1
    assert 0.9 < shares[-1] <= 1
    left = [int(match[1]) for line in lines() if (match := re.search(r"(\d+) s left", line))]
    assert 25 < left[30] < 35  # of 61 seconds
    assert left[-1] <= 5


def test_nothing_to_read_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").write_bytes(b"")
    assert [one.share_read for one in read_pairs([str(tmp_path / "empty.tar")])] == [0.0]


@pytest.fixture
def job() -> Any:
    """What a cleaning's progress reads of its job: 3 shards, of which 2 are to be done."""
    pending = tuple(InputShard(f"{n}.tar", f"{n}", 100 * n, "") for n in (1, 3))
    run = SimpleNamespace(store=Store("runs/first"))
    return SimpleNamespace(run=run, pending=pending, mine=(*pending, "one that is done"))


def test_a_cleaning_is_measured_in_bytes_of_its_input(
    clock: list[float], lines: Lines, job: Any
) -> None:
    with RunProgress().shown() as shown:
        shown.begin(job)
        assert lines() == [f"{job.run.store.url()}: 2 shards to clean, 1 done"]
        shown.under_way(0, 0)
        assert lines() == ["0/2 shards, 0 samples, 0.0 images/s, starting workers"]
        clock[0] = 10.0
        shown.under_way(25, 50)
        assert lines() == ["0/2 shards, 25 samples, 2.5 images/s, 70 s left"]
        clock[0] = 20.0
        shown.ended(ShardDone(job.pending[0], Counts(samples_in=40, kept=40), damaged=False))
        assert lines() == ["1/2 shards, 40 samples, 2.0 images/s, 60 s left"]
        shown.ended(ShardFailed(job.pending[1], "no [bold]space"))
        shown.ended(ShardQuarantined(job.pending[1], "it kills its workers"))
    assert lines() == [
        "shard 3 failed: no [bold]space",
        "shard 3 is put aside: it kills its workers",
    ]


@pytest.mark.parametrize("name", ["runs [v1]", "runs/x[/y]", "runs/[bold]"])
def test_a_runs_name_is_said_as_it_is(lines: Lines, job: Any, name: str) -> None:
    job.run.store = Store(name)
    with RunProgress().shown() as shown:
        shown.begin(job)
    assert f"{name}: 2 shards to clean" in lines()[0]


def test_a_shard_that_ends_takes_nothing_from_those_still_at_work(
    clock: list[float], lines: Lines, job: Any
) -> None:
    with RunProgress().shown() as shown:
        shown.begin(job)
        clock[0] = 10.0
        shown.under_way(60, 250)
        clock[0] = 20.0
        shown.ended(ShardDone(job.pending[0], Counts(samples_in=40, kept=40), damaged=False))
        assert lines()[-1] == "1/2 shards, 60 samples, 3.0 images/s, 12 s left"


def test_a_stop_says_where_the_run_stands(lines: Lines, job: Any) -> None:
    def break_off() -> None:
        with RunProgress().shown() as shown:
            shown.begin(job)
            shown.ended(ShardDone(job.pending[0], Counts(samples_in=40, kept=40), damaged=False))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert lines()[-1] == "2 of 3 shards committed; the same command goes on"


LINE = {"step": 4, "samples": 40, "loss": 1.25, "rate": 0.1, "lm": 0.5, "samples_per_s": 20.0}


def test_a_training_has_a_line_for_each_line_of_numbers(lines: Lines) -> None:
    with watch_training(10) as show:
        show({"step": 2})
        show(LINE)
        show(LINE | {"step": 10, "samples": 100})
    assert lines() == [
        "step 4 of 10: loss 1.250  lm 0.500, 20 samples/s, 3 s left",
        "step 10 of 10: loss 1.250  lm 0.500, 20 samples/s, 0 s left",
    ]


@pytest.mark.parametrize(
    ("seen", "where"), [((), "nothing is trained yet"), (({"step": 2}, LINE), "step 4 of 10")]
)
def test_a_training_that_is_stopped_says_where(
    lines: Lines, seen: tuple[dict[str, Any], ...], where: str
) -> None:
    def break_off() -> None:
        with watch_training(10) as show:
            for line in seen:
                show(line)
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        break_off()
    assert lines()[-1] == f"{where}; the same command goes on from what was saved last"


def test_shards_that_are_checked_have_no_lines(lines: Lines) -> None:
    with watch_shards("shards checked") as report:
        report(1, 2)
    assert lines() == []


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, lines: Lines) -> Callable[[], str]:
    """Standard error as a terminal of 80 columns; returns what was drawn, without its colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    return lambda: re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", "\n".join(lines()))


def test_a_terminal_has_bars(terminal: Callable[[], str], job: Any) -> None:
    with watch_samples("indexing", 4) as samples:
        samples.add(3)
    drawn = terminal()
    assert "indexing" in drawn
    assert re.search(r" 75%  [\d,]+ samples/s  left", drawn)
    with RunProgress().shown() as run:
        run.begin(job)
        run.under_way(10, 100)
    drawn = terminal()
    assert "0/2 shards" in drawn
    assert re.search(r" 25%  [\d.]+ images/s  left", drawn)
    with watch_training(10) as show:
        show({"step": 2})
        show(LINE)
    drawn = terminal()
    assert "training" in drawn
    assert re.search(r"loss 1.250  lm 0.500 .* 4/10  left", drawn)
    with watch_shards("shards checked") as report:
        report(1, 2)
        assert terminal().count("shards checked") >= 1


def test_a_training_that_was_done_before_draws_nothing(terminal: Callable[[], str]) -> None:
    with watch_training(10):
        pass
    assert terminal() == ""
