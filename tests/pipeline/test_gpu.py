"""What a GPU computes, beside the same on the CPU: whole shards, captions, steps of a training.

Each test runs on a CPU, too (slow), so that it is known to work before a GPU is at hand.
"""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from models.blip.config import Dtype
from models.captioners.config import BlipCaptionerConfig
from models.checkpoints import locate
from models.decoding.config import Decoding
from models.devices import describe_device
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from models.scorers.config import BlipScorerConfig
from models.training.workers import ALONE
from pipeline.clean.config import CleanConfig
from pipeline.clean.prepare import ExecutionConfig
from pipeline.clean.shard import ShardCleaner
from pipeline.toy.world import ToyWorldConfig, draw, toy_sample, write_toy_world
from pipeline.train import pretrain
from pipeline.train.loop import open_loader
from pipeline.train.mixture import TaskSource
from pipeline.train.step import Stepper, make_optimiser
from shards.run.commit import read_commit
from shards.run.verify.run import verify_run
from tests.support.bench import Bench, Row
from tests.support.host_reads import host_reads
from tests.support.small_training import config_of, last_state, lines, run, sources_of

CPU = torch.device("cpu")
PICTURES, TEXTS = 12, ["a red circle above a blue square", "a dog"]


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=pytest.mark.nightly),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def captioner_on(device: torch.device, dtype: Dtype = "fp32", **decoding: Any) -> BlipCaptioner:
    how = Decoding(**decoding)
    folder = locate.SHIPPED["tiny-captioner"]
    return BlipCaptioner.load(folder, decoding=how, dtype=dtype, device=device)


def scorer_on(device: torch.device, dtype: Dtype = "fp32") -> Filter:
    return Filter.load(locate.SHIPPED["tiny-filter"], dtype=dtype, device=device)


def pictures(captioner: BlipCaptioner) -> torch.Tensor:
    scenes = (toy_sample(number, False, ToyWorldConfig()).scene for number in range(PICTURES))
    return torch.stack([captioner.preprocess.resize(draw(scene)) for scene in scenes])


def clean(folder: Path, device: torch.device) -> dict[str, list[Row]]:
    """Clean a toy world by greedy captions, verify the run, and return its tables."""
    write_toy_world(folder / "web", ToyWorldConfig(samples=20, samples_per_shard=20))
    names = locate.SHIPPED["tiny-captioner"], locate.SHIPPED["tiny-filter"]
    config = CleanConfig(
        dtype="fp32",
        caption=BlipCaptionerConfig(model=str(names[0]), method="greedy"),
        score=BlipScorerConfig(model=str(names[1])),
    )
    captioner, scorer = captioner_on(device, method="greedy"), scorer_on(device)
    bench = Bench(folder, config, captioner, scorer)
    made, _ = bench.run(folder / "web" / "00000.tar")
    about = describe_device(device)
    cleaner = ShardCleaner(
        made, config, [captioner], [scorer], ExecutionConfig(batch_size=8), about
    )
    cleaner.clean(made.inputs[0], bench.ignore)
    assert verify_run(made).problems == ()
    done = read_commit(made, made.shards[0])
    assert done is not None
    assert done.environment["device"] == about["device"]
    return {table: bench.rows(made, table) for table in ("samples", "texts")}


