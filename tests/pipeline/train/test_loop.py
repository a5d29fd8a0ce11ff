"""The training loop: what it computes, counts and refuses."""

import threading
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.training.augment import Augment
from models.training.schedule import RateConfig
from models.training.workers import ALONE
from pipeline.media.decode import DecodeLimits
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from pipeline.train import finetune
from pipeline.train import state as training_state
from pipeline.train.alarm import TrainingDiverged
from pipeline.train.config import DataConfig, SaveConfig, StepConfig
from pipeline.train.dataloader import BatchLoader, TextTransform
from pipeline.train.finetune_config import FinetuneConfig, StartConfig
from pipeline.train.loop import TrainingContext, TrainResult, train
from pipeline.train.objective import StepContext
from shards.training.source import SourceConfig
from shards.training.stream import TrainingStream
from tests.support.small_training import (
    BATCH,
    BROKEN,
    CPU,
    PAIRS,
    STEPS,
    config_of,
    lines,
    progress,
    run,
    sources_of,
)


def test_the_loss_falls(world: Path, start: Path, tmp_path: Path) -> None:
    config = config_of(world, 40, rate=RateConfig(highest=3e-3, warmup_steps=5))
    run(config, start, tmp_path / "training")
    found = lines(tmp_path / "training")
    for name in ("loss", "lm"):  # ITC has more candidates as the queue fills
        first, last = ([line[name] for line in part] for part in (found[:8], found[-8:]))
        assert sum(last) < 0.9 * sum(first), name


def test_steps_and_samples_are_counted(whole: tuple[Path, TrainResult]) -> None:
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


def test_each_sample_is_trained_on_or_counted(whole: tuple[Path, TrainResult]) -> None:
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
    trained = finetune.start_finetuning(config)
    train(config, "fp32", sources_of(config), trained, TrainingContext(tmp_path, CPU, ALONE))

    plain = finetune.start_finetuning(config)
    optimiser = torch.optim.AdamW(plain.parameters(), lr=1.0, weight_decay=0.05)
    stream = TrainingStream(sources_of(config), config.seed, config.data.lanes, config.data.shuffle)
    about = plain.about
    feed = BatchLoader(
        stream,
        Augment(about.preprocess, config.augment),
        TextTransform(about.tokenizer, config.data.max_tokens),
        2 // parts,
        DecodeLimits(16, 50_000_000, 20),
    )
    with closing(feed):
        batches = islice(feed, 3 * parts)
        for number in range(3):
            optimiser.param_groups[0]["lr"] = 1e-6 + (1e-3 - 1e-6) * number / 3
            for _ in range(parts):
                moment = StepContext(0, torch.Generator(), ALONE)
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
    rate = RateConfig(highest=1e-2, warmup_steps=0)
    run(config_of(world, step=step, save=save, rate=rate), start, tmp_path / "training")
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
            checked += int((leader - first[name]).abs().max() > 1e-3)
    assert checked > 20
    assert progress(tmp_path / "training")["samples"] == 4 * BATCH
    newest = tmp_path / "training" / "states" / "step-00000002" / "beside.safetensors"
    assert load_file(newest)["queue_ptr"].item() == 4 * BATCH % 20


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
    newest = training_state.newest_state(tmp_path / "training" / "states")
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


def test_one_sample_is_trained_on_and_nothing_of_it_goes_on(start: Path, tmp_path: Path) -> None:
    write_toy_world(tmp_path / "one", ToyWorldConfig(samples=1, samples_per_shard=1, image_px=32))
    before = set(threading.enumerate())
    ended, _ = run(config_of(tmp_path / "one", steps=3), start, tmp_path / "training")
    assert (ended.steps, ended.samples, ended.epochs) == (3, 3 * BATCH, 3 * BATCH)
    assert set(threading.enumerate()) == before  # a thread that goes on keeps its process alive
