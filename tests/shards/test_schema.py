"""Tables are taken when they fit, filled when older, refused with a name when not."""

import io
import os
import pickle
from pathlib import Path
from types import NoneType
from typing import get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import DamagedFile
from shards.schema import (
    SCHEMAS,
    TEXTS,
    DecisionRow,
    JudgedTextRow,
    SampleRow,
    SchemaError,
    TextRow,
    arrow_rows,
    check_schema,
    open_parquet,
    read_bytes,
    read_table,
)

ROW = {"shard": "s", "index": 0, "text_no": 0, "origin": "web", "text": "a", "itm": 0.5}

# what `to_pylist` makes of each type of the tables
PYTHON = {"string": str, "bool": bool, "float": float, "list": list, "fixed_size_binary": bytes}
PYTHON |= dict.fromkeys(("int16", "int32", "int64"), int)


def written(table: pa.Table) -> io.BytesIO:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return io.BytesIO(buffer.getvalue())


def with_version(schema: pa.Schema, version: bytes) -> pa.Schema:
    return schema.with_metadata({b"capfilt.schema_version": version})


@pytest.mark.parametrize("table", SCHEMAS)
def test_own_schema_fits(table: str) -> None:
    check_schema(SCHEMAS[table], SCHEMAS[table], "here")
    empty = written(SCHEMAS[table].empty_table())
    assert read_table(empty, table, "here").schema.names == SCHEMAS[table].names


@pytest.mark.parametrize(
    ("table", "row"), [("samples", SampleRow), ("texts", TextRow), ("decisions", DecisionRow)]
)
def test_typed_rows_are_the_tables(table: str, row: type) -> None:
    hints = get_type_hints(row)
    assert list(hints) == SCHEMAS[table].names
    for field in SCHEMAS[table]:
        kinds = get_args(hints[field.name]) or (hints[field.name],)
        assert (NoneType in kinds) == field.nullable, field.name
        (python,) = (get_origin(kind) or kind for kind in kinds if kind is not NoneType)
        assert python is PYTHON[str(field.type).split("[")[0].split("<")[0]], field.name


def test_a_judged_text_is_a_text_with_its_decision() -> None:
    joined = get_type_hints(JudgedTextRow)
    assert joined == get_type_hints(TextRow) | get_type_hints(DecisionRow)


def test_missing_column_is_named() -> None:
    schema = TEXTS.remove(TEXTS.get_field_index("itm"))
    with pytest.raises(SchemaError, match=r"here\.parquet: column 'itm' \(float\) is missing"):
        check_schema(schema, TEXTS, "here.parquet")


def test_wrong_type_is_named() -> None:
    place = TEXTS.get_field_index("text")
    schema = TEXTS.set(place, pa.field("text", pa.int64()))
    with pytest.raises(SchemaError, match="column 'text' should be string, found int64"):
        check_schema(schema, TEXTS, "here")


def test_newer_version_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"newer than .* update capfilt"):
        check_schema(with_version(TEXTS, b"99"), TEXTS, "here")
    with pytest.raises(SchemaError, match="no capfilt schema version"):
        check_schema(TEXTS.remove_metadata(), TEXTS, "here")


def test_older_version_is_filled_with_null() -> None:
    short = arrow_rows([ROW], TEXTS).drop_columns(["itm", "author"])
    older = short.cast(with_version(short.schema, b"0"))
    read = read_table(written(older), "texts", "here")
    assert read.schema.names == TEXTS.names
    assert read["itm"].to_pylist() == [None]
    assert read["text"].to_pylist() == ["a"]
    # a column that must be there is not made up
    without = older.drop_columns(["text"])
    with pytest.raises(SchemaError, match="'text'"):
        read_table(written(without), "texts", "here")


def test_only_the_wanted_columns_are_read() -> None:
    read = read_table(written(arrow_rows([ROW], TEXTS)), "texts", "here", ["text", "index"])
    assert read.column_names == ["text", "index"]


def test_not_parquet() -> None:
    with pytest.raises(DamagedFile, match=r"here is damaged: expected a whole Parquet file"):
        read_table(io.BytesIO(b"a,b\n1,2\n"), "texts", "here")


def test_unknown_column_is_not_dropped() -> None:
    with pytest.raises(SchemaError, match="itn"):
        arrow_rows([{**ROW, "itn": 0.5}], TEXTS)


def test_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(SchemaError("what, where")))
    assert isinstance(error, ValueError)
    assert str(error) == "what, where"


def test_a_table_in_memory_is_read_whole_or_refused() -> None:
    table, buffer = pa.table({"a": [1, 2, 3]}), io.BytesIO()
    pq.write_table(table, buffer)
    assert read_bytes(buffer.getvalue(), "here").equals(table)
    with pytest.raises(DamagedFile, match="here is damaged"):
        read_bytes(buffer.getvalue()[:-9], "here")


def test_a_pipe_is_no_table_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.parquet")
    with (
        pytest.raises(DamagedFile, match="expected a Parquet file, found a named pipe"),
        open_parquet(str(tmp_path / "t.parquet"), "t.parquet"),
    ):
        pass