def test_a_whole_shard_is_cleaned_as_on_the_cpu(device: torch.device, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here, there = clean(tmp_path / "here", CPU), clean(tmp_path / "there", device)
    assert [row["status"] for row in there["samples"]] == [row["status"] for row in here["samples"]]
    assert [row["text"] for row in there["texts"]] == [row["text"] for row in here["texts"]]
    for ours, theirs in zip(here["texts"], there["texts"], strict=True):
        assert theirs["itm"] == pytest.approx(ours["itm"], abs=1e-3)
        assert theirs["itc"] == pytest.approx(ours["itc"], abs=1e-3)


@pytest.mark.parametrize("method", ["greedy", "beam", "nucleus"])
def test_captions_are_those_of_the_cpu(device: torch.device, method: str) -> None:
    """Nucleus, too: its draws are hashed, not of the device's own generator."""
    count = {"greedy": 1, "beam": 3, "nucleus": 2}[method]
    keys = [str(number) for number in range(PICTURES)]
    here, there = captioner_on(CPU, method=method), captioner_on(device, method=method)
    ours, theirs = (each.caption(pictures(each), keys, count) for each in (here, there))
    same = [
        [caption.text for caption in group] == [caption.text for caption in others]
        for group, others in zip(ours, theirs, strict=True)
    ]
    assert sum(same) >= PICTURES - 1  # two words may be equally probable but for rounding


def test_the_batch_changes_no_caption_and_no_score(device: torch.device) -> None:
    captioner, scorer = captioner_on(device), scorer_on(device)
    images, keys = pictures(captioner), [str(number) for number in range(PICTURES)]
    together = captioner.caption(images, keys, 1), scorer.score(images, [TEXTS] * PICTURES)
    for number in range(0, PICTURES, 5):
        part = slice(number, number + 5)  # the last is a rest
        captions = captioner.caption(images[part], keys[part], 1)
        assert [c.text for (c,) in captions] == [c.text for (c,) in together[0][part]]
        scores = scorer.score(images[part], [TEXTS] * len(keys[part]))
        for ours, theirs in zip(scores, together[1][part], strict=True):
            for score, other in zip(ours, theirs, strict=True):
                assert score.itm_logit == pytest.approx(other.itm_logit, abs=2e-3)


def test_bf16_keeps_the_verdicts_of_fp32(device: torch.device) -> None:
    exact, coarse = scorer_on(device), scorer_on(device, "bf16")
    images = pictures(captioner_on(CPU))
    ours_and_theirs = (each.score(images, [TEXTS] * PICTURES) for each in (exact, coarse))
    for ours, theirs in zip(*ours_and_theirs, strict=True):
        for score, other in zip(ours, theirs, strict=True):
            assert other.itm == pytest.approx(score.itm, abs=0.1)


def test_a_step_has_the_cpus_losses_and_waits_for_nothing(
    device: torch.device, world: Path, start: Path
) -> None:
    """Without dropout, of the first step: what is drawn on a device is the device's own."""
    config = config_of(world)
    config = config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0})})
    numbers = {}
    for where in (CPU, device):
        objective = pretrain.start_pretraining(start, config)
        objective.to_device(where)
        objective.network.train()
        task = TaskSource(sources_of(config), config.data.max_tokens)
        lanes = dict.fromkeys(range(config.data.lanes), 0)
        with closing(open_loader(config, objective, ALONE, task, lanes)) as loader:
            batch = next(iter(loader))
        assert batch.pixels.is_pinned() == (where.type == "cuda")
        optimiser = make_optimiser(objective.network, config)
        stepper = Stepper(config, "fp32", objective, optimiser, ALONE, several=False)
        numbers[where.type] = {
            name: value.item() for name, value in stepper.take([batch], 0, 0).items()
        }
        if where.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            with host_reads() as reads:
                stepper.take([batch], 1, 0)
        finally:
            if where.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        assert reads.total() == 1  # of the batch as it was read, on the host
    for name in ("itc", "lm"):
        assert numbers[device.type][name] == pytest.approx(numbers["cpu"][name], abs=1e-4)


def test_a_training_goes_on_where_it_was_left(
    device: torch.device, world: Path, start: Path, tmp_path: Path
) -> None:
    """Sums on a GPU come in no fixed order: what a restart changes is the last digits alone."""
    for name, steps in (("whole", (6,)), ("parts", (2, 3, 6))):
        for until in steps:
            run(config_of(world, until), start, tmp_path / name, device=device)
    whole, parts = lines(tmp_path / "whole"), lines(tmp_path / "parts")
    assert [line["step"] for line in parts] == [line["step"] for line in whole]
    for ours, theirs in zip(whole, parts, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-3)
    assert last_state(tmp_path / "parts").keys() == last_state(tmp_path / "whole").keys()
