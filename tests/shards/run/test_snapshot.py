"""A snapshot is a fixed list, named by what it lists."""

import hashlib
import json
import pickle
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset

from shards.errors import DamagedFile
from shards.inputs.reader import ShardState, State
from shards.run.attempt import start_attempt
from shards.run.commit import Commit, InputRecord, commit, read_commits
from shards.run.record import canonical_json
from shards.run.run import Run
from shards.run.snapshot import (
    Snapshot,
    SnapshotError,
    newest_snapshot_id,
    open_snapshot,
    snapshot_id,
    table_files,
    write_snapshot,
)
from shards.run.verify.run import verify_run
from shards.schema import SchemaError, TextRow
from shards.writer import CleanSample, ShardWriter
from tests.shards.conftest import DoWork, MakeRun
from tests.support.changed_run import record_of

OUTCOMES = ("samples_in", "kept", "filtered", "rejected")


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
    with pytest.raises(SnapshotError, match="no snapshot nosuch"):
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


def write_scored(run: Run, itm: float, text: str = "a red dot", image: bytes = b"i") -> Snapshot:
    """Commit the run's only shard: one kept sample with this score."""
    attempt = start_attempt(run, run.shards[0])
    row: TextRow = {"text_no": 0, "origin": "web", "text": text, "itm": itm, "itc": itm / 2}
    listed = [{name: row.get(name) for name in ("text", "origin", "itm", "itc")}]
    record = {"key": "k", "texts": listed, "run": run.fingerprint}
    with ShardWriter(run.store, run.shards[0], attempt) as writer:
        writer.add(
            {"index": 0, "key": "k", "status": "ok"},
            [row],
            [{"text_no": 0, "keep": True, "reason": "kept"}],
            CleanSample("k", "jpg", image, record, text),
        )
        files, counts = tuple(writer.finish()), writer.counts
    done = Commit(
        shard=run.shards[0],
        fingerprint=run.fingerprint,
        attempt=attempt,
        input=InputRecord(url="x", size_bytes=run.inputs[0].size_bytes, sha256="0"),
        state=ShardState(state=State.COMPLETE),
        files=files,
        counts=counts,
        environment={},
        started="",
        ended="",
    )
    assert commit(run, done)
    return write_snapshot(run)


def test_the_name_is_not_the_scores(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(str(tmp_path / name), shards=1, committed=False) for name in "abcde"]
    first, batched = write_scored(runs[0], 0.75), write_scored(runs[1], 0.75 + 2**-24)
    hashes = [{f.table: f.sha256 for f in made.shards[0].files} for made in (first, batched)]
    assert {t for t in hashes[0] if hashes[0][t] != hashes[1][t]} == {"texts", "clean"}
    assert first.id == batched.id
    assert write_scored(runs[2], 0.75, text="a red dog").id != first.id
    assert write_scored(runs[3], 0.75, image=b"j").id != first.id
    assert all(verify_run(run).problems == () for run in runs[:4])
    assert open_snapshot(runs[0]) == first


def test_snapshots_of_the_version_before_keep_their_names(
    make_run: MakeRun, tmp_path: Path
) -> None:
    """Their commits know the bytes of the files alone."""
    run = make_run(str(tmp_path / "run"))
    for shard in run.shards:
        older = record_of(run, f"commits/{shard}.json") | {"schema_version": 1}
        for file in older["files"]:
            del file["content_sha256"]
        run.store.put(f"commits/{shard}.json", json.dumps(older).encode())
    snapshot = write_snapshot(run)
    digest = hashlib.sha256()
    for done in read_commits(run).values():
        files = [file.model_dump(exclude={"name", "content_sha256"}) for file in done.files]
        counts = done.counts
        row = {"shard": done.shard, **done.state.model_dump(mode="json"), "files": files}
        row |= {name: getattr(counts, name) for name in OUTCOMES}
        row["counts"] = canonical_json(counts.model_dump()).decode()
        digest.update(canonical_json(row) + b"\n")
    assert snapshot.id == digest.hexdigest()[:32]
    assert verify_run(run).problems == ()


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
