"""The training loop: what it computes, and that a kill at any moment costs nothing but time.

Two workers are processes that this file starts as a program, joined by gloo on loopback.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from models.augment import Augment
from models.schedule import RateConfig
from models.workers import ALONE, Workers
from pipeline import finetune, pretrain, training_state
from pipeline.alarm import TrainingDiverged
from pipeline.decode import Limits
from pipeline.feed import Feed, Wording
from pipeline.finetune import FinetuneConfig, StartConfig
from pipeline.objective import Moment, Objective
from pipeline.pretrain import LossConfig, ModelConfig, PretrainConfig
from pipeline.toy_world import ToyWorldConfig, write_toy_world
from pipeline.train import (
    DataConfig,
    Ended,
    Place,
    SaveConfig,
    StepConfig,
    TrainConfig,
    check_division,
    count_steps,
    train,
)
from shards.source import Source, SourceConfig, open_source
from shards.stream import TrainingStream

PAIRS, BROKEN, BATCH, STEPS = 21, 2, 6, 8  # two epochs and a little
LAYERS = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64}
CPU = torch.device("cpu")


def write_world(folder: Path) -> None:
    """Write human-annotated pairs, half of them false, and a tar with broken pictures among it."""
    write_toy_world(
        folder, ToyWorldConfig(samples=PAIRS, samples_per_shard=7, image_px=32, noise=0.5)
    )
    with tarfile.open(folder / "broken.tar", "w") as tar:
        for n in range(BROKEN):
            for name, data in ((f"b{n}.png", b"no picture"), (f"b{n}.txt", b"a red ring")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def config_of(world: Path, steps: int = STEPS, **changed: Any) -> PretrainConfig:
    whole = PretrainConfig(
        seed=3,
        dtype="fp32",
        data=DataConfig(
            sources=(SourceConfig(shards=(str(world),)),), lanes=6, shuffle=4, max_tokens=12
        ),
        rate=RateConfig(highest=1e-3, warmup_steps=3),
        step=StepConfig(epochs=None, steps=steps, batch_size=BATCH),
        save=SaveConfig(every_steps=2, log_every=1),
        model=ModelConfig(size="tiny", image_size=16, words=90, vision=LAYERS, text=LAYERS),
        loss=LossConfig(queue=20, ramp_epochs=1, momentum=0.9),
    )
    return whole.model_copy(update=changed)


def sources_of(config: TrainConfig) -> list[Source]:
    return [open_source(source) for source in config.data.sources]


def run(
    config: PretrainConfig, start: Path, folder: Path, workers: Workers = ALONE
) -> tuple[Ended, Objective]:
    """Train from a start folder to the end, or from where it was left."""
    folder.mkdir(exist_ok=True)
    objective = pretrain.start(start, config)
    place = Place(folder, CPU, workers)
    return train(config, "fp32", sources_of(config), objective, place), objective


def lines(folder: Path) -> list[dict[str, Any]]:
    """Read the numbers of a training, but for its pace."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name != "samples_per_s"} for line in found
    ]


def last_state(folder: Path) -> dict[str, bytes]:
    """Read every file of the newest state: network, copies, queue, pointer, optimiser, place."""
    newest = training_state.newest(folder / "states")
    assert newest is not None
    return {path.name: path.read_bytes() for path in newest.iterdir()} | {
        "name": newest.name.encode()
    }


def progress(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(last_state(folder)["progress.json"])
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """The random network that trainings start from."""
    path = tmp_path_factory.mktemp("start") / "start"
    config = config_of(world)
    pretrain.write_start(path, config, sources_of(config))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, world: Path, start: Path) -> tuple[Path, Ended]:
    """An unbroken training."""
    folder = tmp_path_factory.mktemp("whole") / "training"
    ended, _ = run(config_of(world), start, folder)
    return folder, ended


# --- what it computes


def test_the_loss_falls(world: Path, start: Path, tmp_path: Path) -> None:
    config = config_of(world, 40, rate=RateConfig(highest=3e-3, warmup_steps=5))
    run(config, start, tmp_path / "training")
    found = lines(tmp_path / "training")
    for name in ("loss", "lm"):  # ITC has more candidates as the queue fills
        first, last = ([line[name] for line in part] for part in (found[:8], found[-8:]))
        assert sum(last) < 0.9 * sum(first), name


