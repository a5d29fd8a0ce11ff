"""The order deals each sample once, evenly, and knows from a count alone what comes next."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.training.order import LaneEpoch, Order, Sizes, Turn, lanes_of

REPEATS = [Fraction(1), Fraction(1, 5), Fraction(2), Fraction("0.3"), Fraction(7, 3)]
SIZES = st.builds(
    Sizes, st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple), st.sampled_from(REPEATS)
)
ORDERS = st.builds(
    Order,
    st.lists(SIZES, min_size=1, max_size=3),
    st.integers(0, 5),
    st.sampled_from([1, 2, 3, 12]),
    st.sampled_from([1, 4, 1000]),
)


def turns(order: Order, lane: int, epoch: int) -> list[Turn]:
    deal = LaneEpoch(order, lane, epoch)
    return [deal.draw() for _ in range(len(deal))]


@given(ORDERS)
def test_epochs_join_and_each_sample_has_one_turn(order: Order) -> None:
    """Over ten epochs every number comes exactly once, up to where the repeats say."""
    seen: Counter[Turn] = Counter()
    for epoch in range(10):
        for lane in range(order.lanes):
            seen.update(turns(order, lane, epoch))
    assert set(seen.values()) == {1} or not seen
    for place, sizes in enumerate(order.sources):
        upto = int(10 * sizes.repeat * sizes.total)
        assert {turn.number for turn in seen if turn.source == place} == set(range(upto))


@given(ORDERS, st.integers(0, 12))
def test_a_pass_holds_every_row_once(order: Order, around: int) -> None:
    for place, sizes in enumerate(order.sources):
        numbers = range(around * sizes.total, (around + 1) * sizes.total)
        found = [
            (stretch.part, row)
            for stretch in order.stretches(place, numbers)
            for row in stretch.rows
        ]
        everything = [(part, row) for part, rows in enumerate(sizes.rows) for row in range(rows)]
        assert sorted(found) == everything


@given(ORDERS, st.integers(0, 60), st.integers(0, 30))
def test_pieces_lie_where_the_whole_does(order: Order, first: int, length: int) -> None:
    """Where a number lies does not depend on which piece of the sequence is asked for."""

    def places(numbers: range) -> dict[int, tuple[int, int]]:
        found = {}
        for stretch in order.stretches(0, numbers):
            for step, row in enumerate(stretch.rows):
                found[stretch.first + step] = (stretch.part, row)
        return found

    whole, piece = places(range(0, 100)), places(range(first, first + length))
    assert list(piece) == list(range(first, first + length))
    assert all(whole[number] == place for number, place in piece.items())


@given(ORDERS)
def test_lanes_stay_level(order: Order) -> None:
    dealt: Counter[int] = Counter()
    for epoch in range(8):
        for lane in range(order.lanes):
            assert order.lane_rows_before(lane, epoch) == dealt[lane]
            dealt[lane] += len(LaneEpoch(order, lane, epoch))
        counts = [dealt[lane] for lane in range(order.lanes)]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == order.rows_before(epoch + 1)


@given(ORDERS)
def test_the_epoch_of_a_place(order: Order) -> None:
    for lane in range(order.lanes):
        expected = [e for e in range(8) for _ in range(len(LaneEpoch(order, lane, e)))]
        assert [order.epoch_of(lane, n) for n in range(len(expected))] == expected


@given(ORDERS, st.data())
def test_a_count_alone_restores_a_lane(order: Order, data: Any) -> None:
    whole = turns(order, 0, 1)
    taken = data.draw(st.integers(0, len(whole)))
    deal = LaneEpoch(order, 0, 1, taken)
    to_come = {
        (place, number)
        for place in range(len(order.sources))
        for numbers in deal.to_come(place)
        for number in numbers
    }
    assert to_come == {(turn.source, turn.number) for turn in whole[taken:]}
    assert [deal.draw() for _ in range(len(deal))] == whole[taken:]
    with pytest.raises(IndexError):
        deal.draw()


@given(ORDERS)
def test_no_more_than_shuffle_wait(order: Order) -> None:
    """A sample is never further ahead of its arrival than the buffer is long."""
    for lane in range(order.lanes):
        deal = LaneEpoch(order, lane, 0)
        while len(deal):
            waiting = sum(len(deal.to_come(place)[0]) for place in range(len(order.sources)))
            assert waiting == min(order.shuffle, len(deal))
            deal.draw()


def test_sources_are_mixed_evenly_and_used_up_together() -> None:
    web, human = Sizes((1000,) * 6, Fraction(1, 2)), Sizes((1000,))
    drawn = [turn.source for turn in turns(Order([web, human], 3, lanes=1, shuffle=50), 0, 0)]
    assert Counter(drawn) == {0: 3000, 1: 1000}
    for start in range(0, 4000, 400):  # a draw of 400 without replacement: 100 expected, sigma 8
        assert 65 < drawn[start : start + 400].count(1) < 135


def test_each_pass_and_each_seed_has_its_own_order() -> None:
    def of(seed: int, epoch: int) -> list[tuple[int, int]]:
        order = Order([Sizes((20, 20, 20))], seed, lanes=1, shuffle=1)
        share = order.share(0, epoch, 0)
        return [(s.part, row) for s in order.stretches(0, share) for row in s.rows]

    orders = [of(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == len(orders)
    assert of(1, 1) == of(1, 1)


def test_even_one_part_is_cut_at_other_places_each_time() -> None:
    order = Order([Sizes((120,))], 0, lanes=12)
    shares = set()
    for epoch in range(6):
        (first, *_) = order.stretches(0, order.share(0, epoch, 0))
        shares.add(first.rows.start)
    assert len(shares) > 3


def test_neighbours_are_parted() -> None:
    order = Order([Sizes((5000,))], 0, lanes=1, shuffle=500)
    numbers = [turn.number for turn in turns(order, 0, 0)]
    steps = [abs(one - other) for one, other in pairwise(numbers)]
    assert sum(step == 1 for step in steps) < 50
    assert sorted(numbers) == list(range(5000))


@settings(max_examples=30)
@given(st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_workers_share_the_lanes(workers: int) -> None:
    lanes = [lane for worker in range(workers) for lane in lanes_of(worker, workers)]
    assert lanes == list(range(12))
    assert len({len(lanes_of(worker, workers)) for worker in range(workers)}) == 1


def test_what_cannot_be_dealt_is_refused() -> None:
    with pytest.raises(ValueError, match=r"5 workers cannot share 12 lanes.*1, 2, 3, 4, 6, 12"):
        lanes_of(0, 5)
    with pytest.raises(ValueError, match="worker 2 of 2"):
        lanes_of(2, 2)
    for sources in ([], [Sizes(())], [Sizes((3, 0))], [Sizes((3,), Fraction(0))]):
        with pytest.raises(ValueError, match=r"at least one|above 0"):
            Order(sources, 0)
    with pytest.raises(ValueError, match="at least 1"):
        Order([Sizes((1,))], 0, lanes=0)
