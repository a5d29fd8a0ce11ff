"""A run's tables are read where they lie, and damage to one is named."""

import pytest

from shards.errors import DamagedFile
from shards.run.commit import read_commit
from shards.run.data import read_data
from tests.shards.conftest import MakeRun


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
