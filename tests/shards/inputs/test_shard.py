"""A tar that is read by itself is named as it would be in a list."""

from pathlib import Path

import pytest

from shards.inputs.listing import list_inputs
from shards.inputs.shard import InputShard


@pytest.mark.parametrize("name", ["a.tar", "b c.TAR.GZ", "é.tgz", "no ending"])
def test_a_tar_by_itself_has_the_name_that_a_list_gives_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x" * 5)
    (listed,) = list_inputs([str(tmp_path / name)])
    alone = InputShard.of_tar(listed.url)
    assert (alone.url, alone.shard, alone.kind) == (listed.url, listed.shard, "tar")
