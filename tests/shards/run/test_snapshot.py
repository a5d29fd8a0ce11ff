"""A snapshot is a fixed list, named by what it lists."""

import json
import pickle
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset

from shards.errors import DamagedFile
from shards.run.commit import commit, read_commits
from shards.run.snapshot import (
    SnapshotError,
    newest_snapshot_id,
    open_snapshot,
    snapshot_id,
    table_files,
    write_snapshot,
)
from shards.run.verify.run import verify_run
from shards.schema import SchemaError
from tests.shards.conftest import DoWork, MakeRun


def test_written_and_read(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    assert newest_snapshot_id(run) is None
    with pytest.raises(SnapshotError, match="no snapshot yet"):
        open_snapshot(run)
    snapshot = write_snapshot(run)
    assert open_snapshot(run) == open_snapshot(run, snapshot.id) == snapshot
    assert newest_snapshot_id(run) == snapshot.id
    commits = read_commits(run)
    assert [s.shard for s in snapshot.shards] == run.shards
    assert [s.counts for s in snapshot.shards] == [c.counts for c in commits.values()]
    assert [f.table for f in table_files(snapshot.shards, "texts")] == ["texts"] * 3
    with pytest.raises(SnapshotError, match="no snapshot 'nosuch'"):
        open_snapshot(run, "nosuch")
    assert write_snapshot(run).id == snapshot.id
    assert len(run.store.list("snapshots")) == 1


def test_the_name_is_the_content_s(make_run: MakeRun, tmp_path: Path) -> None:
    one = write_snapshot(make_run(str(tmp_path / "one")))
    two = write_snapshot(make_run(str(tmp_path / "two")))
    assert one.id == two.id
    assert one.shards[0].attempt != two.shards[0].attempt
    first, *rest = one.shards
    damaged = first.files[0].model_copy(update={"sha256": "0" * 64})
    other = type(first)(first.shard, first.attempt, first.state, first.counts, (damaged,))
    assert snapshot_id([other, *rest]) != one.id
    assert snapshot_id(one.shards[:2]) != one.id


def test_pending_shards_must_be_allowed(any_url: str, make_run: MakeRun, do_work: DoWork) -> None:
    run = make_run(any_url, committed=False)
    with pytest.raises(SnapshotError, match=r"3 of 3 shards.*00000"):
        write_snapshot(run, allow_partial=True)
    assert commit(run, do_work(run, run.shards[1]))
    with pytest.raises(SnapshotError, match="2 of 3 shards"):
        write_snapshot(run)
    partial = write_snapshot(run, allow_partial=True)
    assert json.loads(run.store.read("snapshot.json"))["partial"] is True
    for shard in (run.shards[0], run.shards[2]):
        assert commit(run, do_work(run, shard))
    whole = write_snapshot(run)
    assert open_snapshot(run) == whole
    assert open_snapshot(run, partial.id) == partial
    assert json.loads(run.store.read("snapshot.json"))["partial"] is False


def test_the_list_of_clean_tars_feeds_webdataset(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(str(tmp_path / "run"))
    snapshot = write_snapshot(run)
    urls = (tmp_path / "run" / "clean.txt").read_text().split()
    assert all(Path(url).is_absolute() for url in urls)
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == sum(shard.counts.kept for shard in snapshot.shards) > 0


@pytest.mark.parametrize("torn", [b"", b"\0" * 900, b"PAR1", None])
def test_a_list_that_is_torn_or_of_another_attempt_is_written_again(
    any_url: str, make_run: MakeRun, do_work: DoWork, torn: bytes | None
) -> None:
    run = make_run(any_url)
    snapshot = write_snapshot(run)
    if torn is None:  # the commit was torn, and mended by another attempt
        run.store.put(f"commits/{run.shards[1]}.json", b"\0" * 900)
        assert commit(run, do_work(run, run.shards[1]))
    else:
        run.store.put(f"snapshots/{snapshot.id}.parquet", torn)
    again = write_snapshot(run)
    assert again.id == snapshot.id
    assert open_snapshot(run) == again
    assert verify_run(run).problems == ()


def test_unreadable_ones_are_errors(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    snapshot = write_snapshot(run)
    name = f"snapshots/{snapshot.id}.parquet"
    table = pq.read_table(run.store.open(name))
    with run.store.staging() as folder:
        newer = table.replace_schema_metadata({b"capfilt.schema_version": b"99"})
        pq.write_table(newer, folder / "x")
        run.store.publish(folder / "x", name)
    with pytest.raises(SchemaError, match="newer"):
        open_snapshot(run)
    run.store.put(name, b"PAR1")
    with pytest.raises(DamagedFile, match=r"\.parquet is damaged: expected a whole Parquet file"):
        open_snapshot(run)
    for torn in (b"{", b"", b"\0" * 90, b"[" * 200_000, b'{"id": "../../../etc/passwd"}', b"{}"):
        run.store.put("snapshot.json", torn)
        with pytest.raises(DamagedFile, match=r"snapshot\.json is damaged: expected "):
            newest_snapshot_id(run)
        with pytest.raises(DamagedFile):
            open_snapshot(run)
    assert str(pickle.loads(pickle.dumps(SnapshotError("what")))) == "what"
