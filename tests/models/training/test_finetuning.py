"""Finetuning for retrieval against the original's numbers, and over several workers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipConfig

from models.checkpoints.original import read_original, rename
from models.training.contrast import MatchResult, Pairs
from models.training.finetuning import RetrievalNetwork, RetrievalSettings
from models.training.momentum import FeatureQueue
from models.training.workers import Workers
from tests.support.gradients import check_gradients

References = tuple[dict[str, Tensor], dict[str, float]]
GENERATOR = torch.Generator().manual_seed(0)


class Run:
    """The reference's step on our network."""

    def __init__(self, parity: Path, config: BlipConfig, pixels: Tensor, reference: References):
        self.values, self.limits = reference
        self.facts: dict[str, Any] = json.loads((parity / "retrieval.json").read_text())
        enc_id = self.facts["config"]["tokenizer"]["enc_id"]
        self.settings = RetrievalSettings(enc_id, alpha=self.facts["alpha"])
        tensors = read_original(parity / "retrieval.pth")
        self.network = RetrievalNetwork(config).eval()
        self.network.load_state_dict({name: tensors[name] for name in self.network.state_dict()})
        self.queue = FeatureQueue.of(tensors)
        mask = self.values["in.attention_mask"].bool()
        self.batch = Pairs(pixels, self.values["in.input_ids_cls"], mask, self.values["in.idx"])
        self.given = self.values["in.neg_image_for_text"], self.values["in.neg_text_for_image"]

    def step(self, **change: Any) -> MatchResult:
        settings = replace(self.settings, **change)
        return self.network(self.batch, self.queue, settings, GENERATOR, fixed_negatives=self.given)

    def check(self, name: str, found: Tensor) -> None:
        expected = self.values[f"out.{name}"]
        atol = self.limits.get(f"out.{name}", 0)
        torch.testing.assert_close(found.detach(), expected, atol=atol, rtol=1e-5, msg=name)


@pytest.fixture
def run(
    parity: Path,
    images: Tensor,
    normalise: Callable[[Tensor], Tensor],
    original_config: Callable[[str], BlipConfig],
    reference: Callable[[str], References],
) -> Run:
    values, limits = reference("retrieval")
    pixels = normalise(images[: len(values["in.idx"])])
    return Run(parity, original_config("retrieval"), pixels, (values, limits))


def test_losses_weights_and_queue_are_the_originals(run: Run) -> None:
    found = run.step()
    run.check("loss_ita", found.itc)
    run.check("loss_itm", found.itm)
    run.check("weights_t2i", found.negatives.image_weights.exp())
    run.check("weights_i2t", found.negatives.text_weights.exp())
    run.check("image_queue", run.queue.image_queue)
    run.check("text_queue", run.queue.text_queue)
    run.check("ptr_queue", run.queue.queue_ptr)
    assert run.queue.idx_queue is not None
    run.check("idx_queue", run.queue.idx_queue)


def test_gradients_are_the_originals(run: Run) -> None:
    run.step().total.backward()
    found = gradients(run.network)
    for name in run.values:
        if name.startswith("out.grad."):
            run.check(name.removeprefix("out."), found[rename(name.removeprefix("out.grad."))])
    check_gradients(run.network, run.facts)


def test_negatives_of_all_workers_are_the_originals_where_there_is_one(run: Run) -> None:
    found = run.step(across="negatives")
    run.check("allrank_loss_ita", found.itc)
    run.check("allrank_loss_itm", found.itm)


def test_negatives_come_from_other_workers_too(run: Run) -> None:
    """Two workers hold the same batch; the other's copies come first in what is gathered."""

    class Mirror(Workers):
        def gather(self, rows: Tensor) -> Tensor:
            other = rows.flip(0)
            if not rows.is_floating_point() and rows.ndim == 1:  # image ids: all others are other
                other = rows + 1000
            return torch.cat([other, rows])

        def take(self, rows: Tensor, index: Tensor) -> Tensor:
            return self.gather(rows)[index]

        def mean(self, value: Tensor) -> Tensor:
            return value

    workers, before = Mirror(rank=1, size=2), run.queue.queue_ptr.item()
    settings = replace(run.settings, across="negatives")
    found = run.network(run.batch, run.queue, settings, GENERATOR, workers=workers)
    count, weights = len(run.batch.mask), found.negatives.image_weights
    assert weights.shape == (count, 2 * count)
    assert (weights[:, :count] > -torch.inf).all()
    pairs = torch.eye(count, dtype=torch.bool)
    assert (weights[:, count:][pairs] == -torch.inf).all()
    # the same wrong pairs by their numbers among all give the reference's loss
    given = tuple(index + count for index in run.given)
    again = run.network(
        run.batch, run.queue, settings, GENERATOR, workers=workers, fixed_negatives=given
    )
    torch.testing.assert_close(again.itm.detach(), run.values["out.loss_itm"], atol=2e-5, rtol=1e-5)
    flipped = tuple(count - 1 - index for index in run.given)
    mirrored = run.network(
        run.batch, run.queue, settings, GENERATOR, workers=workers, fixed_negatives=flipped
    )
    torch.testing.assert_close(mirrored.itm, again.itm, atol=2e-5, rtol=1e-5)
    assert run.queue.queue_ptr.item() == (before + 3 * 2 * count) % run.queue.image_queue.shape[1]


def test_texts_of_one_image_are_no_negatives(run: Run) -> None:
    last = len(run.batch.mask) - 1
    run.batch = replace(run.batch, image_ids=torch.tensor([*[4] * last, 9]))
    for _ in range(20):
        found = run.network(run.batch, run.queue, run.settings, GENERATOR)
        assert found.negatives.images.index.tolist()[:last] == [last] * last
        assert found.negatives.texts.index.tolist()[:last] == [last] * last
        assert found.negatives.texts.index[last] != last


def test_missing_image_ids_are_an_error(run: Run) -> None:
    run.batch = replace(run.batch, image_ids=None)
    with pytest.raises(ValueError, match="image ids"):
        run.step()


def gradients(network: RetrievalNetwork) -> dict[str, Tensor]:
    return {
        name: parameter.grad
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }
