"""A view is a snapshot with other decisions; it is there at once and whole, or not at all."""

import dataclasses
import json
import pickle

import numpy as np
import pyarrow as pa
import pytest

from shards.errors import DamagedFile
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard, open_snapshot, to_parquet, write_snapshot
from shards.run.view import (
    Judging,
    Rule,
    ViewError,
    check_view_name,
    commit_view,
    discard,
    open_view,
    read_view_record,
    view_names,
)
from shards.schema import SchemaError, read_table
from shards.writer import TableFile, publish_file
from tests.shards.conftest import DoWork, MakeRun
from tests.support.changed_run import record_of

RULES = {"web": Rule(threshold=2), "synthetic": Rule(threshold=2, keep_fraction=0, share=0)}


def keep_nothing(run: Run, judging: Judging) -> list[SnapshotShard]:
    """Write decisions that keep no text, but for the rest are the run's own."""
    judged = []
    with run.store.staging() as folder:
        for shard in open_snapshot(run).shards:
            own = next(file for file in shard.files if file.table == "decisions")
            table = read_table(run.store.open(own.name), "decisions", own.name)
            nothing = pa.array(np.zeros(len(table), dtype=bool))
            reasons = pa.array(["itm_below_threshold"] * len(table))
            table = table.set_column(3, table.schema.field("keep"), nothing)
            file = TableFile(folder / shard.shard, "decisions")
            file.add_table(table.set_column(4, table.schema.field("reason"), reasons))
            name = judging.file_name("decisions", shard.shard)
            record = publish_file(run.store, file, "decisions", name)
            facts = [f for f in shard.files if f.table in ("samples", "texts")]
            counts = shard.counts.model_copy(
                update={"kept": 0, "filtered": shard.counts.kept + shard.counts.filtered}
            )
            judged.append(dataclasses.replace(shard, files=(*facts, record), counts=counts))
    return judged


def make_view(run: Run, name: str = "none") -> Judging:
    judging = Judging(name)
    shards = keep_nothing(run, judging)
    assert commit_view(run, judging, open_snapshot(run).id, RULES, shards, False)
    return judging