def test_steps_and_samples_are_counted(whole: tuple[Path, Ended]) -> None:
    folder, ended = whole
    rows = PAIRS + BROKEN
    assert (ended.steps, ended.samples) == (STEPS, STEPS * BATCH)
    assert ended.epochs == pytest.approx(STEPS * BATCH / rows)
    assert [line["step"] for line in lines(folder)] == list(range(1, STEPS + 1))
    assert [line["samples"] for line in lines(folder)] == [BATCH * n for n in range(1, STEPS + 1)]
    assert ended.numbers == {name: lines(folder)[-1][name] for name in ended.numbers}
    assert {"loss", "itc", "itm", "lm", "temperature", "grad_norm"} == ended.numbers.keys()
    states = sorted(path.name for path in (folder / "states").iterdir())
    assert states == ["step-00000006", "step-00000008"]


def test_each_sample_is_trained_on_or_counted(whole: tuple[Path, Ended]) -> None:
    folder, ended = whole
    taken = sum(progress(folder)["positions"].values())
    assert taken == ended.samples + sum(ended.left_out.values())
    epochs = taken / (PAIRS + BROKEN)
    assert 2 < epochs < 3
    # twice in two epochs, and a third time if it came early in the third
    assert 2 * BROKEN <= ended.left_out["image_undecodable"] <= 3 * BROKEN
    assert progress(folder)["left_out"] == ended.left_out


def test_human_pairs_pass_unfiltered(world: Path, start: Path, tmp_path: Path) -> None:
    """Half of these texts are false, and one epoch trains on every pair."""
    source = SourceConfig(shards=(str(world / "0000*.tar"),))
    data = DataConfig(sources=(source,), lanes=3, shuffle=4, max_tokens=12)
    step = StepConfig(epochs=1, batch_size=3)
    ended, _ = run(config_of(world, data=data, step=step), start, tmp_path / "training")
    assert (ended.steps, ended.samples, ended.epochs) == (PAIRS // 3, PAIRS, 1.0)
    assert ended.left_out == {}
    assert list(progress(tmp_path / "training")["positions"].values()) == [PAIRS // 3] * 3


def caption_config(world: Path, start: Path, **changed: Any) -> FinetuneConfig:
    shared = config_of(world).model_dump(exclude={"model", "loss"})
    return FinetuneConfig.model_validate(
        shared | {"task": "captioner", "model": StartConfig(start=str(start), dropout=0)} | changed
    )


@pytest.mark.parametrize(("parts", "clip"), [(1, None), (2, 0.05)])
def test_the_loop_is_a_plain_loop(
    world: Path, start: Path, tmp_path: Path, parts: int, clip: float | None
) -> None:
    """Compare with a few lines that do the same without anything around it."""
    step = StepConfig(epochs=None, steps=3, batch_size=2 * BATCH, accumulate=parts, clip=clip)
    config = caption_config(world, start, step=step)
    trained = finetune.start(config)
    train(config, "fp32", sources_of(config), trained, Place(tmp_path, CPU, ALONE))

    plain = finetune.start(config)
    optimiser = torch.optim.AdamW(plain.parameters(), lr=1.0, weight_decay=0.05)
    stream = TrainingStream(sources_of(config), config.seed, config.data.lanes, config.data.shuffle)
    about = plain.about
    feed = Feed(
        stream,
        Augment(about.preprocess, config.augment),
        Wording(about.tokenizer, config.data.max_tokens),
        2 // parts,
        Limits(16, 50_000_000, 20),
    )
    with feed:
        batches = islice(feed, 3 * parts)
        for number in range(3):
            optimiser.param_groups[0]["lr"] = 1e-6 + (1e-3 - 1e-6) * number / 3
            for _ in range(parts):
                moment = Moment(0, torch.Generator(), ALONE)
                (plain(next(batches), moment)["loss"] / parts).backward()
            if clip is not None:
                norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), clip)
                assert norm > clip
            optimiser.step()
            optimiser.zero_grad()
    for (name, ours), theirs in zip(
        trained.network.named_parameters(), plain.network.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-6, msg=name)


def test_momentum_copies_move_once_in_a_step(world: Path, start: Path, tmp_path: Path) -> None:
    step = StepConfig(epochs=None, steps=2, batch_size=2 * BATCH, accumulate=2)
    save = SaveConfig(every_steps=1, log_every=1)
    run(config_of(world, step=step, save=save), start, tmp_path / "training")
    first, second = (
        load_file(tmp_path / "training" / "states" / f"step-0000000{n}" / "network.safetensors")
        for n in (1, 2)
    )
    checked = 0
    for name, copy in second.items():
        if "_m." in name:
            leader = first[name.replace("_m.", ".", 1)]
            expected = 0.9 * first[name] + 0.1 * leader
            torch.testing.assert_close(copy, expected, atol=1e-7, rtol=1e-5, msg=name)
            checked += int((leader - first[name]).abs().max() > 1e-7)
    assert checked > 20
    assert progress(tmp_path / "training")["samples"] == 4 * BATCH
    newest = tmp_path / "training" / "states" / "step-00000002" / "beside.safetensors"
    assert load_file(newest)["queue_ptr"].item() == 4 * BATCH % 20


