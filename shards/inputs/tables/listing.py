"""Parquet files as shards: a whole file, or some row groups of it where it is long."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import fsspec
import pyarrow.parquet as pq

from shards.errors import DamagedFile
from shards.files.notice import tell_once
from shards.inputs.shard import InputError, InputOptions, InputShard
from shards.inputs.tables.columns import Columns, find_columns
from shards.naming import encode_name
from shards.schema import open_parquet


@dataclass(frozen=True, slots=True)
class Part:
    """Row groups side by side; `size_bytes` is what they take, or all of a file that they fill."""

    first: int
    count: int
    size_bytes: int


def parts_of(file: pq.FileMetaData, size_bytes: int, samples_per_shard: int) -> list[Part]:
    """Divide a file into parts of at least so many rows, but for the last."""
    parts, first, rows = list[Part](), 0, 0
    for group in range(file.num_row_groups):
        rows += file.row_group(group).num_rows
        if rows >= samples_per_shard or group == file.num_row_groups - 1:
            count = group + 1 - first
            parts.append(Part(first, count, bytes_of(file, first, count)))
            first, rows = group + 1, 0
    return parts if len(parts) > 1 else [Part(0, file.num_row_groups, size_bytes)]


def bytes_of(file: pq.FileMetaData, first: int, count: int) -> int:
    """Sum what row groups take in the file."""
    groups = (file.row_group(number) for number in range(first, first + count))
    return sum(
        group.column(column).total_compressed_size
        for group in groups
        for column in range(group.num_columns)
    )


def list_tables(
    fs: fsspec.AbstractFileSystem, files: list[tuple[str, InputShard]], options: InputOptions
) -> Iterator[InputShard]:
    """Divide Parquet files, each given with its name and as one shard, into shards.

    One that cannot be read is a damaged shard; if that is all there is, InputError.
    """
    rows, last = 0, ""
    for name, whole in files:
        try:
            with fs.open(fs._strip_protocol(whole.url), "rb") as source:
                parts, columns, count = _look_into(source, whole, options)
        except DamagedFile as error:
            last = f"{whole.url}: not_parquet: {error.actual}"
            yield replace(whole, shard=encode_name(name), kind="parquet")
            continue
        rows += count
        last = last or f"{whole.url}: empty_table: it has no rows"
        for number, part in enumerate(parts):
            yield replace(
                whole,
                shard=encode_name(name if len(parts) == 1 else f"{name}/{number:05}"),
                size_bytes=part.size_bytes,
                kind="parquet",
                first=part.first,
                count=part.count,
                image_column=columns.image,
                text_column=columns.text,
            )
    if not rows:
        raise InputError(f"{last}; nothing can be read from {len(files)} Parquet file(s)")


def _look_into(
    source: BinaryIO, whole: InputShard, options: InputOptions
) -> tuple[list[Part], Columns, int]:
    with open_parquet(source, whole.url) as file:
        columns = find_columns(file.schema_arrow, whole.url, options.image, options.text)
        texts = "no texts" if columns.text is None else f"texts from {columns.text!r}"
        tell_once(f"Parquet: pictures from the column {columns.image!r}, {texts}")
        parts = parts_of(file.metadata, whole.size_bytes, options.samples_per_shard)
        return parts, columns, file.metadata.num_rows
