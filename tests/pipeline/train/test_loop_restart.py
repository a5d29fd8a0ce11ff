"""A training that is killed at any moment loses nothing but time, with one worker and with two.

Two workers are processes that this file starts as a program, joined by gloo on loopback.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from models.training.schedule import RateConfig
from models.training.workers import Workers
from pipeline.train.loop import TrainResult
from tests.conftest import REPOSITORY
from tests.support.small_training import BROKEN, STEPS, config_of, last_state, lines, progress, run

pytestmark = pytest.mark.slow


def killed(task: Callable[[], object], folder: Path, stop_before: int | None, log: Path) -> int:
    """Do a task in a process that dies before its n-th change in a folder; give its status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    count, steps = 0, log.open("w")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        opens = event == "open" and isinstance(args[1], str) and args[1][0] in "wxa"
        if event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") and not opens:
            return
        paths = args[:1] if event == "open" else args[:2]  # the other one is its mode
        names = [os.fsdecode(arg) for arg in paths if isinstance(arg, (str, bytes, os.PathLike))]
        if not any(str(folder) in name for name in names):
            return
        if count == stop_before:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        steps.write(f"{event} {' '.join(Path(name).name for name in names)}\n")
        steps.flush()

    sys.addaudithook(hook)
    try:
        task()
        os._exit(0)
    finally:
        os._exit(1)


def same(folder: Path, ended: TrainResult, whole: tuple[Path, TrainResult]) -> None:
    """Assert that a training ended as the unbroken one, to the last bit."""
    assert ended == whole[1]
    assert lines(folder) == lines(whole[0])
    ours, theirs = last_state(folder), last_state(whole[0])
    assert ours.keys() == theirs.keys()
    for name, content in theirs.items():
        assert ours[name] == content, name
    left = [path.name for path in (folder / "states").iterdir()]
    assert not [name for name in left if "partial" in name]


