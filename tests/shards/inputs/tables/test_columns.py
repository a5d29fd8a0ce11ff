"""Columns are found by their types and names; what cannot be used is refused by name."""

import json

import pyarrow as pa
import pytest

from shards.inputs.shard import InputError
from shards.inputs.tables.columns import (
    Columns,
    as_meta,
    find_columns,
    plain_columns,
    rows_of,
    values_of,
)
from shards.inputs.text import NO_TEXTS, TXT, TextSource

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def found(
    columns: dict[str, pa.DataType], image: str | None = None, text: TextSource = TXT
) -> Columns:
    return find_columns(pa.schema(list(columns.items())), "t.parquet", image, text)


@pytest.mark.parametrize(
    "kind", [STRUCT, pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())]
)
def test_pictures_are_known_by_their_type(kind: pa.DataType) -> None:
    assert found({"any": kind, "caption": pa.string(), "n": pa.int64()}) == Columns(
        "any", "caption"
    )


def test_of_several_the_usual_name_or_the_one_that_is_said() -> None:
    two = {"left": pa.binary(), "image": pa.binary(), "text": pa.string()}
    assert found(two).image == "image"
    assert found(two, "left").image == "left"
    assert found({"hash": pa.binary(), "photo": STRUCT, "text": pa.string()}).image == "photo"
    with pytest.raises(InputError, match=r"several.*left, right; name one with input\.image"):
        found({"left": STRUCT, "right": STRUCT, "text": pa.string()})


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.null(), pa.binary()])
def test_texts_have_a_usual_name_in_any_case(kind: pa.DataType) -> None:
    words = {"image": STRUCT, "words": kind}
    assert found({"image": STRUCT, "TEXT": kind}).text == "TEXT"
    assert found(words, text=TextSource.parse("json:words")).text == "words"
    assert found(words, text=NO_TEXTS).text is None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": pa.list_(STRUCT)}, "wrong_type.*'image', found list"),
        ({"image": pa.string()}, "'image' holds addresses.*capfilt download"),
        ({"url": pa.string(), "caption": pa.string()}, "'url' holds addresses.*capfilt download"),
        ({"caption": pa.string()}, "missing_column: expected a column of pictures.*caption"),
        ({"image": STRUCT, "label": pa.int64()}, "missing_column.*label.*input.text"),
        ({"image": STRUCT, "text": pa.int64()}, "wrong_type.*'text', found int64"),
        ({"image": STRUCT, "text": pa.list_(pa.string())}, "wrong_type.*'text', found list"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(
    columns: dict[str, pa.DataType], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        found(columns)


@pytest.mark.parametrize(("image", "message"), [("x", "missing_column"), ("url", "wrong_type")])
def test_a_column_that_is_named_must_hold_pictures(image: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        found({"image": STRUCT, "url": pa.string(), "text": pa.string()}, image)


def test_rows_are_told_in_json_without_bytes_and_vectors() -> None:
    table = pa.table(
        {
            "raw": [b"x"],
            "vector": [[0.5, 0.5]],
            "n": [float("nan")],
            "words": pa.array([b"\xff"]).cast(pa.binary()).view(pa.string()),
            "box": [[1, 2]],
        }
    )
    names = plain_columns(table.schema)
    assert names == ["n", "words", "box"]
    (row,) = rows_of(table.select(names).to_batches()[0])
    assert json.loads(as_meta(row)) == {"n": None, "words": "�", "box": [1, 2]}


def test_values_come_as_bytes_utf8_or_not() -> None:
    broken = pa.array([b"\xff", None]).view(pa.string())
    assert list(values_of(broken)) == [b"\xff", None]
    assert list(values_of(pa.array(["a", "b", "a"]).dictionary_encode())) == [b"a", b"b", b"a"]
    assert list(values_of(pa.nulls(2))) == [None, None]
