"""Hard negatives: what is drawn how often, and what never stops the draw."""

import math

import pytest
import torch
from torch import Tensor
from transformers import BlipConfig

from models.training import losses, negatives
from models.training.config import Rule
from models.training.contrast import Pairs
from models.training.momentum import FeatureQueue
from models.training.negatives import Negatives
from models.training.pretraining import PretrainNetwork, StepSettings


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frequencies(weights: Tensor, draws: int = 40_000) -> Tensor:
    """Draw from one row (M,) many times: shares (M,)."""
    drawn = negatives.draw(weights.expand(draws, -1), generator())
    assert drawn.valid.all()
    return torch.bincount(drawn.index, minlength=len(weights)) / draws


def test_candidates_are_drawn_as_often_as_they_weigh() -> None:
    logits = torch.tensor([[2.0, 0.5, 1.0, -1.0, 3.0]])
    forbidden = torch.tensor([[False, False, True, False, True]])
    powers = logits[0].exp() * ~forbidden[0]
    found = frequencies(negatives.masked_weights(logits, forbidden)[0])
    torch.testing.assert_close(found, powers / powers.sum(), atol=0.01, rtol=0)
    assert found[2] == found[4] == 0


def test_the_originals_weights_have_a_floor_and_know_no_ids() -> None:
    logits = torch.randn(4, 4, generator=generator()) * 20
    weights = negatives.original_weights(logits)
    expected = (logits.softmax(1) + 1e-4) * (1 - torch.eye(4))
    torch.testing.assert_close(weights.exp(), expected)
    found = frequencies(weights[1])
    torch.testing.assert_close(found, expected[1] / expected[1].sum(), atol=0.01, rtol=0)


def test_a_floor_is_added_to_all_weights_but_those_of_the_forbidden() -> None:
    logits, forbidden = torch.tensor([[9.0, 1.0, 2.0, -400.0]]), torch.tensor([[1, 0, 0, 0]]).bool()
    found = negatives.masked_weights(logits, forbidden, floor=1e-4).exp()
    total = math.exp(9) + math.exp(1) + math.exp(2)
    expected = [0, math.exp(1) / total + 1e-4, math.exp(2) / total + 1e-4, 1e-4]
    torch.testing.assert_close(found, torch.tensor([expected]), rtol=1e-4, atol=1e-9)


def test_similar_candidates_are_drawn_also_where_their_weights_underflow() -> None:
    """A softmax at temperature 0.001 leaves 0 for all but the forbidden best candidate."""
    logits = torch.tensor([[1.0, 0.1, -0.4, 0.05]]) / 0.001
    forbidden = torch.tensor([[True, False, False, False]])
    assert (logits.softmax(1)[0, 1:] == 0).all()
    assert frequencies(negatives.masked_weights(logits, forbidden)[0])[1] == 1


def test_a_row_without_candidates_has_no_negative() -> None:
    forbidden = torch.tensor([[True, True], [True, False]])
    drawn = negatives.draw(negatives.masked_weights(torch.randn(2, 2), forbidden), generator())
    assert drawn.valid.tolist() == [False, True]
    assert drawn.index[1] == 1


def test_equal_images_and_equal_texts_match() -> None:
    found = negatives.matched(
        torch.tensor([1, 2]),
        torch.tensor([1, 2, 1, 4]),
        torch.tensor([7, 8]),
        torch.tensor([7, 8, 9, 8]),
    )
    assert found.tolist() == [[True, False, True, False], [False, True, False, True]]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_features_of_a_diverged_model_stop_no_draw(bad: float) -> None:
    logits = torch.full((3, 3), bad)
    for weights in (
        negatives.masked_weights(logits, torch.eye(3) > 0),
        negatives.original_weights(logits),
    ):
        drawn = negatives.draw(weights, generator())
        assert drawn.valid.all()
        assert (drawn.index != torch.arange(3)).all()


def features(count: int, kind: int, source: torch.Generator) -> Tensor:
    """Unit vectors (count, 4): random, all equal, in two opposite heaps, or nearly equal."""
    rows = torch.randn(count, 4, generator=source)
    if kind == 1:
        rows = rows[:1].expand(count, -1)
    elif kind == 2:
        rows = rows[:1] * torch.tensor([1.0, -1.0]).repeat(count)[:count, None]
    elif kind == 3:
        rows = rows[:1] + 1e-4 * rows
    return torch.nn.functional.normalize(rows, dim=-1)


