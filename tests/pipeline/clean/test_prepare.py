"""Samples are prepared ahead in threads or one by one under guard, with the same results."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.clean.prepare import (
    DecodeStalled,
    ExecutionConfig,
    PreparedSample,
    in_threads,
    under_guard,
)
from pipeline.clean.screen import Decode, ScreenConfig, screen
from shards.inputs.reader import RawSample

PACE = ExecutionConfig(batch_size=2, decode_threads=2, stall_timeout_s=60)


@pytest.fixture
def raws(encode: Any, noise: Any) -> list[RawSample]:
    pictures = [encode(noise(40, 40, seed=n), "PNG") for n in range(12)]
    pictures[5] = b"no picture"
    return [
        RawSample(n, f"k{n}", picture, "png", b"a cat", None, None, None, 1000 * (n + 1))
        for n, picture in enumerate(pictures)
    ]


def prepare(raw: RawSample, decode: Decode) -> PreparedSample:
    return PreparedSample(screen(raw, ScreenConfig(), decode))


@pytest.mark.parametrize("way", [in_threads, under_guard])
def test_samples_come_in_order_with_the_bytes_read(raws: list[RawSample], way: Any) -> None:
    with way(raws, prepare, PACE) as stream:
        taken = [(sample.screened.facts, offset) for sample, offset in stream]
    assert [offset for _, offset in taken] == [1000 * (n + 1) for n in range(12)]
    assert [facts["key"] for facts, _ in taken] == [raw.key for raw in raws]
    assert [n for n, (facts, _) in enumerate(taken) if facts["status"] != "ok"] == [5]


def test_no_more_than_two_batches_are_read_ahead(raws: list[RawSample]) -> None:
    drawn: list[int] = []

    def watched() -> Iterator[RawSample]:
        for raw in raws:
            drawn.append(raw.index)
            yield raw

    with in_threads(watched(), prepare, PACE) as stream:
        for taken, _ in enumerate(stream, 1):
            assert len(drawn) <= taken + 2 * PACE.batch_size


def test_a_picture_that_stalls_is_named(raws: list[RawSample]) -> None:
    gate = threading.Event()

    def slow(raw: RawSample, decode: Decode) -> PreparedSample:
        assert raw.index != 3 or gate.wait(60)
        return prepare(raw, decode)

    pace = ExecutionConfig(batch_size=2, decode_threads=2, stall_timeout_s=0.3)
    with (
        pytest.raises(DecodeStalled, match=r"'k3' is not decoded after 0\.3 s"),
        in_threads(raws, slow, pace) as stream,
    ):
        list(stream)
    gate.set()


def test_whoever_fails_leaves_no_thread(raws: list[RawSample]) -> None:
    before = set(threading.enumerate())

    def fail() -> None:
        with in_threads(raws, prepare, PACE) as stream:
            next(stream)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert set(threading.enumerate()) <= before
