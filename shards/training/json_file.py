"""JSON files as people have them, in any store: with a BOM, in lines, compressed by gzip.

Sizes are bounded, also behind the compression. Of JSON lines a broken one is None, and takes no
other along.
"""

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import UnsupportedOperation
from typing import Any, BinaryIO, cast

from shards.errors import UsageError
from shards.store import filesystem

MAX_FILE_BYTES = 2 << 30
_HEAD_BYTES = 1 << 20  # in which the first of JSON lines must end, unless the name says lines
_LINES = (".jsonl", ".ndjson", ".jsonlines")
_GZIP = b"\x1f\x8b"
_REFUSED = {  # what data sets are downloaded as
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"7z\xbc\xaf": "a 7z archive",
    b"PAR1": "a Parquet file",
}


class AnnotationError(UsageError):
    """A file that is no list of annotations."""


@dataclass(frozen=True, slots=True)
class JsonContent:
    """A file's value (of JSON lines: the list of them), and the SHA-256 of its bytes, unpacked."""

    value: Any
    sha256: str


def read_json(url: str) -> Any:  # noqa: ANN401 - any JSON value
    """Read a JSON file; AnnotationError says what is wrong with it."""
    return load_json(url).value


def load_json(url: str) -> JsonContent:
    """Read a JSON file, or one of JSON lines, with its hash; AnnotationError as `read_json`."""
    with _opened(url) as content:
        file = io.BufferedReader(content, _HEAD_BYTES)
        try:
            head = file.peek(_HEAD_BYTES)
            if _has_lines(url, head):
                encoding = json.detect_encoding(head)
                # other line ends may stand inside a JSON string
                text = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="\n")
                value = [_parsed(line) for line in text if line.strip()]
            else:
                value = json.loads(file.read())
        except AnnotationError:
            raise
        except (ValueError, RecursionError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise AnnotationError(f"{url} cannot be read as JSON: {error}") from None
        return JsonContent(value, content.sha256.hexdigest())


def without_endings(name: str) -> str:
    """Cut off the endings that a file of annotations may have."""
    bare = name.removesuffix(".gz")
    return next((bare.removesuffix(end) for end in (".json", *_LINES) if bare.endswith(end)), bare)


class _Content(io.RawIOBase):
    """What a file holds, bounded, and hashed as it is read."""

    def __init__(self, url: str, file: BinaryIO) -> None:
        self._url, self._file, self._count = url, file, 0
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        """Fill the whole buffer, unless the file ends before."""
        filled = 0
        while filled < len(buffer) and (data := self._file.read(len(buffer) - filled)):
            buffer[filled : filled + len(data)] = data
            filled += len(data)
            self.sha256.update(data)
        self._count += filled
        _check_size(self._url, self._count)
        return filled


@contextmanager
def _opened(url: str) -> Iterator[_Content]:
    fs, path = filesystem(url)
    try:
        _check_size(url, fs.size(path) or 0)
        file = fs.open(path, "rb")
    except (FileNotFoundError, IsADirectoryError, UnsupportedOperation) as error:  # a pipe, too
        raise AnnotationError(f"{url} is no file") from error
    with file:
        stored = io.BufferedReader(file)  # which need not seek: not every store can
        head = stored.peek(8)
        for magic, kind in _REFUSED.items():
            if head.startswith(magic):
                raise AnnotationError(f"{url} is {kind}; expected JSON: unpack it first")
        is_packed = head.startswith(_GZIP)
        unpacked = gzip.GzipFile(fileobj=stored) if is_packed else stored
        yield _Content(url, cast(BinaryIO, unpacked))


def _check_size(url: str, size_bytes: int) -> None:
    if size_bytes > MAX_FILE_BYTES:
        raise AnnotationError(
            f"{url} has {size_bytes:,} bytes or more; at most {MAX_FILE_BYTES:,} are read: split it"
        )


def _has_lines(url: str, head: bytes) -> bool:
    """Tell JSON lines by their first line, an object of its own, or else by the file's name."""
    text = head.decode(json.detect_encoding(head), "replace").lstrip()
    if url.lower().removesuffix(".gz").endswith(_LINES):
        return not text.startswith("[")
    first, _, rest = text.partition("\n")
    if not first.startswith("{") or not rest.strip():
        return False
    return _parsed(first) is not None


def _parsed(line: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
