"""Compiled towers compute what the others do; few lengths of texts are compiled."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.blip.tokenizer import WordPiece
from models.training.compiled import bucketed
from models.training.workers import ALONE
from pipeline.train.dataloader import Batch
from pipeline.train.finetune import start_finetuning
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.objective import Objective
from tests.support import small_finetuning


@pytest.fixture(autouse=True)
def _as_torch_was() -> Iterator[None]:
    """Leave no compiled code, and no settings, to other tests."""
    config = torch._dynamo.config
    before = config.suppress_errors, config.cache_size_limit
    torch._dynamo.utils.counters.clear()
    yield
    config.suppress_errors, config.cache_size_limit = before
    torch._dynamo.reset()


@pytest.fixture
def config(words: WordPiece, tmp_path: Path) -> FinetuneConfig:
    start = small_finetuning.create(tmp_path / "start", "filter", words)
    return small_finetuning.config_of("filter", start)


def step(objective: Objective, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Compute the losses and gradients of a batch."""
    losses = small_finetuning.losses_of(objective, batch)
    losses["loss"].backward()
    named = objective.network.named_parameters()
    return losses, {name: p.grad for name, p in named if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=[pytest.mark.nightly])]
)
@pytest.mark.parametrize("recompute", [0, pytest.param(1, marks=[pytest.mark.nightly])])
def test_losses_and_gradients_stay(
    config: FinetuneConfig, words: WordPiece, backend: str, recompute: int
) -> None:
    batch = small_finetuning.pairs_of(words)
    plain = start_finetuning(config)
    model = config.model.model_copy(update={"recompute": recompute})
    compiled = start_finetuning(config.model_copy(update={"model": model}))
    compiled.compile_towers(backend)
    assert compiled.network.state_dict().keys() == plain.network.state_dict().keys()
    losses, gradients = step(plain, batch)
    others, their_gradients = step(compiled, batch)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # it was not passed over
    torch.testing.assert_close(others, losses, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(their_gradients, gradients, atol=1e-5, rtol=1e-4)


def test_a_recipe_asks_for_it(config: FinetuneConfig, words: WordPiece) -> None:
    model = config.model.model_copy(update={"compile": True})
    objective = start_finetuning(config.model_copy(update={"model": model}))
    batch = small_finetuning.pairs_of(words)
    pairs, plain = (each.pairs(batch, ALONE) for each in (objective, start_finetuning(config)))
    assert plain.ids.shape[1] == 6
    assert pairs.ids.shape[1] == 8
    assert torch.equal(pairs.ids[:, :6], plain.ids)
    assert not pairs.mask[:, 6:].any()
    assert pairs.learned is not None
    assert plain.learned is not None
    assert len(pairs.learned) == len(plain.learned) == plain.mask[:, 1:].sum()


def test_a_tower_that_cannot_be_compiled_runs_as_it_is(
    config: FinetuneConfig, words: WordPiece
) -> None:
    def refuse(*_: object) -> object:
        raise RuntimeError("no compiler here")

    batch, plain, compiled = (
        small_finetuning.pairs_of(words),
        start_finetuning(config),
        start_finetuning(config),
    )
    compiled.compile_towers(refuse)  # type: ignore[arg-type]
    torch.testing.assert_close(step(compiled, batch)[0], step(plain, batch)[0])


def test_lengths_are_few_and_within_the_positions() -> None:
    assert {bucketed(length, 64) for length in range(9, 31)} == {16, 24, 32}
    assert bucketed(29, 30) == 30
    assert bucketed(30, 29) == 30  # it cannot be cut here
