"""The momentum copies and the queue."""

from collections import deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.training.momentum import EMPTY_ID, FeatureQueue, follow, restart


@given(
    size=st.integers(1, 12),
    counts=st.lists(st.integers(0, 30), max_size=12),
    with_ids=st.booleans(),
)
def test_the_ring_holds_what_a_deque_holds(size: int, counts: list[int], with_ids: bool) -> None:
    queue = FeatureQueue(3, size, ids=with_ids)
    oracle: deque[tuple[list[float], list[float], int]] = deque(maxlen=size)
    total = 0
    for count in counts:
        images, texts = torch.randn(count, 3), torch.randn(count, 3)
        ids = torch.arange(total, total + count)
        queue.enqueue(images, texts, ids if with_ids else None)
        oracle.extend(zip(images.tolist(), texts.tolist(), ids.tolist(), strict=True))
        total += count
    assert queue.queue_valid.item() == len(oracle)
    assert queue.queue_ptr.item() == total % size
    assert queue.valid().sum() == len(oracle)
    order = [(total - len(oracle) + n) % size for n in range(len(oracle))]  # oldest first
    assert queue.valid()[order].all()
    assert queue.image_queue.T[order].tolist() == [images for images, _, _ in oracle]
    assert queue.text_queue.T[order].tolist() == [texts for _, texts, _ in oracle]
    if with_ids:
        assert queue.idx_queue is not None
        assert queue.idx_queue[0, order].tolist() == [index for _, _, index in oracle]
        assert (queue.idx_queue == EMPTY_ID).sum() == size - len(oracle)


def test_an_imported_queue_counts_as_full() -> None:
    tensors = {
        "image_queue": torch.randn(3, 7),
        "text_queue": torch.randn(3, 7),
        "ptr_queue": torch.tensor([5]),
        "idx_queue": torch.arange(7)[None],
        "another": torch.zeros(1),
    }
    queue = FeatureQueue.of(tensors)
    assert queue.valid().all()
    assert queue.queue_ptr.item() == 5
    queue.enqueue(torch.ones(3, 3), torch.ones(3, 3), torch.tensor([70, 71, 72]))
    assert queue.idx_queue is not None
    assert queue.idx_queue[0].tolist() == [72, 1, 2, 3, 4, 70, 71]
    again = FeatureQueue.of(queue.state_dict())
    assert torch.equal(again.image_queue, queue.image_queue)
    assert again.queue_ptr.item() == 1


def test_a_part_filled_queue_stays_so_when_saved() -> None:
    queue = FeatureQueue(3, 7)
    queue.enqueue(torch.ones(2, 3), torch.ones(2, 3))
    assert FeatureQueue.of(queue.state_dict()).valid().tolist() == [True] * 2 + [False] * 5


def test_hashes_go_round_with_their_texts_and_are_saved() -> None:
    queue = FeatureQueue(1, 3, ids=True, hashes=True)
    for first in (0, 2):
        numbers = torch.arange(first, first + 2)
        queue.enqueue(numbers[:, None], numbers[:, None], numbers + 10, numbers + 20)
    assert queue.idx_queue is not None
    assert queue.hash_queue is not None
    assert queue.text_queue.tolist() == [[3, 1, 2]]
    assert queue.idx_queue.tolist() == [[13, 11, 12]]
    assert queue.hash_queue.tolist() == [[23, 21, 22]]
    again = FeatureQueue.of(queue.state_dict())
    assert again.hash_queue is not None
    assert torch.equal(again.hash_queue, queue.hash_queue)


def test_wrong_use_of_a_queue_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 places"):
        FeatureQueue(3, 0)
    with pytest.raises(ValueError, match="ids"):
        FeatureQueue(3, 2).enqueue(torch.ones(1, 3), torch.ones(1, 3), torch.tensor([1]))
    with pytest.raises(ValueError, match="hashes"):
        FeatureQueue(3, 2, hashes=True).enqueue(torch.ones(1, 3), torch.ones(1, 3))
    with pytest.raises(ValueError, match="ids"):
        FeatureQueue(3, 2, ids=True).enqueue(torch.ones(1, 3), torch.ones(1, 3))


def test_copies_follow_by_the_moving_average_in_place() -> None:
    torch.manual_seed(0)
    modules, copies = [nn.Linear(3, 4), nn.LayerNorm(5)], [nn.Linear(3, 4), nn.LayerNorm(5)]
    places = [p.data_ptr() for copy in copies for p in copy.parameters()]
    expected = [
        0.995 * old.detach() + (1 - 0.995) * new.detach()
        for module, copy in zip(modules, copies, strict=True)
        for new, old in zip(module.parameters(), copy.parameters(), strict=True)
    ]
    follow(zip(modules, copies, strict=True), 0.995)
    found = [p for copy in copies for p in copy.parameters()]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.detach(), other)
    assert [p.data_ptr() for p in found] == places


def test_a_restarted_copy_is_equal_and_apart() -> None:
    module, copy = nn.Linear(3, 4), nn.Linear(3, 4)
    restart([(module, copy)])
    assert torch.equal(module.weight, copy.weight)
    assert module.weight.data_ptr() != copy.weight.data_ptr()
