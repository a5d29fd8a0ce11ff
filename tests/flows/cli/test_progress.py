"""Progress by samples: rate and time left, with or without their number."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.cli import progress
from flows.cli.progress import SampleProgress, counted, counted_by_bytes
from pipeline.evaluate import LabelledPair, read_pairs
from pipeline.search.build import items_of_tars
from pipeline.toy.world import ToyWorldConfig, write_toy_world

Lines = Callable[[], list[str]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still, and lines without a pause between them."""
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
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
    assert lines() == ["indexing: 1 samples, 1,000,000,000 samples/s"]
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
