"""A question in SQL ends in time, and takes no more memory than it may."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from shards.query.limits import QueryLimitError, QueryLimits, _resident_bytes
from shards.query.query import QueryError, database, run_query

ENDLESS = [
    "SELECT count(*) FROM range(1e7::INT) a, range(1e7::INT) b WHERE hash(a.range, b.range) = 7",
    "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT max(a) FROM t",
    "SELECT a.range FROM range(1e7::INT) a, range(1e7::INT) b",  # rows without end
]
GREEDY = [
    "SELECT list(range) FROM range(300000000)",
    "SELECT * FROM (SELECT repeat('x', 999) || range AS a FROM range(4e5::INT)) ORDER BY a",
]
# inside one function; nothing but the end of the process ends these
DEAF = "SELECT levenshtein(repeat('x', 300000), repeat('y', 300000))"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_the_memory_that_is_watched_is_this_process_s_own() -> None:
    assert _resident_bytes() == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


@pytest.mark.parametrize("sql", ENDLESS)
def test_an_endless_question_ends_in_time(sql: str, temporary: Path) -> None:
    limits, start_s = QueryLimits(timeout_s=0.5), time.monotonic()
    with (
        pytest.raises(QueryLimitError, match=r"took longer than 0.5 s; give --sql-timeout"),
        database({}, limits) as connection,
    ):
        for _ in run_query(connection, sql, limits).rows:
            pass
    assert time.monotonic() - start_s < 30
    assert QueryLimitError.exit_code == 1
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("sql", GREEDY)
def test_a_greedy_question_is_refused(sql: str, temporary: Path) -> None:
    limits = QueryLimits(memory_gb=0.03)
    with (
        database({}, limits) as connection,
        pytest.raises(QueryLimitError, match=r"needs more than 0.03 GB of memory, or than 0.3 GB"),
    ):
        list(run_query(connection, sql, limits).rows)
    assert list(temporary.iterdir()) == []


def test_what_does_not_fit_into_memory_is_spilled_where_nobody_else_looks(temporary: Path) -> None:
    limits = QueryLimits(memory_gb=0.03)
    wide = "SELECT repeat('x', 99) || range AS a FROM range(1e6::INT)"
    sql = f"SELECT count(*) FROM (SELECT a FROM ({wide}) ORDER BY hash(a) LIMIT 999999)"
    with database({}, limits) as connection:
        (scratch,) = temporary.iterdir()
        assert scratch.stat().st_mode & 0o777 == 0o700
        assert len(list(run_query(connection, sql, limits).rows)) == 1
    assert list(temporary.iterdir()) == []


def test_time_counts_only_while_duckdb_works() -> None:
    limits = QueryLimits(timeout_s=0.5)
    with database({}, limits) as connection:
        rows = run_query(connection, "SELECT range FROM range(3000)", limits).rows
        next(rows)
        time.sleep(1)  # a reader turns a page
        assert len(list(rows)) == 2999


def test_an_error_stays_an_error() -> None:
    with database({}, QueryLimits()) as connection, pytest.raises(QueryError, match="nothing"):
        run_query(connection, "SELECT nothing")


LEAVES = """
import os, sys
from shards.query.query import database, run_query
from shards.query.limits import QueryLimits
def leave(error):
    print(error, flush=True)
    os._exit(1)
limits = QueryLimits(timeout_s=0.5, give_up=leave)
with database({}, limits) as connection:
    run_query(connection, sys.argv[1], limits)
print("it ended")
"""


def test_what_cannot_be_interrupted_is_given_up() -> None:
    command = [sys.executable, "-c", LEAVES, DEAF]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == "the question took longer than 0.5 s; give --sql-timeout SECONDS\n"
