"""Tables of texts beside pictures: which row is whose, and what is told of bad ones."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.inputs.folders import metadata
from shards.inputs.folders.metadata import MetadataRows
from shards.inputs.shard import InputError
from shards.inputs.text import NO_TEXTS, TXT, TextSource
from shards.store import filesystem


def read(path: Path, text: TextSource = TXT, folder: str = "") -> MetadataRows:
    rows = MetadataRows(Path(":memory:"), text)
    rows.add_table(filesystem(str(path))[0], str(path), folder)
    rows.index()
    return rows


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_row_is_found_by_its_path_below_the_input(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "metadata.jsonl",
        {"file_name": "a.jpg", "text": "one"},
        {"file_name": "./x/../a.jpg", "text": "two"},
        {"file_name": "é.jpg", "text": None},
    )
    rows = read(path, folder="sub")
    assert [row.text for row in rows.of(b"sub/a.jpg")] == [b"one", b"two"]
    assert [row.text for row in rows.of("sub/é.jpg".encode())] == [None]
    assert rows.of(b"a.jpg") == []
    assert list(rows.unused()) == []


@pytest.mark.parametrize("name", ["../b.jpg", "/etc/hostname", "a/../../b.jpg", ".", "a\0.jpg"])
def test_a_path_that_leads_out_is_none(tmp_path: Path, name: str) -> None:
    rows = read(lines(tmp_path / "metadata.jsonl", {"file_name": name, "text": "t"}))
    (row,) = rows.unused()
    assert (row.path, row.text) == (None, b"t")


def test_a_line_that_is_no_object_is_a_row_without_a_name(tmp_path: Path) -> None:
    path = lines(tmp_path / "metadata.jsonl", {"file_name": "a.jpg", "text": "t"})
    with path.open("ab") as file:
        file.write(b"\n  \n[1, 2]\n{broken\n")
    rows = read(path)
    rows.of(b"a.jpg")
    assert [(row.name, row.where.split()[1]) for row in rows.unused()] == [("", "4"), ("", "5")]


def test_csv_keeps_what_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_bytes(b'\xef\xbb\xbffile_name,text\na.jpg,"x, ""y""\nz"\nb.jpg,\xff\nc.jpg\n')
    rows = read(path)
    texts = [rows.of(name)[0].text for name in (b"a.jpg", b"b.jpg", b"c.jpg")]
    assert texts == [b'x, "y"\nz', b"\xff", None]


def test_parquet_rows_come_without_bytes(tmp_path: Path) -> None:
    path = tmp_path / "metadata.parquet"
    pq.write_table(pa.table({"file_name": ["a.jpg"], "text": ["t"], "raw": [b"x" * 99]}), path)
    (row,) = read(path).of(b"a.jpg")
    assert json.loads(row.meta) == {"file_name": "a.jpg", "text": "t"}
    path.write_bytes(b"no table")
    with pytest.raises(InputError, match="not_parquet"):
        read(path)


def test_of_two_tables_the_nearer_one_decides(tmp_path: Path) -> None:
    outer = lines(tmp_path / "metadata.jsonl", {"file_name": "s/a.jpg", "text": "outer"})
    rows = read(outer)
    inner = lines(tmp_path / "inner.jsonl", {"file_name": "a.jpg", "text": "inner"})
    rows.add_table(filesystem(str(inner))[0], str(inner), "s")
    assert [row.text for row in rows.of(b"s/a.jpg")] == [b"inner"]


def test_columns_of_other_names_are_found_or_told(tmp_path: Path) -> None:
    path = lines(tmp_path / "metadata.jsonl", {"filename": "a.jpg", "description": "d", "x": "y"})
    assert read(path).of(b"a.jpg")[0].text == b"d"
    assert read(path, TextSource.parse("json:x")).of(b"a.jpg")[0].text == b"y"
    assert read(path, NO_TEXTS).of(b"a.jpg")[0].text is None
    with pytest.raises(
        InputError, match=r"missing_column: expected a column of texts.*filename, d"
    ):
        read(path, TextSource.parse("json:gone"))
    with pytest.raises(InputError, match="missing_column: expected file_name, found text"):
        read(lines(tmp_path / "metadata.jsonl", {"text": "t"}))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "_MOST_LINE_BYTES", 100)
    with pytest.raises(InputError, match="line 2 is longer than 100 bytes"):
        read(
            lines(
                tmp_path / "metadata.jsonl",
                {"file_name": "a.jpg", "text": "t"},
                {"file_name": "b.jpg", "text": "t" * 200},
            )
        )
