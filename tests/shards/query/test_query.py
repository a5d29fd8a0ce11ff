"""Questions in SQL reach the run's tables, and nothing else."""

from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.errors import DamagedFile
from shards.query import query as module
from shards.query.query import QueryError, connect, count_groups, run_query
from shards.run.data import read_shard
from shards.run.run import Run
from shards.run.snapshot import table_files, write_snapshot
from shards.statistics import run_statistics
from tests.shards.conftest import MakeRun


@pytest.fixture
def run(any_url: str, make_run: MakeRun) -> Run:
    made: Run = make_run(any_url)
    write_snapshot(made)
    return made


def test_the_tables_are_the_rows(run: Run) -> None:
    snapshot = write_snapshot(run)
    with connect(run, snapshot.shards) as connection:
        answer = run_query(
            connection, "SELECT shard, count(*) AS n FROM samples GROUP BY ALL ORDER BY 1"
        )
        assert answer.columns == ("shard", "n")
        counts = [(shard.shard, shard.counts.samples_in) for shard in snapshot.shards]
        assert list(answer.rows) == counts
        joined = "SELECT count(*) FROM texts JOIN decisions USING (shard, index, text_no)"
        texts = sum(t.given for shard in snapshot.shards for t in shard.counts.texts.values())
        assert list(run_query(connection, joined).rows) == [(texts,)]


def test_rows_of_shards_that_share_a_file_and_were_not_asked_for_are_left_out(run: Run) -> None:
    asked = ViewRequest("v", {"web": 0.7, "synthetic": 0.3})
    view, _ = rejudge(run, asked, write_snapshot(run), lambda _: None)
    assert len(table_files(view.shards, "decisions")) == 1
    for shards in (view.shards, view.shards[:1], view.shards[1:]):
        with connect(run, shards, ["decisions"]) as connection:
            answer = run_query(
                connection, "SELECT shard, count(*) FROM decisions GROUP BY 1 ORDER BY 1"
            )
            assert list(answer.rows) == [(s.shard, s.file("texts").rows) for s in shards]


@pytest.mark.parametrize("at_a_time", [1, 1_000])
def test_counts_of_some_shards_at_a_time_add_up(
    run: Run, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    monkeypatch.setattr(module, "_SHARDS_AT_A_TIME", at_a_time)
    asked = ViewRequest("v", {"web": 0.7, "synthetic": 0.3})
    view, _ = rejudge(run, asked, write_snapshot(run), lambda _: None)
    assert len(view.shards) > 1
    sql = "SELECT reason, count(*) FROM decisions GROUP BY reason"
    expected: Counter[str] = Counter()
    for shard in view.shards:
        expected.update(read_shard(run, shard, "decisions")["reason"].to_pylist())
    assert count_groups(run, view.shards, "decisions", sql) == expected
    assert count_groups(run, [], "decisions", sql) == Counter()


def test_no_shards_are_empty_tables(run: Run) -> None:
    with connect(run, []) as connection:
        assert list(run_query(connection, "SELECT count(*) FROM texts").rows) == [(0,)]


def test_rows_come_as_they_are_taken(run: Run) -> None:
    with connect(run, []) as connection:
        answer = run_query(connection, "SELECT range FROM range(5000)")
        assert [row[0] for row in answer.rows] == list(range(5000))


def test_each_column_has_a_name_of_its_own(run: Run) -> None:
    with connect(run, []) as connection:
        answer = run_query(connection, "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a")
        assert answer.columns == ("a", "a_1", "a_1_1", "a_2")
        assert list(answer.rows) == [(1, 2, 3, 4)]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY texts TO '{0}/out.csv'",
        "COPY texts TO '{0}/out.parquet' (FORMAT parquet)",
        "EXPORT DATABASE '{0}/out'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "ATTACH '{0}/out.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SELECT nothing FROM texts",
        "SELEKT",
        "",
        " ; ",
        "-- no more than this",
    ],
)
def test_what_is_refused(run: Run, tmp_path: Path, sql: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with connect(run, []) as connection, pytest.raises(QueryError):
        list(run_query(connection, sql.format(tmp_path)).rows)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("CREATE TABLE x AS SELECT 1", "^CREATE has no effect here"),
        ("INSERT INTO texts VALUES (1)", "^INSERT has no effect here"),
        ("SET threads = 1", "^SET has no effect here"),
        ("FROM 'notes.txt'", "^files cannot be read here"),
        ("FROM 'notes.csv'", "^files cannot be read here"),
        ("FROM read_text('notes.txt')", "^files cannot be read here"),
        ("FROM nosuch", "^Catalog Error"),
    ],
)
def test_what_is_refused_says_why(run: Run, sql: str, said: str) -> None:
    with connect(run, []) as connection, pytest.raises(QueryError, match=said):
        run_query(connection, sql)


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("SELECT 1; SELECT 2", 2),
        ("SELECT count(*) FROM texts;\n\n-- and\nSELECT count(*) FROM samples;", 2),
        ("CREATE TEMP TABLE t AS SELECT 1; INSERT INTO t SELECT 2; FROM t", 3),
        ("SET threads = 1; SELECT 1", 2),
    ],
)
def test_of_several_statements_none_is_dropped(run: Run, sql: str, count: int) -> None:
    said = rf"^{count} SQL statements, of which only the last would answer; ask one"
    with connect(run, []) as connection, pytest.raises(QueryError, match=said):
        run_query(connection, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'a;b' AS s;",
        "SELECT 'a;b' AS s ; ; -- that is all; really",
        "/* first; */ SELECT 'a;b' AS s /* SELECT 2; */ ;\n",
        "WITH t AS (SELECT 'a;b' AS s) FROM t;",
        "SELECT $$a;b$$ AS s",
    ],
)
def test_semicolons_that_part_no_statements(run: Run, sql: str) -> None:
    with connect(run, []) as connection:
        assert list(run_query(connection, sql).rows) == [("a;b",)]


