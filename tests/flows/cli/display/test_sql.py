"""Answers in SQL: hostile cells, many rows, and every kind of value."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.driving import InProcess

Harmless = Callable[[str], bool]


@pytest.mark.usefixtures("run")
def test_sql_shows_hostile_cells_as_they_are(capfilt: InProcess, harmless: Harmless) -> None:
    for sql in ("SELECT text, itm FROM texts", "SELECT * FROM texts JOIN samples USING (index)"):
        done = capfilt.run("stats", "run", "--sql", sql)
        assert done.returncode == 0, done.stderr
        assert harmless(done.stdout)
        assert "[red]markup" in done.stdout
    named = capfilt.run("stats", "run", "--sql", 'SELECT 1 AS "\x1b[31m[red]", \'a\' AS "[/]"')
    assert harmless(named.stdout)
    assert "[red]" in named.stdout
    sql = "SELECT text::INT FROM texts WHERE text LIKE '%title%'"
    failed = capfilt.run("stats", "run", "--sql", sql)
    assert (failed.returncode, "title" in failed.stderr) == (2, True)
    assert harmless(failed.stderr)


@pytest.mark.usefixtures("run")
def test_many_rows_are_counted(capfilt: InProcess) -> None:
    done = capfilt.run("stats", "run", "--sql", "SELECT range FROM range(1234)")
    assert "the first 40 of 1,234 rows" in done.stdout
    rows = json.loads(
        capfilt.run("stats", "run", "--json", "--sql", "SELECT range FROM range(1234)").stdout
    )
    assert rows == [{"range": number} for number in range(1234)]
    assert capfilt.run("stats", "run", "--json", "--sql", "SELECT 1 WHERE false").stdout == "[]\n"


@pytest.mark.usefixtures("run")
def test_values_as_json(capfilt: InProcess) -> None:
    sql = (
        "SELECT 'ab'::BLOB AS b, DATE '2026-01-02' AS d, TIMESTAMP '2026-01-02 03:04:05' AS t, "
        "'nan'::FLOAT AS f, 1.5::DECIMAL(5,2) AS x, [1, NULL] AS l, {'a': 'ab'::BLOB} AS s, "
        "sum(1) AS h, 1 AS h"
    )
    (row,) = json.loads(capfilt.run("stats", "run", "--json", "--sql", sql).stdout)
    expected: dict[str, Any] = {"b": "6162", "d": "2026-01-02", "t": "2026-01-02T03:04:05"}
    expected |= {"f": None, "x": 1.5, "l": [1, None], "s": {"a": "6162"}, "h": 1, "h_1": 1}
    assert row == expected
