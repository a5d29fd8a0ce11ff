"""Distances of difference hashes: counted bit by bit, and what is near."""

import numpy as np

from pipeline.media.difference_hash import bits_apart, bits_set, near_limits


def test_bits_are_counted() -> None:
    hashes = np.random.default_rng(0).integers(0, 1 << 63, (5, 4), dtype=np.uint64)
    numbers = [int.from_bytes(row.tobytes()) for row in hashes]
    assert bits_set(hashes).tolist() == [number.bit_count() for number in numbers]
    apart = [(number ^ numbers[0]).bit_count() for number in numbers]
    first = np.repeat(hashes[:1], 5, axis=0)
    assert bits_apart(hashes.T, first.T).tolist() == apart


def test_near_is_less_where_there_is_little_to_see() -> None:
    bits = np.array([128, 16, 0, 256], np.int16)
    assert near_limits(32, bits, bits).tolist() == [32, 8, 0, 0]
    assert near_limits(32, np.array([0], np.int16), np.array([256], np.int16)).tolist() == [64]
