"""One input shard: what it is read from, under which name its rows stand, and how it is known."""

from dataclasses import dataclass
from typing import Literal

from shards.inputs.names import stem
from shards.naming import encode_name

Kind = Literal["tar", "folder", "parquet"]


@dataclass(frozen=True, slots=True)
class InputShard:
    """A tar, some files of a folder, or some row groups of a Parquet file, with its identity.

    `url` is absolute (a plain path if local), `shard` the SHARD of all its rows. `mtime` is in
    seconds since 1970, and of several files their mean, which any one of them changes. A store that
    knows neither etag nor mtime is trusted by size.

    Of a folder, `listing` is a Parquet file that names the files, and `files_sha256` a hash of
    their names and sizes; `first` and `count` are row groups, there or of the Parquet file itself.
    """

    url: str
    shard: str
    size_bytes: int
    etag: str | None = None
    mtime: float | None = None
    kind: Kind = "tar"
    first: int = 0
    count: int = 0
    image_column: str | None = None
    text_column: str | None = None
    files_sha256: str | None = None
    listing: str | None = None

    @classmethod
    def of_tar(cls, url: str) -> "InputShard":
        """Return a tar that is read by itself, outside any list."""
        return cls(url, encode_name(stem(url.rpartition("/")[2])), 0)