def kill_and_go_on(
    choose: Callable[[list[str]], list[int]],
    work: Callable[[Path], tuple[TrainResult, Any]],
    whole: tuple[Path, TrainResult],
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    assert killed(lambda: work(tmp_path / "count"), tmp_path / "count", None, log) == 0
    steps = log.read_text().splitlines()
    for kind in ("os.mkdir .step-00000006.partial", "open progress.json", "open metrics.jsonl"):
        assert kind in steps
    assert "os.rename .step-00000006.partial step-00000006" in steps
    assert "os.rename step-00000002 .step-00000002.old.partial" in steps
    for index in choose(steps):
        folder = tmp_path / f"{index:03}"
        status = killed(lambda: work(folder), folder, index, log)  # noqa: B023 - called at once
        assert os.WTERMSIG(status) == signal.SIGKILL, steps[index]
        ended, _ = work(folder)
        same(folder, ended, whole)
        shutil.rmtree(folder)


def test_killed_here_and_there_it_ends_as_if_it_was_not(
    world: Path, start: Path, whole: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    def some(steps: list[str]) -> list[int]:
        """Within the first step, a save, a removal, between two saves, and at the last save."""
        return [
            steps.index("open metrics.jsonl"),
            steps.index("open progress.json"),
            steps.index("os.rename .step-00000006.partial step-00000006"),
            steps.index("os.rename step-00000002 .step-00000002.old.partial") + 2,
            len(steps) - 1,
        ]

    kill_and_go_on(some, lambda folder: run(config_of(world), start, folder), whole, tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(1_200)
def test_killed_anywhere_it_ends_as_if_it_was_not(
    world: Path, start: Path, whole: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    def every(steps: list[str]) -> list[int]:
        return list(range(len(steps)))

    kill_and_go_on(every, lambda folder: run(config_of(world), start, folder), whole, tmp_path)


def test_dropout_continues_bit_for_bit_too(world: Path, start: Path, tmp_path: Path) -> None:
    model = config_of(world).model.model_copy(update={"dropout": 0.3, "drop_path": 0.3})
    calm = config_of(world).model.model_copy(update={"dropout": 0, "drop_path": 0})
    for name, steps in (("whole", (6,)), ("parts", (2, 3, 6))):
        for until in steps:
            run(config_of(world, until, model=model), start, tmp_path / name)
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    assert last_state(tmp_path / "parts") == last_state(tmp_path / "whole")
    run(config_of(world, 2, model=calm), start, tmp_path / "calm")
    assert lines(tmp_path / "calm")[0]["lm"] != lines(tmp_path / "whole")[0]["lm"]


def test_what_is_done_is_not_done_again(
    world: Path, start: Path, whole: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy" / "states").rglob("*")}
    ended, _ = run(config_of(world), start, tmp_path / "copy")
    assert ended == whole[1]
    assert before == {path: path.stat().st_mtime_ns for path in before}


# --- two workers


def two_workers(rank: int, world: Path, start: Path, folder: Path) -> None:
    """Be one of two workers, of an unbroken training and then of one in two parts."""
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", store, rank=rank, world_size=2)
    for name, all_steps in (("whole", (STEPS,)), ("parts", (4, STEPS)), ("half", (4,))):
        for steps in all_steps:
            config = config_of(world, steps, **CALM)
            ended, _ = run(config, start, folder / name, Workers(rank, 2))
            (folder / f"{name}-{rank}.json").write_text(json.dumps(ended.left_out))
    dist.destroy_process_group()


# without dropout, and so slow that AdamW's first steps do not make rounding large
CALM: dict[str, Any] = {
    "model": config_of(Path()).model.model_copy(update={"dropout": 0.0}),
    "rate": RateConfig(highest=1e-4, warmup_steps=3),
}


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory, world: Path, start: Path) -> Path:
    """Trainings of two workers."""
    folder = tmp_path_factory.mktemp("two")
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    arguments = [str(path) for path in (world, start, folder)]
    started = [
        subprocess.Popen([sys.executable, __file__, str(rank), *arguments], env=environment)
        for rank in range(2)
    ]
    assert [process.wait(timeout=150) for process in started] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def by_one(tmp_path_factory: pytest.TempPathFactory, world: Path, start: Path) -> Path:
    """The same training by one worker."""
    folder = tmp_path_factory.mktemp("one") / "training"
    run(config_of(world, **CALM), start, folder)
    return folder


def close(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs) == STEPS
    for line, other in zip(ours, theirs, strict=True):
        norms = line.pop("grad_norm"), other.pop("grad_norm")
        assert norms[0] == pytest.approx(norms[1], rel=1e-4)
        assert line == pytest.approx(other, abs=1e-5, rel=0), line["step"]


def test_two_workers_learn_what_one_learns(by_two: Path, by_one: Path) -> None:
    close(lines(by_two / "whole"), lines(by_one))
    for file in ("network.safetensors", "beside.safetensors"):
        ours, theirs = (
            load_file(folder / "states" / f"step-{STEPS:08}" / file)
            for folder in (by_two / "whole", by_one)
        )
        for name, tensor in theirs.items():
            torch.testing.assert_close(ours[name], tensor, atol=1e-4, rtol=1e-4, msg=name)


def test_two_workers_go_on_after_a_restart(by_two: Path) -> None:
    assert lines(by_two / "parts") == lines(by_two / "whole")
    assert last_state(by_two / "parts") == last_state(by_two / "whole")


def test_a_training_of_two_workers_is_finished_by_one(
    by_two: Path, by_one: Path, world: Path, start: Path, tmp_path: Path
) -> None:
    shutil.copytree(by_two / "half", tmp_path / "half")
    ended, _ = run(config_of(world, **CALM), start, tmp_path / "half")
    close(lines(tmp_path / "half"), lines(by_one))
    assert ended.left_out == progress(by_one)["left_out"]


def test_a_broken_picture_is_counted_once_however_many_workers(by_two: Path, by_one: Path) -> None:
    expected = progress(by_one)
    assert expected["left_out"]["image_undecodable"] >= 2 * BROKEN
    for name in ("whole", "parts"):
        found = progress(by_two / name)
        assert found["left_out"] == expected["left_out"], name
        assert found["positions"] == expected["positions"], name
        for rank in range(2):  # and every worker knows the sum
            told = json.loads((by_two / f"{name}-{rank}.json").read_text())
            assert told == expected["left_out"]


def test_a_progress_of_other_lanes_is_refused(world: Path, start: Path, tmp_path: Path) -> None:
    run(config_of(world, 2), start, tmp_path / "training")
    state = tmp_path / "training" / "states" / "step-00000002" / "progress.json"
    found = json.loads(state.read_text())
    del found["positions"]["3"]
    state.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"no position is given of lanes \[3\]"):
        run(config_of(world, 4), start, tmp_path / "training")


if __name__ == "__main__":
    two_workers(int(sys.argv[1]), *map(Path, sys.argv[2:]))