@pytest.mark.parametrize(
    ("step", "rows", "expected"),
    [
        (StepConfig(epochs=1, batch_size=10), 100, 10),
        (StepConfig(epochs=1, batch_size=10), 101, 11),
        (StepConfig(epochs=1.1, batch_size=1), 10, 11),  # 11.000000000000002 in binary numbers
        (StepConfig(epochs=0.5, batch_size=4), 20.4, 3),
        (StepConfig(epochs=None, steps=7, batch_size=10), 100, 7),
    ],
)
def test_epochs_are_counted_in_steps(step: StepConfig, rows: float, expected: int) -> None:
    assert count_steps(step, rows) == expected


@pytest.mark.parametrize(
    ("workers", "step", "told"),
    [
        (4, {}, r"data\.lanes is 6, which 4 workers do not divide"),
        (1, {"batch_size": 8}, r"step\.batch_size is 8; expected a multiple .* = 6"),
        (1, {"accumulate": 2}, r"step\.batch_size is 6; expected a multiple .* = 12"),
        (1, {"epochs": 2.0}, r"give one of step\.epochs and step\.steps"),
        (1, {"steps": None}, r"give one of step\.epochs and step\.steps"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    tmp_path: Path, workers: int, step: dict[str, Any], told: str
) -> None:
    config = config_of(tmp_path)
    changed = config.model_copy(update={"step": config.step.model_copy(update=step)})
    check_division(config, 3)
    with pytest.raises(ValueError, match=told):
        check_division(changed, workers)


# --- when it goes wrong


def test_a_loss_that_is_no_number_ends_it_and_spoils_no_state(
    world: Path, start: Path, tmp_path: Path
) -> None:
    rate = RateConfig(highest=1e30, warmup_steps=3, warmup_from=1e-4)
    save = SaveConfig(every_steps=1, log_every=1)
    config = config_of(world, rate=rate, save=save)
    with pytest.raises(TrainingDiverged, match="is not finite") as raised:
        run(config, start, tmp_path / "training")
    assert "rate.highest" in str(raised.value)
    saved = len(lines(tmp_path / "training"))
    assert 1 <= saved < STEPS
    newest = training_state.newest(tmp_path / "training" / "states")
    assert newest is not None
    assert newest.name == f"step-{saved:08}"
    for file in newest.glob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values()), file
    with pytest.raises(TrainingDiverged):  # and it is the same when it is taken up
        run(config, start, tmp_path / "training")
    assert len(lines(tmp_path / "training")) == saved


def test_alarms_are_told_once_also_across_a_restart(
    world: Path, start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rate = RateConfig(highest=0.5, warmup_steps=0)
    for steps in (4, 6):
        ended, _ = run(config_of(world, steps, rate=rate), start, tmp_path / "training")
        assert sum("temperature at its bound" in text for text in ended.alarms) == 1
    told = [record.getMessage() for record in caplog.records]
    assert sum("temperature at its bound" in text for text in told) == 1


# --- kills


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


def same(folder: Path, ended: Ended, whole: tuple[Path, Ended]) -> None:
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
    places: Callable[[list[str]], list[int]],
    work: Callable[[Path], object],
    whole: tuple[Path, Ended],
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    assert killed(lambda: work(tmp_path / "count"), tmp_path / "count", None, log) == 0
    steps = log.read_text().splitlines()
    for kind in ("os.mkdir .step-00000006.partial", "open progress.json", "open metrics.jsonl"):
        assert kind in steps
    assert "os.rename .step-00000006.partial step-00000006" in steps
    assert "os.rename step-00000002 .step-00000002.old.partial" in steps
    for place in places(steps):
        folder = tmp_path / f"{place:03}"
        status = killed(lambda: work(folder), folder, place, log)  # noqa: B023 - called at once
        assert os.WTERMSIG(status) == signal.SIGKILL, steps[place]
        ended, _ = work(folder)  # type: ignore[misc]
        same(folder, ended, whole)
        shutil.rmtree(folder)


def test_killed_here_and_there_it_ends_as_if_it_was_not(
    world: Path, start: Path, whole: tuple[Path, Ended], tmp_path: Path
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


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_killed_anywhere_it_ends_as_if_it_was_not(
    world: Path, start: Path, whole: tuple[Path, Ended], tmp_path: Path
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
    world: Path, start: Path, whole: tuple[Path, Ended], tmp_path: Path
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
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
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
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
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
