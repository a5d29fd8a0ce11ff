"""Each loss against an obvious loop over numbers."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from models.training import losses


def unit(*shape: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(7)


def softmax(row: list[float]) -> list[float]:
    largest = max(row)
    powers = [math.exp(value - largest) for value in row]
    return [power / sum(powers) for power in powers]


def test_similarities_divide_by_the_temperature() -> None:
    rows, others = unit(3, 4), unit(5, 4)
    found = losses.similarities(rows, others, torch.tensor(0.2))
    for i in range(3):
        for j in range(5):
            assert found[i, j].item() == pytest.approx(float(rows[i] @ others[j]) / 0.2, abs=1e-5)


def test_shares_of_equal_ids_add_up_to_one() -> None:
    found = losses.same_image(torch.tensor([3, 5, 3]), torch.tensor([3, 5, 3, 8, 5, -100]))
    third = [0.5, 0, 0.5, 0, 0, 0]
    assert found.tolist() == [third, [0, 0.5, 0, 0, 0.5, 0], third]


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_itc_equals_a_loop_without_the_candidates_that_do_not_exist(alpha: float) -> None:
    logits, momentum = torch.randn(3, 7) * 9, torch.randn(3, 7) * 9
    valid = torch.tensor([True, True, True, False, True, False, True])
    targets = pad(losses.own_pairs(3, 3, 0, torch.device("cpu")).float(), (0, 4))
    places = [place for place in range(7) if valid[place]]
    total = 0.0
    for row in range(3):
        ours = softmax([logits[row, place].item() for place in places])
        theirs = softmax([momentum[row, place].item() for place in places])
        for place, own, other in zip(places, ours, theirs, strict=True):
            total -= (alpha * other + (1 - alpha) * (place == row)) * math.log(own)
    soft = losses.soften(targets, momentum, alpha, valid)
    found = losses.contrastive(logits, soft, valid)
    assert found.item() == pytest.approx(total / 3, rel=1e-5)
    few = losses.soften(targets[:, valid], momentum[:, valid], alpha)
    torch.testing.assert_close(losses.contrastive(logits[:, valid], few), found)


def test_places_that_do_not_exist_get_no_gradient() -> None:
    logits = torch.randn(2, 4, requires_grad=True)
    valid = torch.tensor([True, True, False, True])
    targets = pad(losses.own_pairs(2, 2, 0, torch.device("cpu")).float(), (0, 2))
    losses.contrastive(
        logits, losses.soften(targets, logits.detach(), 0.4, valid), valid
    ).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, 2] == 0).all()
    assert (logits.grad[:, [0, 1, 3]] != 0).all()


def test_itm_equals_a_loop_over_the_pairs_that_count() -> None:
    logits, labels = torch.randn(6, 2) * 4, torch.tensor([1, 1, 0, 0, 0, 0])
    weights = torch.tensor([1.0, 1, 1, 0, 1, 0])
    total = 0.0
    for row in range(6):
        if weights[row]:
            total -= math.log(softmax(logits[row].tolist())[int(labels[row])])
    found = losses.matching(logits, labels, weights)
    assert found.item() == pytest.approx(total / 4, rel=1e-5)


def test_a_head_that_knows_nothing_scores_the_prior() -> None:
    """1 : 2 without any knowledge is an entropy of 0.6365."""
    logits = torch.log(torch.tensor([[2 / 3, 1 / 3]])).expand(9, 2)
    labels = torch.tensor([1] * 3 + [0] * 6)
    assert losses.matching(logits, labels, torch.ones(9)).item() == pytest.approx(0.6365, abs=1e-4)


def test_lm_equals_a_loop_with_label_smoothing() -> None:
    logits, labels = torch.randn(4, 6) * 3, torch.tensor([0, 5, 2, 2])
    total = 0.0
    for row in range(4):
        logs = [math.log(p) for p in softmax(logits[row].tolist())]
        right = logs[int(labels[row])]
        total -= 0.9 * right + 0.1 * sum(logs) / 6
    assert losses.language(logits, labels).item() == pytest.approx(total / 4, rel=1e-5)


def test_no_words_are_no_loss() -> None:
    logits = torch.empty(0, 6, requires_grad=True)
    found = losses.language(logits, torch.empty(0, dtype=torch.long))
    found.backward()
    assert found.item() == 0