def test_a_statement_that_duckdb_makes_several_of_is_one(run: Run) -> None:
    sql = "PIVOT (SELECT 'web' AS origin, 0.5 AS itm) ON origin USING max(itm)"
    with connect(run, []) as connection:
        assert run_query(connection, sql).columns == ("web",)


def test_an_error_in_mid_answer(run: Run) -> None:
    sql = "SELECT CASE WHEN range = 9000 THEN error('late') ELSE range END FROM range(10000)"
    with connect(run, []) as connection, pytest.raises(QueryError, match="late"):
        list(run_query(connection, sql).rows)


@pytest.mark.parametrize("spoil", ["flipped", "rotten name", "garbage", "empty", "gone"])
def test_a_damaged_file_is_named_and_no_number_of_it_is_shown(run: Run, spoil: str) -> None:
    shards = write_snapshot(run).shards
    (_, name, *_) = [file.name for file in table_files(shards, "texts")]
    data = run.store.read(name)
    page = data.index(b"\x28\xb5\x2f\xfd") + 12  # behind the first frame of zstd's header
    changed = {
        "flipped": data[:page] + bytes([data[page] ^ 1]) + data[page + 1 :],
        "rotten name": data.replace(b"origin", b"\xefrigin"),
        "garbage": b"garbage of some length",
        "empty": b"",
    }
    run.store.delete(name)
    if spoil in changed:
        run.store.put(name, changed[spoil])
    with pytest.raises(DamagedFile) as caught, connect(run, shards, ["texts"]) as connection:
        list(run_query(connection, "SELECT * FROM texts ORDER BY text").rows)
    assert str(caught.value).startswith(f"{run.store.url(name)} is damaged: expected a")
    with nullcontext() if spoil == "flipped" else pytest.raises(DamagedFile):
        run_statistics(run)  # which reads two columns only


def test_a_question_asked_amiss_is_no_damage(run: Run) -> None:
    with pytest.raises(QueryError, match="nosuch"), connect(run, [], ["texts"]) as connection:
        run_query(connection, "SELECT nosuch FROM texts")
