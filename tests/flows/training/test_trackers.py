"""Trackers: numbers arrive where they were sent, and no tracker stops a training."""

import json
import logging
import math
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from flows.training.trackers import Kind, TrackerError, open_trackers

Scalars = list[tuple[int, str, float]]
CONFIG = {"seed": 3, "optimiser": {"rate": 1e-4}, "folder": Path("out")}

# What the foreign packages offer, as far as it is used; every call is written to a file.
WANDB = """
import json
from pathlib import Path

def note(*call):
    with Path({notes!r}).open("a") as file:
        file.write(json.dumps(call) + "\\n")

class Run:
    def log(self, numbers, step):
        note("log", step, numbers)
        if {fails}(step):
            raise ConnectionError(f"no route at step {{step}}")
    def finish(self):
        note("finish")

def init(project, name, dir, config):
    note("init", project, name, config)
    return Run()
"""
MLFLOW = """
import json, re
from pathlib import Path

def note(*call):
    with Path({notes!r}).open("a") as file:
        file.write(json.dumps(call) + "\\n")

def set_experiment(name):
    note("experiment", name)

def start_run(run_name, tags):
    note("start", run_name)

def log_dict(values, file):
    note("dict", values, file)

def log_metrics(numbers, step):
    for name in numbers:
        if not re.fullmatch(r"[\\w./ -]+", name):
            raise ValueError(f"Invalid metric name: {{name!r}}")
    note("log", step, numbers)

def end_run():
    note("end")
"""


