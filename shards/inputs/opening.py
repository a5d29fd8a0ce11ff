"""Opening an input shard of any kind: one interface for all who read samples."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from shards.inputs.folders.reader import FolderReader
from shards.inputs.reader import RawSample, ShardReader, ShardState, open_shard
from shards.inputs.shard import InputShard
from shards.inputs.tables.reader import TableReader
from shards.inputs.text import TXT, TextSource


class SampleReader(Protocol):
    """Iterate once for the samples, in order; then all else is known.

    Bad data comes as a row with its reason, or stands in the state; a failing disk raises.
    """

    def __iter__(self) -> Iterator[RawSample]:
        """Yield one row per sample."""

    @property
    def state(self) -> ShardState:
        """How the shard ended; RuntimeError before the last row was taken."""

    @property
    def sha256(self) -> str:
        """Hash of what the shard holds, in hex, once the last row was taken."""

    @property
    def bytes_read(self) -> int:
        """Bytes read so far; the shard's size once the last row was taken."""


@contextmanager
def open_samples(shard: InputShard, text: TextSource = TXT) -> Iterator[SampleReader]:
    """Open a shard for one pass, on local disk or behind any fsspec URL.

    `text` says where texts stand, as it did when the shard was listed.
    """
    if shard.kind == "folder":
        yield FolderReader(shard, text)
        return
    if shard.kind == "parquet":
        yield TableReader(shard)
        return
    with open_shard(shard.url) as file:
        yield ShardReader(file, text)
