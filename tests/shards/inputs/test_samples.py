"""Several shards come out as one stream, damage and all, with a share that only grows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.inputs.listing import list_inputs
from shards.inputs.reader import RawSample, ShardState, State
from shards.inputs.samples import read_samples


@pytest.fixture
def folder(tmp_path: Path, tar_bytes: Callable[..., bytes], pairs: Any) -> Path:
    """A whole shard, one cut in half, one without a byte, and another whole one."""
    whole = tar_bytes(pairs(6))
    contents = {"a": whole, "b": whole[: len(whole) // 2], "c": b"", "d": tar_bytes(pairs(2))}
    for name, data in contents.items():
        (tmp_path / f"{name}.tar").write_bytes(data)
    return tmp_path


def test_each_shard_ends_with_its_state(folder: Path) -> None:
    read = list(read_samples(list_inputs([str(folder)])))
    states = {shard.shard: end.state for shard, end, _ in read if isinstance(end, ShardState)}
    assert states == {
        "a": State.COMPLETE,
        "b": State.TRUNCATED,
        "c": State.EMPTY,
        "d": State.COMPLETE,
    }
    for name, count in (("a", 6), ("c", 0), ("d", 2)):
        of_shard = [sample for shard, sample, _ in read if shard.shard == name]
        assert all(isinstance(sample, RawSample) for sample in of_shard[:-1])
        assert len(of_shard) == count + 1
        assert isinstance(of_shard[-1], ShardState)


def test_the_share_is_of_all_bytes_and_only_grows(folder: Path) -> None:
    shares = [share for _, _, share in read_samples(list_inputs([str(folder)]))]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 1 / 6
    assert 0.9 < shares[-1] <= 1


def test_a_shard_is_opened_when_its_turn_comes(folder: Path) -> None:
    stream = read_samples(list_inputs([str(folder)]))
    next(stream)
    (folder / "d.tar").unlink()
    with pytest.raises(FileNotFoundError):
        list(stream)


def test_no_bytes_at_all_are_no_division_by_zero(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").touch()
    ((_, state, share),) = read_samples(list_inputs([str(tmp_path)]))
    assert isinstance(state, ShardState)
    assert (state.state, share) == (State.EMPTY, 0.0)
