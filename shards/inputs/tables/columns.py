"""Which columns of a table hold what: pictures by their type, texts and keys by their names."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.types as kinds

from shards.errors import DamagedFile
from shards.inputs.shard import InputError
from shards.inputs.text import TextSource
from shards.schema import open_parquet

TEXT_COLUMNS = ("text", "txt", "caption", "alt", "alt_text", "alttext", "description", "prompt")
_ADDRESSES = ("image", "img", "picture", "photo", "url", "uri", "image_url", "img_url", "link")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of pictures and of texts, by name."""

    image: str
    text: str | None


def find_columns(schema: pa.Schema, url: str, image: str | None, text: TextSource) -> Columns:
    """Find the columns; InputError names those that are there, and what was expected."""
    picture = _image_column(schema, url, image)
    others = [name for name in schema.names if name != picture]
    words = text_column(others, text)
    if words is None and not text.is_none:
        raise InputError(
            f"{url}: missing_column: expected a column of texts ({', '.join(TEXT_COLUMNS[:3])}), "
            f"found {_listed(schema)}; name it with input.text: json:COLUMN, or say none"
        )
    if words is not None and not _holds_text(schema.field(words).type):
        raise InputError(
            f"{url}: wrong_type: expected texts in the column {words!r}, found "
            f"{schema.field(words).type}; name another with input.text: json:COLUMN, or say none"
        )
    return Columns(picture, words)


def holds_pictures(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    """Whether a Parquet file has a column of pictures; one that cannot be read has none."""
    try:
        with fs.open(path, "rb") as source, open_parquet(source, path) as file:
            return any(map(_is_picture, file.schema_arrow))
    except DamagedFile:
        return False


def pick(columns: Iterable[str], wanted: Iterable[str]) -> str | None:
    """Return the first column of the wanted names, in any case."""
    there = {column.lower(): column for column in columns}
    return next((there[name] for name in wanted if name in there), None)


def text_column(columns: list[str], text: TextSource) -> str | None:
    """Return the column of texts: the one that is named, or else the first of a usual name."""
    if text.is_none:
        return None
    named = text.field or text.extension or ""
    if named in columns:
        return named
    return pick(columns, [named.lower()] if named != "txt" else TEXT_COLUMNS)


def plain_columns(schema: pa.Schema) -> list[str]:
    """List the columns that JSON can tell: no bytes, and no long rows of numbers."""
    return [item.name for item in schema if _is_plain(item.type)]


def as_meta(row: Row) -> bytes:
    """Write a row as JSON, with null for what JSON has no word for."""
    return json.dumps(_plain(row), ensure_ascii=False, default=str).encode("utf-8", "replace")


def values_of(column: pa.Array) -> Iterator[bytes | None]:
    """Yield texts or bytes as they stand, be they UTF-8 or not."""
    if kinds.is_null(column.type):
        return iter([None] * len(column))
    if kinds.is_dictionary(column.type):
        column = column.dictionary_decode()
    return (value.as_py() for value in column.cast(pa.large_binary()))


def rows_of(batch: pa.RecordBatch) -> list[Row]:
    """Return rows of plain columns, with signs in the place of what is not UTF-8."""
    columns = {}
    for name in batch.schema.names:
        column = batch.column(name)
        try:
            columns[name] = column.to_pylist()
        except UnicodeError:
            is_text = _holds_text(column.type)
            raw = values_of(column) if is_text else [None] * len(column)
            columns[name] = [value and value.decode("utf-8", "replace") for value in raw]
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ] or [{}] * batch.num_rows


def _image_column(schema: pa.Schema, url: str, named: str | None) -> str:
    if named is not None:
        if named not in schema.names:
            raise InputError(
                f"{url}: missing_column: expected {named!r}, as input.image says, found "
                f"{_listed(schema)}"
            )
        if not _is_picture(schema.field(named)):
            raise _wrong_type(schema.field(named), url)
        return named
    structs = [item.name for item in schema if kinds.is_struct(item.type) and _is_picture(item)]
    there = structs or [item.name for item in schema if _is_picture(item)]
    if len(there) == 1 or "image" in there:
        return "image" if "image" in there else there[0]
    if there:
        raise InputError(
            f"{url}: several columns hold pictures: {', '.join(there)}; name one with input.image"
        )
    raise _no_pictures(schema, url)


def _no_pictures(schema: pa.Schema, url: str) -> InputError:
    lists = [item for item in schema if _is_list(item.type) and _is_picture(item.type.value_field)]
    if lists:
        return _wrong_type(lists[0], url)
    texts = [item.name for item in schema if _is_string(item.type)]
    addresses = pick(texts, _ADDRESSES)
    if addresses is not None:
        return InputError(
            f"{url}: the column {addresses!r} holds addresses or paths, not pictures; nothing is "
            "fetched from here: `capfilt download` makes tars of a list of addresses"
        )
    return InputError(
        f"{url}: missing_column: expected a column of pictures (bytes, or a struct of bytes and "
        f"path), found {_listed(schema)}"
    )


def _wrong_type(item: pa.Field, url: str) -> InputError:
    if _is_string(item.type):
        mend = "of addresses `capfilt download` makes tars"
    else:
        mend = "write one picture a row"
    return InputError(
        f"{url}: wrong_type: expected one picture a row (bytes, or a struct of bytes and path) in "
        f"the column {item.name!r}, found {str(item.type)[:200]}; {mend}"
    )


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{item.name} ({str(item.type)[:40]})" for item in list(schema)[:40]) or "none"


def _is_picture(item: pa.Field) -> bool:
    kind = item.type
    if kinds.is_struct(kind):
        return any(part.name == "bytes" and _is_bytes(part.type) for part in kind)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))


def _is_string(kind: pa.DataType) -> bool:
    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def _holds_text(kind: pa.DataType) -> bool:
    return _is_string(kind) or _is_bytes(kind) or bool(kinds.is_null(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def _is_plain(kind: pa.DataType) -> bool:
    if _is_bytes(kind) or kinds.is_fixed_size_binary(kind) or kinds.is_map(kind):
        return False
    if kinds.is_struct(kind):
        return all(_is_plain(part.type) for part in kind)
    if _is_list(kind):
        return not kinds.is_floating(kind.value_type) and _is_plain(kind.value_type)
    return True


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value of a table
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
