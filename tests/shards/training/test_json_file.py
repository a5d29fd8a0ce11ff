"""JSON as people have it: marks before it, lines, gzip; and what is refused, within bounds."""

import bz2
import gzip
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from shards.training import json_file as module
from shards.training.json_file import AnnotationError, load_json, read_json, without_endings

ROWS = [{"image": "\u00fc.jpg", "caption": "a\u2028dog"}, {"image": "b.jpg", "caption": "a cat"}]
LISTED = json.dumps(ROWS, ensure_ascii=False)
LINES = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in ROWS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("text", [LISTED, LINES, LINES.replace("\n", "\r\n"), f"\n\n {LISTED}\n"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt"])
def test_the_same_rows_in_any_dress(
    tmp_path: Path, name: str, packed: bool, text: str, encoding: str
) -> None:
    data = text.encode(encoding)
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    content = load_json(str(path))
    assert content.value == ROWS
    assert content.sha256 == hashlib.sha256(data).hexdigest()  # whatever it is packed in


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.jsonl", '{"a": 1}', [{"a": 1}]),  # by its name alone
        ("a.json", '{"a": 1}', {"a": 1}),
        ("a.json", '{\n"a": 1\n}\n', {"a": 1}),
        ("a.jsonl", "", []),
        ("a.jsonl", '{broken\n{"a": 1}\n\n[[[\n"x"\n', [None, {"a": 1}, None, "x"]),
        ("a.json", '{"a": 1}\n{"a": 2', [{"a": 1}, None]),  # torn in its last line
        ("a.ndjson", f'{{"a": 1}}\n{"[" * 200_000}\n', [{"a": 1}, None]),
        ("a.jsonl", '[{"a": 1}]', [{"a": 1}]),  # a list under a wrong name
        ("a.JSONL", '{"a": NaN}\n', None),
    ],
)
def test_lines_and_lists(tmp_path: Path, name: str, text: str, expected: Any) -> None:
    path = tmp_path / name
    path.write_text(text)
    found = read_json(str(path))
    assert found == expected if expected is not None else found[0]["a"] != found[0]["a"]


def test_a_line_of_bad_bytes_takes_no_other_along(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "x"}\n{"a": "\xff\xfe"}\n{"a": "y"}\n')
    found = read_json(str(path))
    assert [found[0], found[2]] == [{"a": "x"}, {"a": "y"}]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cannot be read as JSON"),
        (b"no JSON", "cannot be read as JSON"),
        (b"[" * 200_000, "cannot be read as JSON"),
        (b"\xff\xfe{", "cannot be read as JSON"),
        (b'"\xff\xff"', "cannot be read as JSON"),
        (gzip.compress(LISTED.encode(), mtime=0)[:-12], "cannot be read as JSON"),
        (gzip.compress(LISTED.encode(), mtime=0)[:30] + b"spoiled" * 9, "cannot be read as JSON"),
        (b"\x1f\x8bnot gzip", "cannot be read as JSON"),
        (bz2.compress(b"[]"), "compressed by bzip2"),
        (b"PAR1....", "a Parquet file"),
    ],
)
def test_what_is_no_json_is_one_message(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(AnnotationError, match=rf"a\.json.*{said}"):
        read_json(str(path))


def test_an_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v2_Questions_Val_mscoco.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", LISTED)
    with pytest.raises(AnnotationError, match="a zip archive; expected JSON: unpack it first"):
        read_json(str(path))


@pytest.mark.parametrize("packed", [False, True])
def test_sizes_are_bounded_also_behind_a_compression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100_000)
    path, data = tmp_path / "a.json", b"[" + b" " * 200_000 + b"]"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(AnnotationError, match="at most 100,000 are read"):
        read_json(str(path))


def test_a_store_is_read_as_a_disk_is() -> None:
    fsspec.filesystem("memory").pipe_file("/json-file/a.jsonl", LINES.encode())
    assert read_json("memory://json-file/a.jsonl") == ROWS
    with pytest.raises(AnnotationError, match="is no file"):
        read_json("memory://json-file/gone.json")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl.gz", "a.ndjson", "a", "a.json.gz"])
def test_endings_of_a_name(name: str) -> None:
    assert without_endings(name) == "a"
