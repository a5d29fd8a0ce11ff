"""The files of an exported set, each of about a size: WebDataset tars, or Parquet with pictures."""

import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.publish.kept import KeptSample
from shards.naming import encode_name

_ROWS_PER_GROUP, _BYTES_PER_GROUP = 500, 64 << 20


AddFile = Callable[[Path], None]
"""Takes each file once it is finished."""


_TEXT = pa.struct(
    [
        ("text", pa.string()),
        ("origin", pa.string()),
        ("itm", pa.float32()),
        ("itc", pa.float32()),
    ]
)
PLAIN = [
    ("key", pa.string()),
    ("shard", pa.string()),
    ("url", pa.string()),
    ("sha256", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
]
_VALUES = {pa.string(): "string", pa.int32(): "int32", pa.float32(): "float32"}
_FEATURES = {
    "image": {"_type": "Image"},
    "text": {"dtype": "string", "_type": "Value"},
    "texts": {
        "feature": {f.name: {"dtype": _VALUES[f.type], "_type": "Value"} for f in _TEXT},
        "_type": "List",
    },
    **{name: {"dtype": _VALUES[kind], "_type": "Value"} for name, kind in PLAIN},
}
_SET = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text", pa.string()),
        ("texts", pa.list_(_TEXT)),
        *PLAIN,
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


class TarFiles:
    """WebDataset tars of about a size, their bytes the same every time."""

    def __init__(self, data: Path, file_bytes: int, add_file: AddFile) -> None:
        self._data, self._file_bytes, self._add_file = data, file_bytes, add_file
        self._tar: tarfile.TarFile | None = None
        self._path = data
        self._count = self._size = 0

    def add(self, kept: KeptSample, text: str) -> None:
        """Write a sample's three members; `text` is the one that stands for it."""
        if self._tar is None or self._size >= self._file_bytes:
            self.close()
            self._path = self._data / f"train-{self._count:05d}.tar"
            self._tar = tarfile.open(self._path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by close
            self._count, self._size = self._count + 1, 0
        for extension, content in (
            (kept.extension, kept.image),
            ("json", _sidecar(kept)),
            ("txt", text.encode()),
        ):
            member = tarfile.TarInfo(f"{kept.key}.{extension}")
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))
            self._size += len(content)

    def close(self) -> None:
        """Finish the last tar."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None
            self._add_file(self._path)


class ParquetFiles:
    """Parquet files of about a size, of a name and numbered."""

    def __init__(
        self,
        data: Path,
        schema: pa.Schema,
        file_bytes: int,
        add_file: AddFile,
        name: str = "train",
    ) -> None:
        self._data, self._schema, self._name = data, schema, name
        self._file_bytes, self._add_file = file_bytes, add_file
        self._writer: pq.ParquetWriter | None = None
        self._path = data
        self._count = 0

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows that stay together."""
        if not rows:
            return
        if self._writer is None or self._path.stat().st_size >= self._file_bytes:
            self.close()
            self._path = self._data / f"{self._name}-{self._count:05d}.parquet"
            self._writer, self._count = pq.ParquetWriter(self._path, self._schema), self._count + 1
        self._writer.write_table(pa.Table.from_pylist(rows, self._schema))

    def close(self) -> None:
        """Finish the last file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._add_file(self._path)


class PictureTables:
    """Parquet files with pictures in them, which `datasets` decodes."""

    def __init__(self, data: Path, file_bytes: int, add_file: AddFile) -> None:
        self._tables = ParquetFiles(data, _SET, file_bytes, add_file)
        self._group_bytes = min(_BYTES_PER_GROUP, file_bytes)
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = 0

    def add(self, kept: KeptSample, text: str) -> None:
        """Take a sample, and write those that wait when they are many."""
        row = {
            "image": {
                "bytes": kept.image,
                "path": f"{encode_name(cast(str, kept.facts['key']))}.{kept.extension}",
            },
            "text": text,
            **_record(kept),
        }
        self._waiting.append(row)
        self._waiting_bytes += len(kept.image)
        if self._waiting_bytes >= self._group_bytes or len(self._waiting) >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._tables.write(self._waiting)
        self._waiting, self._waiting_bytes = [], 0

    def close(self) -> None:
        """Write what waits, and finish the last file."""
        self._flush()
        self._tables.close()


def _sidecar(kept: KeptSample) -> bytes:
    """Write the record as JSON without a null: `datasets` takes a field's type from its first rows.

    Where these have no url it would refuse the first text that comes later.
    """
    record = {name: "" if value is None else value for name, value in _record(kept).items()}
    return json.dumps(record, ensure_ascii=False).encode()


def _record(kept: KeptSample) -> dict[str, Any]:
    """Return what an export says of a sample beside its picture and its one text."""
    return {
        "key": kept.facts["key"],
        "shard": kept.shard,
        "texts": [
            {name: row[name] for name in ("text", "origin", "itm", "itc")} for row in kept.texts
        ],
        **{name: kept.facts[name] for name in ("url", "sha256", "width", "height")},
    }
