"""A run's tables are read where they lie, and damage to one is named."""

import dataclasses
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import DamagedFile
from shards.run.commit import read_commit
from shards.run.data import read_data, read_shard
from shards.run.snapshot import write_snapshot
from shards.schema import DECISIONS
from tests.shards.conftest import MakeRun


def test_a_shard_is_read_from_a_file_that_it_shares(any_url: str, make_run: MakeRun) -> None:
    """Shards stand in the order of the list, so that the bounds of row groups overlap."""
    run = make_run(any_url)
    snapshot = write_snapshot(run)
    place = {"index": 0, "text_no": 0, "keep": True, "reason": "kept"}
    rows = [{"shard": name, **place, "index": n} for n, name in enumerate("bbbaaacccbdddd")]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=DECISIONS), buffer, row_group_size=4)
    run.store.put("shared.parquet", buffer.getvalue())
    shared = {"name": "shared.parquet", "size_bytes": len(buffer.getvalue())}
    for name in "abcde":
        files = tuple(
            file.model_copy(update=shared) if file.table == "decisions" else file
            for file in snapshot.shards[0].files
        )
        shard = dataclasses.replace(snapshot.shards[0], shard=name, files=files)
        wanted = [row for row in rows if row["shard"] == name]
        assert read_shard(run, shard, "decisions").to_pylist() == wanted
        kept = [{"keep": True}] * len(wanted)
        assert read_shard(run, shard, "decisions", ["keep"]).to_pylist() == kept


def test_read_and_refused(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    done = read_commit(run, run.shards[0])
    assert done is not None
    file = done.file("texts")
    assert file is not None
    assert len(read_data(run, file)) == file.rows
    assert read_data(run, file, ["text"]).column_names == ["text"]
    where = run.store.url(file.name)
    for data in (b"", b"garbage", run.store.read(file.name)[:-20]):
        run.store.put(file.name, data)
        with pytest.raises(DamagedFile) as caught:
            read_data(run, file)
        assert str(caught.value).startswith(f"{where} is damaged: expected a whole Parquet file")
    run.store.delete(file.name)
    with pytest.raises(DamagedFile) as caught:
        read_data(run, file)
    assert "found none: it is gone" in str(caught.value)
