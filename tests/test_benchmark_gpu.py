"""The benchmark for a GPU: its lines, limits and resumption here, each stage as a smoke."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.bench.gpu import command
from scripts.bench.gpu.runner import Case, guarded, run_stage
from scripts.bench.gpu.stages import STAGES

ROOT = Path(__file__).parents[1]
# What the machine with the GPU may lack is not to be found.
WITHOUT = """
import importlib.machinery, sys
finder = importlib.machinery.PathFinder
plain = finder.find_spec
def find_spec(name, path=None, target=None):
    absent = name.partition(".")[0] in ("ray", "prefect")
    return None if absent else plain(name, path, target)
finder.find_spec = staticmethod(find_spec)
from scripts.bench.gpu.command import main
code = main(sys.argv[1:])
assert not {"ray", "prefect"} & sys.modules.keys()
sys.exit(code)
"""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_stages_fit_into_the_time_that_there_is() -> None:
    assert max(stage.limit_s for stage in STAGES) <= 8 * 60
    assert sum(stage.limit_s for stage in STAGES) <= 25 * 60
    assert [stage.name for stage in STAGES][:2] == ["environment", "correctness"]


def test_a_case_that_fails_or_hangs_leaves_a_line_and_the_others_go_on(tmp_path: Path) -> None:
    def fail() -> Mapping[str, Any]:
        raise ValueError("no such kernel")

    def hang() -> Mapping[str, Any]:
        time.sleep(30)
        return {}

    cases = [Case("fails", fail), Case("hangs", hang, 0.2), Case("works", lambda: {"ms": 1.5})]
    counts = run_stage("parts", cases, tmp_path, 20, {"note": "unmeasured"})
    assert counts == {"measured": 1, "failed": 2, "left": 0, "there": 0}
    failed, hung, worked, end = lines(tmp_path / "parts.jsonl")
    assert failed["error"] == "ValueError: no such kernel"
    assert "test_benchmark_gpu.py:" in failed["at"]
    assert hung["error"].startswith("OutOfTime")
    assert hung["seconds"] < 5
    assert (worked["case"], worked["ms"], worked["note"]) == ("works", 1.5, "unmeasured")
    assert end["case"] == "end"


def test_a_stage_begun_again_does_what_has_no_line(tmp_path: Path) -> None:
    done: list[str] = []

    def work(name: str) -> Mapping[str, Any]:
        done.append(name)
        if name == "b" and len(done) == 2:
            raise ValueError
        return {}

    cases = [Case(name, lambda name=name: work(name)) for name in "abc"]  # type: ignore[misc]
    run_stage("arms", cases[:2], tmp_path, 20, {})
    with (tmp_path / "arms.jsonl").open("a") as file:
        file.write('{"stage": "arms", "case": "c", "sec')  # a kill in the middle of a line
    counts = run_stage("arms", cases, tmp_path, 20, {})
    assert done == ["a", "b", "b", "c"]
    assert counts == {"measured": 2, "failed": 0, "left": 0, "there": 1}
    assert run_stage("arms", cases, tmp_path, 20, {})["there"] == 3


def test_a_smoke_does_not_stand_for_a_measurement(tmp_path: Path) -> None:
    smoke, cases = {"note": "unmeasured"}, [Case("a", dict)]
    for _ in range(2):
        run_stage("arms", cases, tmp_path, 20, smoke)
    assert run_stage("arms", cases, tmp_path, 20, {})["measured"] == 1
    assert run_stage("arms", cases, tmp_path, 20, {})["there"] == 1
    assert [line["case"] for line in lines(tmp_path / "arms.jsonl")].count("a") == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_without_a_gpu_it_says_so_at_once(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([f"--device={device}", f"--out={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("benchmark_gpu: ")
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_nothing_is_begun_without_time(tmp_path: Path) -> None:
    counts = run_stage("arms", [Case("a", dict)], tmp_path, 1.0, {})
    assert counts == {"measured": 0, "failed": 0, "left": 1, "there": 0}


def test_what_fails_before_the_first_case_is_told(tmp_path: Path) -> None:
    def prepare() -> Iterator[Case]:
        yield Case(str(1 / 0), dict)

    assert run_stage("arms", guarded(prepare, "preparing"), tmp_path, 20, {})["failed"] == 1
    assert lines(tmp_path / "arms.jsonl")[0]["error"] == "ZeroDivisionError: division by zero"


def test_a_stage_that_does_not_come_back_is_ended(tmp_path: Path) -> None:
    """A loop that no signal reaches, as in a driver: the watchdog ends the process."""
    body = f"""
import signal
from pathlib import Path
from scripts.bench.gpu import runner
runner.GRACE_S = 0.5
def hang():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    while True:
        pass
runner.run_stage("arms", [runner.Case("hangs", hang)], Path({str(tmp_path)!r}), 3.0, {{}})
"""
    done = subprocess.run(
        [sys.executable, "-c", body], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "in hang" in done.stderr


@pytest.mark.nightly
@pytest.mark.parametrize("stage", [stage.name for stage in STAGES])
def test_each_stage_runs_on_a_cpu_without_ray_and_prefect(stage: str, tmp_path: Path) -> None:
    arguments = [f"--stage={stage}", "--smoke", "--device=cpu", f"--out={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *measured, end = lines(tmp_path / f"{stage}.jsonl")
    assert end["measured"] == len(measured) > 0
    assert all("unmeasured" in line["note"] for line in measured)
    # as the door prints them
    assert [json.loads(line) for line in done.stdout.splitlines()] == [*measured, end]


@pytest.mark.nightly
def test_the_door_does_each_stage_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [stage for stage in STAGES if stage.name in ("ceilings", "parts")]
    monkeypatch.setattr(command, "STAGES", few)
    monkeypatch.chdir(tmp_path)
    assert command.main(["--smoke", "--device=cpu", "--out=here"]) == 0
    for stage in few:
        *measured, end = lines(tmp_path / "here" / f"{stage.name}.jsonl")
        assert end["measured"] == len(measured) > 0
