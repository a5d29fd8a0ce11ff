"""Samples from the beginning of a shard, as tars of their own."""

import gzip
import io
from typing import Any

from shards.inputs.front import Front
from shards.inputs.reader import ShardReader
from shards.inputs.text import TXT, TextSource

NO_LIMIT = 1 << 30


def test_samples_are_taken_once_and_whole(tar_bytes: Any, pairs: Any) -> None:
    data = tar_bytes([("k000.npy", b"x"), *pairs(7), ("../a.jpg", b"unsafe")])
    packed = gzip.compress(data)
    expected = [(row.key, row.image, row.text, row.meta) for row in ShardReader(io.BytesIO(data))]
    for file, size_bytes in ((io.BytesIO(data), len(data)), (io.BytesIO(packed), len(packed))):
        front, found, sizes = Front(ShardReader(file), TXT), [], 0
        while taken := front.take(3, NO_LIMIT):
            rows = list(ShardReader(io.BytesIO(taken.tar)))
            assert len(rows) == len(taken.sizes) <= 3
            found += [(row.key, row.image, row.text, row.meta) for row in rows]
            sizes += sum(taken.sizes)
            assert sizes <= front.passed_bytes
        assert found == expected[:7]
        assert 0 < sizes <= size_bytes


def test_what_it_holds_is_bounded(tar_bytes: Any, pairs: Any) -> None:
    front = Front(ShardReader(io.BytesIO(tar_bytes(pairs(30)))), TXT)
    taken = front.take(30, 5_000)
    assert taken is not None
    assert 1 <= len(taken.sizes) < 6


def test_texts_stay_where_they_stand(tar_bytes: Any) -> None:
    data = tar_bytes([("a.jpg", b"i"), ("a.json", b'{"t": "text"}'), ("a.caption", b"caption")])
    for source, text in (("json:t", b"text"), ("caption", b"caption")):
        source_ = TextSource.parse(source)
        taken = Front(ShardReader(io.BytesIO(data), source_), source_).take(1, NO_LIMIT)
        assert taken is not None
        (row,) = ShardReader(io.BytesIO(taken.tar), source_)
        assert row.text == text


def test_nothing_is_taken_of_what_is_no_tar() -> None:
    assert Front(ShardReader(io.BytesIO(b"no tar" * 200)), TXT).take(1, NO_LIMIT) is None
