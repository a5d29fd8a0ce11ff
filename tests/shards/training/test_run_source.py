"""A cleaned run gives its kept texts, and what changed since is an error."""

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.inputs.reader import ShardReader, open_shard
from shards.inputs.shard import InputChanged
from shards.query.query import connect
from shards.run.attempt import Quarantine
from shards.run.commit import commit, read_commits, total_counts
from shards.run.run import Run
from shards.run.snapshot import open_snapshot, write_snapshot
from shards.run.view import Judging, Rule, commit_view, open_view
from shards.schema import read_table
from shards.training.source import Source, SourceConfig, SourceError, SourceSample
from shards.training.source_reader import open_source, read_part
from shards.writer import CleanFile, CleanSample, TableFile, publish_file
from tests.shards.conftest import DoWork, MakeRun


def samples(source: Source) -> list[SourceSample]:
    return [sample for part in source.parts for sample in read_part(part)]


def of_run(run: Run, **other: Any) -> Source:
    return open_source(SourceConfig(run=run.store.url(), **other))


def joined(run: Run, view: str | None = None) -> list[tuple[str, str, str]]:
    """Join the tables with DuckDB: sample, text and origin of each kept text."""
    with connect(run, open_view(run, view).shards) as connection:
        return connection.execute(
            "SELECT shard || '/' || key, text, origin FROM decisions "
            "JOIN texts USING (shard, index, text_no) JOIN samples USING (shard, index) "
            "WHERE keep ORDER BY shard, index, text_no"
        ).fetchall()


def told(source: Source) -> list[tuple[str, str, str]]:
    return [(s.key, text.text, text.origin) for s in samples(source) for text in s.texts]


def images(run: Run) -> dict[str, bytes]:
    """Read all images of the input by key."""
    found = {}
    for listed in run.inputs:
        with open_shard(listed.url) as file:
            for raw in ShardReader(file):
                found[f"{listed.shard}/{raw.key}"] = raw.image or b""
    return found


def judge_even(run: Run, name: str, with_clean: bool) -> None:
    """Write a view that keeps the texts of each other sample, whatever their scores."""
    judging, judged = Judging(name), []
    pictures = images(run)
    with run.store.staging() as folder:
        for shard in open_snapshot(run).shards:
            files = {file.table: run.store.open(file.name) for file in shard.files}
            rows = read_table(files["decisions"], "decisions", "").to_pylist()
            texts = read_table(files["texts"], "texts", "").to_pylist()
            facts = {r["index"]: r for r in read_table(files["samples"], "samples", "").to_pylist()}
            for row in rows:
                row["keep"] = row["index"] % 2 == 0
                row["reason"] = "kept" if row["keep"] else "itm_below_threshold"
            table = TableFile(folder / f"{shard.shard}.parquet", "decisions")
            table.add(rows)
            records: list[tuple[TableFile | CleanFile, str]] = [(table, "decisions")]
            kept = sorted({row["index"] for row in rows if row["keep"]})
            if with_clean and kept:
                clean = CleanFile(folder / f"{shard.shard}.tar", shard.shard)
                for index in kept:
                    key = facts[index]["key"]
                    record = {"texts": [text for text in texts if text["index"] == index]}
                    picture = pictures[f"{shard.shard}/{key}"]
                    clean.add(CleanSample(key, "jpg", picture, record, ""))
                records.append((clean, "clean"))
            published = [
                publish_file(run.store, file, kind, judging.file_name(kind, shard.shard))
                for file, kind in records
            ]
            ok = shard.counts.kept + shard.counts.filtered
            counts = {"kept": len(kept), "filtered": ok - len(kept)}
            facts_files = [f for f in shard.files if f.table in ("samples", "texts")]
            judged.append(
                dataclasses.replace(
                    shard,
                    files=(*facts_files, *published),
                    counts=shard.counts.model_copy(update=counts),
                )
            )
    rules = {"web": Rule(threshold=0)}
    assert commit_view(run, judging, open_snapshot(run).id, rules, judged, with_clean)


@pytest.mark.parametrize("read", ["clean", "input"])
def test_a_run_gives_exactly_its_kept_texts(any_url: str, make_run: MakeRun, read: str) -> None:
    run = make_run(any_url)
    write_snapshot(run)
    source = of_run(run, read=read)
    found, pictures = samples(source), images(run)
    assert told(source) == joined(run)
    assert any(len(sample.texts) == 2 for sample in found)
    assert [sample.image for sample in found] == [pictures[sample.key] for sample in found]
    assert source.rows == len(found)
    assert all(part.rows for part in source.parts)