def number(most: int, source: torch.Generator) -> int:
    return int(torch.randint(most, (1,), generator=source))


@pytest.mark.parametrize("batches", [1_000, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_adversarial_batches_give_neither_exception_nor_nan(batches: int) -> None:
    source = generator(11)
    lone = 0
    for _ in range(batches):
        count = number(6, source) + 1
        images = features(count, number(4, source), source).requires_grad_()
        texts = features(count, number(4, source), source).requires_grad_()
        temperature = torch.tensor((0.001, 0.07, 0.5)[number(3, source)], requires_grad=True)
        ids = torch.randint(number(count, source) + 1, (count,), generator=source)  # often all one
        hashes = torch.randint(count, (count,), generator=source)
        same = negatives.matched(ids, ids, hashes, hashes) | (torch.eye(count) > 0)
        logits = losses.similarities(images, texts, temperature)
        targets = losses.same_image(ids, ids)
        itc = losses.contrastive(logits, losses.soften(targets, logits.detach(), 0.4))
        if number(4, source):
            weights = negatives.masked_weights(logits, same)
        else:
            weights = negatives.original_weights(logits)
            same = torch.eye(count) > 0
        drawn = negatives.draw(weights, source)
        assert drawn.valid.tolist() == (~same).any(1).tolist()
        assert not same[torch.arange(count), drawn.index][drawn.valid].any()
        lone += int(not drawn.valid.any())
        itm = match(images, texts, drawn, temperature)
        (itc + itm).backward()
        for value in (itc, itm, images.grad, texts.grad, temperature.grad):
            assert value is not None
            assert value.isfinite().all()
    assert lone > batches / 20


def match(images: Tensor, texts: Tensor, drawn: Negatives, temperature: Tensor) -> Tensor:
    """A head whose logits are as far apart as the temperature allows."""
    scores = torch.cat([(images * texts).sum(1), (images * texts[drawn.index]).sum(1)])
    logits = torch.stack([-scores, scores], dim=1) / temperature
    right = torch.ones(len(images), dtype=torch.bool)
    labels = torch.cat([right, ~right]).long()
    return losses.matching(logits, labels, torch.cat([right, drawn.valid]).float())


@pytest.mark.nightly
def test_10000_adversarial_batches_through_the_whole_network() -> None:
    network, source = small(), generator(12)
    queue = FeatureQueue(8, 7)
    for turn in range(10_000):
        count = number(4, source) + 1
        ids = torch.randint(3, 30, (count, 5), generator=source)
        pixels = torch.randn(count, 3, 16, 16, generator=source)
        if number(3, source) == 0:  # all pairs equal
            ids, pixels = ids[:1].repeat(count, 1), pixels[:1].repeat(count, 1, 1, 1)
        mask = torch.arange(5) < torch.randint(1, 6, (count, 1), generator=source)
        image_ids = torch.randint(number(count, source) + 1, (count,), generator=source)
        rule: Rule = "masked" if number(4, source) else "original"
        with torch.no_grad():  # the ends of the range, and beyond
            network.temp.fill_((1e-9, 0.001, 0.07, 0.5, 9.0)[number(5, source)])
        settings = StepSettings(31, 30, negatives=rule)
        found = network(Pairs(pixels, ids, mask, image_ids), queue, settings, source)
        network.zero_grad()
        found.total.backward()
        assert found.total.isfinite(), turn
        for name, parameter in network.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), (turn, name)


def small() -> PretrainNetwork:
    """A network of one layer."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 8}
    config = BlipConfig(
        vision_config=sizes | {"image_size": 16, "patch_size": 8},
        text_config=sizes | {"vocab_size": 32, "max_position_embeddings": 8, "pad_token_id": 0},
        image_text_hidden_size=8,
    )
    torch.manual_seed(0)
    network = PretrainNetwork(config)
    for name, parameter in network.named_parameters():
        if "norm" not in name.lower():
            torch.nn.init.normal_(parameter, std=0.3)
    network.start()
    return network.train()
