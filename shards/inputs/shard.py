"""One input shard: what it is read from, under which name its rows stand, and how it is known."""

from dataclasses import dataclass
from typing import Literal

from shards.errors import CapfiltError, UsageError
from shards.inputs.names import stem
from shards.inputs.text import TXT, TextSource
from shards.naming import encode_name

Kind = Literal["tar", "folder", "parquet"]


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How inputs are read: as which kind (None: as what is there), and where texts stand.

    `image` names the column of pictures in Parquet; virtual shards have `samples_per_shard`.
    """

    kind: Kind | None = None
    text: TextSource = TXT
    image: str | None = None
    samples_per_shard: int = 1_000


class InputError(UsageError):
    """An input that names nothing that can be read, or the same shard twice."""


class InputChanged(CapfiltError, ValueError):  # noqa: N818 - reads as what happened
    """A shard is not the one that the run was created with."""


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


def changed_since_listed(shard: InputShard, expected: str, found: str) -> InputChanged:
    """Make the error of a shard that is read while it changes."""
    return InputChanged(
        f"input shard {shard.shard!r} ({shard.url}) changed since it was listed: expected "
        f"{expected}, found {found}; restore it, or clean into another output folder"
    )
