"""Conditions over Arrow tables, against SQL of the same words in DuckDB."""

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.views.condition import evaluate
from shards.run.scoring.expression import SAMPLE_COLUMNS, TEXT_COLUMNS, parse_condition

COLUMNS = TEXT_COLUMNS | SAMPLE_COLUMNS
ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(0, 1, width=32), st.sampled_from([0.5, 0.7])),
        st.one_of(st.none(), st.floats(-1, 1, width=32)),
        st.one_of(st.none(), st.integers(1, 2000)),
        st.one_of(st.none(), st.booleans()),
        st.sampled_from(["web", "synthetic", None]),
    ),
    min_size=1,
    max_size=30,
)


def table_of(rows: list[tuple[object, ...]]) -> pa.Table:
    itm, itc, width, truncated, origin = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "itm": pa.array(itm, pa.float32()),
            "itc": pa.array(itc, pa.float32()),
            "width": pa.array(width, pa.int32()),
            "truncated": pa.array(truncated, pa.bool_()),
            "origin": pa.array(origin, pa.string()),
        }
    )


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("itm >= 0.7", "itm >= 0.7::FLOAT"),
        ("0.2 < itm < 0.7", "itm > 0.2::FLOAT AND itm < 0.7::FLOAT"),
        ("not itm >= 0.5", "NOT itm >= 0.5"),
        ("itm >= 0.5 and itc > 0 or truncated", "itm >= 0.5 AND itc > 0 OR truncated"),
        ("not (truncated or width > 900)", "NOT (truncated OR width > 900)"),
        ("origin == 'web' and itc is None", "origin = 'web' AND itc IS NULL"),
        ("origin in ('web', 'x') or width == 7", "origin IN ('web', 'x') OR width = 7"),
        ("origin not in ('web', 'x')", "origin NOT IN ('web', 'x')"),
        ("'syn' in origin", "contains(origin, 'syn')"),
        ("itm > itc", "itm > itc"),
        ("itm != 0.7", "itm <> 0.7::FLOAT"),
        ("width / 2 - 1 > 200", "width::DOUBLE / 2 - 1 > 200"),
        ("(itm + itc) / 2 >= 0.5", "(itm::DOUBLE + itc::DOUBLE) / 2 >= 0.5::DOUBLE"),
    ],
)
def test_it_is_what_sql_says(text: str, sql: str) -> None:
    @settings(max_examples=25, deadline=None)
    @given(ROWS)
    def agree(rows: list[tuple[object, ...]]) -> None:
        facts = table_of(rows)
        condition = parse_condition(text, COLUMNS)
        mine = evaluate(condition.root, facts).to_pylist()
        asked = duckdb.execute(f"SELECT {sql} FROM facts")
        assert mine == [value for (value,) in asked.fetchall()]

    agree()


def test_what_cannot_be_computed_is_missing() -> None:
    facts = table_of([(0.0, 0.5, 1, True, "web"), (0.5, 0.5, 1, True, "web")])
    root = parse_condition("itc / itm >= 1", COLUMNS).root
    assert evaluate(root, facts).to_pylist() == [None, True]
    negated = parse_condition("not itc / itm >= 1", COLUMNS).root
    assert evaluate(negated, facts).to_pylist() == [None, False]
