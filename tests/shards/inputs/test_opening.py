"""A shard of any kind is opened by one call, for one pass."""

from pathlib import Path
from typing import Any

import pytest

from shards.inputs.listing import list_inputs
from shards.inputs.opening import open_samples
from shards.inputs.reader import ShardReader, State
from shards.inputs.text import TextSource


def test_a_tar_is_read_as_its_reader_does(tmp_path: Path, tar_bytes: Any, pairs: Any) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes(pairs(4)))
    (shard,) = list_inputs([str(tmp_path)])
    with open_samples(shard) as reader, (tmp_path / "a.tar").open("rb") as file:
        alone = ShardReader(file)
        assert list(reader) == list(alone)
        assert reader.state.state is State.COMPLETE
        assert (reader.sha256, reader.bytes_read) == (alone.sha256, shard.size_bytes)


def test_a_tars_texts_stand_where_it_is_said(tmp_path: Path, tar_bytes: Any) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([("k.jpg", b"i"), ("k.json", b'{"t": "words"}')]))
    (shard,) = list_inputs([str(tmp_path)])
    with open_samples(shard, TextSource.parse("json:t")) as reader:
        assert [raw.text for raw in reader] == [b"words"]


def test_what_is_gone_raises_when_it_is_opened(tmp_path: Path, tar_bytes: Any, pairs: Any) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes(pairs(1)))
    (shard,) = list_inputs([str(tmp_path)])
    (tmp_path / "a.tar").unlink()
    with pytest.raises(FileNotFoundError), open_samples(shard):
        pass