def test_it_reads_as_a_snapshot_does(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    snapshot = write_snapshot(run)
    assert view_names(run) == []
    make_view(run)
    view = open_view(run, "none")
    assert view_names(run) == ["none"]
    assert (view.name, view.snapshot) == ("none", snapshot.id)
    assert view.thresholds == {"web": 2, "synthetic": 2}
    assert view.keep_fractions == {"synthetic": 0}
    assert [shard.shard for shard in view.shards] == run.shards
    for shard, facts in zip(view.shards, snapshot.shards, strict=True):
        files = {file.table: file for file in shard.files}
        assert list(files) == ["samples", "texts", "decisions"]  # and no clean tar of the run's own
        assert files["texts"] in facts.files
        assert files["decisions"].name.startswith("views/none/decisions/")
        assert shard.counts.kept == 0
        assert shard.counts.samples_in == facts.counts.samples_in
    own = open_view(run)
    assert own.shards == snapshot.shards
    assert open_view(run, "own") == own
    assert own.name is None


def test_facts_are_read_where_the_snapshot_says_now(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    snapshot = write_snapshot(run)
    make_view(run)
    decisions = [file for shard in open_view(run, "none").shards for file in shard.files[2:]]
    moved = []
    for shard in snapshot.shards:  # as a shard that was done again has it: same rows, other names
        files = tuple(f.model_copy(update={"name": f"{f.name}-again"}) for f in shard.files)
        moved.append(dataclasses.replace(shard, attempt="f" * 16, files=files))
    run.store.put(f"snapshots/{snapshot.id}.parquet", to_parquet(moved))
    after = open_view(run, "none")
    assert all(f.name.endswith("-again") for shard in after.shards for f in shard.files[:2])
    assert [file for shard in after.shards for file in shard.files[2:]] == decisions


def test_it_stays_on_its_snapshot(any_url: str, make_run: MakeRun, do_work: DoWork) -> None:
    from shards.run.commit import commit

    run = make_run(any_url, committed=False)
    assert commit(run, do_work(run, run.shards[0]))
    partial = write_snapshot(run, allow_partial=True)
    make_view(run)
    for shard in run.shards[1:]:
        assert commit(run, do_work(run, shard))
    assert write_snapshot(run).id != partial.id
    assert open_view(run, "none").snapshot == partial.id
    assert len(open_view(run, "none").shards) == 1
    assert len(open_view(run).shards) == 3


def test_the_second_of_a_name_loses_and_leaves_nothing(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    snapshot = write_snapshot(run)
    winner = make_view(run)
    before = run.store.list("views")
    loser = Judging("none")
    shards = keep_nothing(run, loser)
    assert len(run.store.list("views")) > len(before)
    assert not commit_view(run, loser, snapshot.id, RULES, shards, False)
    assert run.store.list("views") == before
    discard(run, winner)  # which is the view by now
    assert run.store.list("views") == before
    assert open_view(run, "none").shards[0].files[2].name.endswith(f"-{winner.id}.parquet")


def test_files_without_a_record_are_no_view(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    write_snapshot(run)
    killed = Judging("none")
    keep_nothing(run, killed)
    assert view_names(run) == []
    with pytest.raises(ViewError, match="no view 'none'; there are: own"):
        open_view(run, "none")
    discard(run, killed)
    assert run.store.list("views") == []


def test_an_unknown_name_brings_the_nearest(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    write_snapshot(run)
    make_view(run, "strict")
    make_view(run, "loose")
    with pytest.raises(ViewError, match=r"did you mean 'strict'. there are: own, loose, strict"):
        open_view(run, "strikt")
    for name in ("../strict", "", "a/b", "x" * 65):
        with pytest.raises(ViewError, match="has no view"):
            open_view(run, name)
    assert str(pickle.loads(pickle.dumps(ViewError("what")))) == "what"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "ü", "x" * 65, "a\n", "own"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(ViewError):
        check_view_name(name)


def test_names_that_are_taken() -> None:
    for name in ("a", "A-b_9", "x" * 64):
        check_view_name(name)


def test_a_damaged_view_says_so(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    write_snapshot(run)
    judging = make_view(run)
    record = read_view_record(run, "none")
    assert record is not None
    whole = record_of(run, "views/none/view.json")
    good, listed = run.store.read("views/none/view.json"), run.store.read(judging.shards_name)
    run.store.put(judging.shards_name, listed[:-1] + b"?")
    with pytest.raises(DamagedFile, match="is damaged: expected sha256"):
        open_view(run, "none")
    run.store.delete(judging.shards_name)
    with pytest.raises(DamagedFile, match="found none: it is gone"):
        open_view(run, "none")
    run.store.put(judging.shards_name, listed)
    cases: list[tuple[dict[str, object], type[Exception], str]] = [
        ({"fingerprint": "0"}, DamagedFile, "expected a view of the run"),
        ({"schema_version": 99}, SchemaError, "newer"),
        ({"rules": {"web": {"threshold": float("nan")}}}, DamagedFile, "Out of range"),
        ({"rules": {"web": {"threshold": "high"}}}, DamagedFile, r"rules\.web\.threshold: Input"),
        ({"shards": "../../etc/passwd"}, DamagedFile, "its own list of shards"),
        ({"name": "other"}, DamagedFile, "its own list of shards"),
    ]
    for changed, error, message in cases:
        run.store.put("views/none/view.json", json.dumps(whole | changed).encode())
        with pytest.raises(error, match=message):
            open_view(run, "none")
    run.store.put("views/none/view.json", good[: len(good) // 2])
    with pytest.raises(DamagedFile, match="expected a JSON object"):
        open_view(run, "none")
    run.store.put("views/none/view.json", good)
    assert open_view(run, "none").name == "none"