def test_what_is_left_out_is_counted(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    write_snapshot(run)
    source = of_run(run)
    counts = total_counts(done.counts for done in read_commits(run).values())
    assert source.left_out == {"filtered": counts.filtered, **counts.rejected_by_reason}
    assert source.rows + sum(source.left_out.values()) == counts.samples_in
    assert source.damaged == {run.shards[-1]: "truncated"}


@pytest.mark.parametrize("with_clean", [True, False])
def test_another_view_gives_its_own(any_url: str, make_run: MakeRun, with_clean: bool) -> None:
    run = make_run(any_url)
    write_snapshot(run)
    judge_even(run, "even", with_clean)
    source, own = of_run(run, view="even"), of_run(run, view="own")
    assert told(source) == joined(run, "even")
    assert told(own) == joined(run)
    assert told(source) != told(own)
    assert source.name != own.name == of_run(run).name
    assert {part.is_clean for part in source.parts} == {with_clean}
    assert samples(of_run(run, view="even", read="input")) == samples(source)
    if not with_clean:
        with pytest.raises(SourceError, match=r"view 'even' has no clean tar.*--write-shards"):
            of_run(run, view="even", read="clean")


def test_an_unfinished_run_says_what_to_do(
    any_url: str, make_run: MakeRun, do_work: DoWork
) -> None:
    run = make_run(any_url, committed=False)
    with pytest.raises(SourceError, match=r"3 of 3 shards.*the first: 00000.*run clean again"):
        of_run(run)
    assert commit(run, do_work(run, run.shards[0]))
    part = write_snapshot(run, allow_partial=True).id
    with pytest.raises(SourceError, match=rf"2 of 3 shards.*the first: 00001.*\({part}\)"):
        of_run(run)
    source = of_run(run, snapshot=part)
    assert {sample.key.partition("/")[0] for sample in samples(source)} == {run.shards[0]}


def test_shards_put_aside_do_not_hold_a_run_up(
    any_url: str, make_run: MakeRun, do_work: DoWork
) -> None:
    run = make_run(any_url, committed=False)
    for shard in run.shards[1:]:
        assert commit(run, do_work(run, shard))
    aside = Quarantine(shard=run.shards[0], why="it died", attempts=("a",), written="2026-01-01")
    run.store.put(f"quarantine/{aside.shard}.json", aside.model_dump_json().encode())
    write_snapshot(run)
    assert of_run(run).damaged == {run.shards[0]: "quarantined", run.shards[-1]: "truncated"}


def test_a_view_of_another_snapshot_is_refused(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    ours = write_snapshot(run).id
    judge_even(run, "even", False)
    assert of_run(run, view="even", snapshot=ours).rows
    with pytest.raises(SourceError, match=f"stands on snapshot {ours}, not on other"):
        of_run(run, view="even", snapshot="other")


def test_a_changed_file_is_an_error(tmp_path: Path, make_run: MakeRun, tar_bytes: Any) -> None:
    run = make_run(str(tmp_path / "run"))
    write_snapshot(run)
    clean, given = of_run(run, read="clean").parts[0], of_run(run, read="input").parts[0]
    path = Path(clean.url)
    whole = path.read_bytes()
    place = whole.index(b"\1" * 100)
    path.write_bytes(whole[:place] + b"\2" + whole[place + 1 :])
    with pytest.raises(InputChanged, match=rf"{path.name}.*expected sha256.*restore it"):
        list(read_part(clean))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputChanged, match=r"expected (whole samples|a complete tar)"):
        list(read_part(clean))
    for more, found in ((-1, "more of them"), (1, f"found {clean.rows};")):
        path.write_bytes(whole)
        with pytest.raises(InputChanged, match=found):
            list(read_part(dataclasses.replace(clean, rows=clean.rows + more)))
    path.write_bytes(tar_bytes([("00000/a.jpg", b"x"), ("00000/a.json", b'{"texts": []}')]))
    with pytest.raises(InputChanged, match="expected the kept texts of '00000/a', found none"):
        list(read_part(clean))
    Path(given.url).write_bytes(tar_bytes([("k000.jpg", b"x"), ("k000.txt", b"x")]))
    with pytest.raises(
        InputChanged, match=r"image sha256 None as sample \d+, found no such.*earlier version"
    ):
        list(read_part(given))


def test_another_picture_than_was_judged_is_an_error(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(str(tmp_path / "run"))
    write_snapshot(run)
    part = of_run(run, read="input").parts[0]
    assert part.tables is not None
    table = pq.read_table(part.tables.samples)
    hashes = pa.array(["0" * 64] * len(table))
    place = table.schema.get_field_index("sha256")
    pq.write_table(table.set_column(place, "sha256", hashes), part.tables.samples)
    with pytest.raises(InputChanged, match=f"image sha256 {'0' * 64}"):
        list(read_part(part))


def test_tables_that_do_not_belong_together_are_an_error(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(str(tmp_path / "run"))
    write_snapshot(run)
    part = of_run(run, read="input").parts[0]
    assert part.tables is not None
    table = pq.read_table(part.tables.decisions)
    pq.write_table(table.slice(1), part.tables.decisions)
    with pytest.raises(SourceError, match=r"not the decisions of .*capfilt verify"):
        list(read_part(part))