def events(folder: Path) -> Iterator[Event]:
    """Read all event files of a folder: length, its checksum, the event, its checksum."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack_from("<Q", data)
            yield Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]


def scalars(folder: Path) -> Scalars:
    return [
        (event.step, value.tag, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
        if not value.HasField("tensor")
    ]


@pytest.fixture
def install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Callable[[], Any]]]:
    """Put a foreign package in place; gives what reads the calls that it got."""

    def put(name: str, source: str, fails: str = "(lambda step: False)") -> Callable[[], Any]:
        notes = tmp_path / f"{name}.jsonl"
        package = tmp_path / f"{name}-package"
        package.mkdir()
        (package / f"{name}.py").write_text(source.format(notes=str(notes), fails=fails))
        monkeypatch.syspath_prepend(str(package))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return lambda: [json.loads(line) for line in notes.read_text().splitlines()]

    yield put
    for name in ("wandb", "mlflow"):
        sys.modules.pop(name, None)


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    tracker = open_trackers(["tensorboard"], tmp_path, "first", CONFIG)
    for step in range(1, 31):
        tracker.log(step, {"loss/itc": 1 / step, "rate": step * 1e-6, "n": step})
    tracker.log(31, {"loss/itc": math.nan})
    tracker.close()
    logged = scalars(tmp_path / "first")
    assert len(logged) == 91
    expected = [
        (step, tag, value)
        for step in range(1, 31)
        for tag, value in (("loss/itc", 1 / step), ("rate", step * 1e-6), ("n", step))
    ]
    for (step, tag, value), wanted in zip(logged, expected, strict=False):
        assert (step, tag) == wanted[:2]
        assert value == pytest.approx(wanted[2], rel=1e-6)
    assert math.isnan(logged[-1][2])
    texts = [
        value.tensor.string_val[0].decode()
        for event in events(tmp_path / "first")
        for value in event.summary.value
        if value.HasField("tensor")
    ]
    assert len(texts) == 1
    kept = json.loads(texts[0].removeprefix("```json").removesuffix("```"))
    assert kept == {"seed": 3, "optimiser": {"rate": 1e-4}, "folder": "out"}


def test_a_resumed_training_overwrites_nothing_and_hides_the_steps_it_repeats(
    tmp_path: Path,
) -> None:
    for first, last in ((1, 6), (4, 9)):  # within one second: the files' names hold no finer time
        tracker = open_trackers(["tensorboard"], tmp_path, "run", {})
        for step in range(first, last):
            tracker.log(step, {"loss": step})
        tracker.close()
    found = scalars(tmp_path / "run")
    assert sorted(step for step, _, _ in found) == sorted([*range(1, 6), *range(4, 9)])
    starts = [e.step for e in events(tmp_path / "run") if e.session_log.status == SessionLog.START]
    assert sorted(starts) == [1, 4]


def test_several_trackers_get_the_same_numbers(tmp_path: Path, install: Any) -> None:
    wandb, mlflow = install("wandb", WANDB), install("mlflow", MLFLOW)
    kinds: list[Kind] = ["tensorboard", "wandb", "mlflow", "wandb"]  # named twice, opened once
    tracker = open_trackers(kinds, tmp_path, "run", CONFIG)
    tracker.log(5, {"loss": 0.5, "tr@1": 0.25})
    tracker.close()
    plain = {"seed": 3, "optimiser": {"rate": 1e-4}, "folder": "out"}
    assert wandb() == [
        ["init", "capfilt", "run", plain],
        ["log", 5, {"loss": 0.5, "tr@1": 0.25}],
        ["finish"],
    ]
    assert mlflow() == [
        ["experiment", "capfilt"],
        ["start", "run"],
        ["dict", plain, "config.json"],
        ["log", 5, {"loss": 0.5, "tr_1": 0.25}],  # MLflow refuses the sign
        ["end"],
    ]
    assert [(step, value) for step, _, value in scalars(tmp_path / "run")] == [(5, 0.5), (5, 0.25)]


def test_no_tracker_is_a_tracker_too(tmp_path: Path) -> None:
    tracker = open_trackers([], tmp_path, "run", {})
    tracker.log(1, {"loss": 1.0})
    tracker.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_a_package_that_is_not_there_is_named_before_anything_starts(
    tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)  # as if it were not installed
    with pytest.raises(TrackerError, match=f"pip install {kind}"):
        open_trackers(["tensorboard", kind], tmp_path, "run", {})
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tracker_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(TrackerError, match="'tensorbord'; there are tensorboard, wandb, mlflow"):
        open_trackers(["tensorbord"], tmp_path, "run", {})  # type: ignore[list-item]  # no such one


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_one_that_cannot_be_opened_is_reported_and_the_others_go_on(
    tmp_path: Path, install: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calls = install("wandb", WANDB)
    (tmp_path / "run").write_text("a file where the folder should be")
    tracker = open_trackers(["tensorboard", "wandb"], tmp_path, "run", {})
    for step in range(3):
        tracker.log(step, {"loss": 1.0})
    tracker.close()
    (said,) = warnings(caplog)
    assert "tracker tensorboard cannot be opened (FileExistsError" in said
    assert [call[0] for call in calls()] == ["init", "log", "log", "log", "finish"]


def test_one_that_fails_now_and_then_goes_on_and_says_what_it_lost(
    tmp_path: Path, install: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calls = install("wandb", WANDB, fails="(lambda step: step % 3 == 1)")
    tracker = open_trackers(["wandb", "tensorboard"], tmp_path, "run", {})
    for step in range(12):
        tracker.log(step, {"loss": 1.0})
    tracker.close()
    assert len([call for call in calls() if call[0] == "log"]) == 12
    first, last = warnings(caplog)
    assert "tracker wandb fails at step 1 (ConnectionError: no route at step 1)" in first
    assert "lost the numbers of 4 steps" in last
    assert [step for step, _, _ in scalars(tmp_path / "run")] == list(range(12))


def test_one_that_keeps_failing_is_given_up(
    tmp_path: Path, install: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each try may cost a network's time-out."""
    calls = install("wandb", WANDB, fails="(lambda step: step >= 5)")
    tracker = open_trackers(["wandb"], tmp_path, "run", {})
    for step in range(100):
        tracker.log(step, {"loss": 1.0})
    tracker.close()
    tried = [call[1] for call in calls() if call[0] == "log"]
    assert tried == [0, 1, 2, 3, 4, 5, 6, 7]
    first, last = warnings(caplog)
    assert "fails at step 5" in first
    assert "lost the numbers of 95 steps" in last


FULL_DISK = """
import resource, sys
from flows.training.trackers import open_trackers
tracker = open_trackers(["tensorboard"], sys.argv[1], "run", {})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for step in range(5_000):
    tracker.log(step, {"loss": 1.0, "rate": 0.1})
tracker.close()
print("trained")
"""


def test_a_full_disk_stops_no_training(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "trained\n"
    assert done.stderr.count("fails at step") == 1
    assert "lost the numbers of" in done.stderr
    (written,) = (tmp_path / "run").iterdir()
    assert 0 < written.stat().st_size <= 20_000
