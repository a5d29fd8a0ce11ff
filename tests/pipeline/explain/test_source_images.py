"""Pictures read again out of the input: the same bytes, or why there are none."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.explain.source_images import read_source_images
from shards.inputs import reader
from shards.inputs.shard import InputShard
from tests.support.toy_run import write_tar

IMAGES = [b"first", b"second", b"third"]


@pytest.fixture
def shard(tmp_path: Path) -> InputShard:
    members = {f"{n}.png": image for n, image in enumerate(IMAGES)}
    write_tar(tmp_path / "0.tar", members)
    return InputShard.of_tar(str(tmp_path / "0.tar"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_wanted_pictures_come_back_byte_for_byte(shard: InputShard) -> None:
    digests = {index: sha256(IMAGES[index]) for index in (2, 0)}
    assert list(read_source_images(shard, digests)) == [(0, b"first"), (2, b"third")]


def test_what_is_changed_or_gone_is_told(shard: InputShard, tmp_path: Path) -> None:
    changed = {0: "0" * 64, 7: "0" * 64}
    assert dict(read_source_images(shard, changed)) == {
        0: "the input has changed since: another picture is there now",
        7: "not in the input any more",
    }
    for gone in (None, InputShard.of_tar(str(tmp_path / "gone.tar"))):
        assert dict(read_source_images(gone, changed)) == dict.fromkeys(
            changed, "the input shard is gone"
        )


def test_what_breaks_while_it_is_read_is_told_and_what_came_before_is_kept(
    shard: InputShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: reader.ShardReader) -> Iterator[reader.RawSample]:
        yield next(whole(self))
        raise ConnectionError("the store is gone")

    whole = reader.ShardReader.__iter__
    monkeypatch.setattr(reader.ShardReader, "__iter__", broken)
    digests = {index: sha256(image) for index, image in enumerate(IMAGES)}
    why = "the input shard cannot be read (ConnectionError)"
    assert list(read_source_images(shard, digests)) == [(0, b"first"), (1, why), (2, why)]
