"""A virtual shard is read as it was listed, or what changed is an error by name."""

import hashlib
import os
from pathlib import Path

import pytest

from shards.inputs.folders.reader import time_of
from shards.inputs.listing import check_current, list_inputs
from shards.inputs.opening import SampleReader, open_samples
from shards.inputs.reader import State
from shards.inputs.shard import InputChanged, InputOptions, InputShard
from shards.inputs.text import TextSource
from shards.training.source import location_of, read_picture_at
from tests.shards.inputs.finding.test_find import make


@pytest.fixture
def shard(tmp_path: Path) -> InputShard:
    make(tmp_path, "a.jpg", "a.txt", "b.png", "b.json")
    (listed,) = list_inputs([str(tmp_path)])
    return listed


def through(shard: InputShard) -> SampleReader:
    with open_samples(shard) as reader:
        list(reader)
        return reader


def test_all_is_known_after_the_last_row(shard: InputShard) -> None:
    with open_samples(shard) as reader:
        with pytest.raises(RuntimeError):
            _ = reader.state
        rows = list(reader)
    assert [(raw.index, raw.key, raw.image, raw.image_ext, raw.text, raw.meta) for raw in rows] == [
        (0, "a", b"x", "jpg", b"x", None),
        (1, "b", b"x", "png", None, b"x"),
    ]
    assert [raw.end_offset for raw in rows] == [2, 4]
    assert (reader.state.state, reader.bytes_read) == (State.COMPLETE, shard.size_bytes)
    assert time_of(shard) == shard.mtime
    check_current(shard)


def test_a_pictures_bytes_are_found_where_they_lie(shard: InputShard, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"y")
    with open_samples(shard) as reader:
        locations = [location_of(shard.url, raw) for raw in reader]
    assert [read_picture_at(found) for found in locations if found] == [b"x", b"y"]


def test_the_hash_is_of_all_that_is_read(shard: InputShard, tmp_path: Path) -> None:
    before = through(shard).sha256
    assert before == through(shard).sha256
    for name in ("a.jpg", "a.txt", "b.json"):
        (tmp_path / name).write_bytes(b"y")
        assert through(shard).sha256 != before
        (tmp_path / name).write_bytes(b"x")
    # nothing goes from one part into the next
    assert before != hashlib.sha256(b"axxbxx").hexdigest()


def test_what_changed_since_it_was_listed_is_an_error(shard: InputShard, tmp_path: Path) -> None:
    os.utime(tmp_path / "a.txt", (1, 1))
    with pytest.raises(InputChanged, match="mtime"):
        check_current(shard)
    (tmp_path / "a.txt").write_bytes(b"longer")
    assert through(shard).bytes_read != shard.size_bytes
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputChanged, match=r"expected a\.txt, found no such file"):
        through(shard)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_a_row(shard: InputShard, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").chmod(0)
    with open_samples(shard) as reader:
        assert [raw.reason for raw in reader] == ["image_missing", None]
        assert reader.bytes_read == shard.size_bytes


def test_a_text_may_stand_in_the_sidecar(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "a.txt")
    (tmp_path / "a.json").write_bytes(b'{"alt": "words"}')
    text = TextSource.parse("json:alt")
    (listed,) = list_inputs([str(tmp_path)], None, InputOptions(text=text))
    with open_samples(listed, text) as reader:
        assert [raw.text for raw in reader] == [b"words"]
