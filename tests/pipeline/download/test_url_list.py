"""Lists are read whatever their format; what a file's name does not say is noticed."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.download.columns import ListError
from pipeline.download.url_list import ListFile, as_json, as_text, find_lists

A, B = "http://a.org/1.jpg", "http://a.org/2.jpg"
ROWS = [{"url": A, "caption": 'a "dog", in blue'}, {"url": B, "caption": "one\nanother"}]
CSV = f'url,caption\n{A},"a ""dog"", in blue"\n{B},"one\nanother"\n'
LINES = "\n".join(map(json.dumps, ROWS)) + "\n\n"


def only(path: Path) -> ListFile:
    (found,) = find_lists(str(path))
    return found


def test_one_list_in_every_format(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    (tmp_path / "c.jsonl").write_text(LINES)
    (tmp_path / "d.json").write_text(json.dumps(ROWS))
    (tmp_path / "e.tsv").write_text(CSV.replace(f"{A},", f"{A}\t").replace(f"{B},", f"{B}\t")
                                    .replace("url,", "url\t"))  # fmt: skip
    files = find_lists(str(tmp_path))
    assert [file.names() for file in files] == [["url", "caption"]] * 6
    assert [list(file.rows()) for file in files] == [ROWS] * 6
    assert [file.notes for file in files] == [()] * 6


def test_of_an_export_what_it_kept_is_the_list(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "export.json").write_text('{\n "form": "index"\n}\n')
    for name in ("train-00000", "train-00001", "dropped-00000"):
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "data" / f"{name}.parquet")
    names = [Path(file.path).stem for file in find_lists(str(tmp_path))]
    assert names == ["train-00000", "train-00001"]


@pytest.mark.parametrize("separator", [";", "|", "\t"])
def test_another_separator_is_noticed(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"url{separator}text\n{A}{separator}one, two\n{B}{separator}three, four\n")
    assert [row["text"] for row in only(path).rows()] == ["one, two", "three, four"]
    assert "divided by" in only(path).notes[0]


def test_a_missing_header_is_noticed_and_no_row_is_lost(tmp_path: Path) -> None:
    (tmp_path / "list.tsv").write_text(f'{A}\ta "dog" runs\n{B}\t"two\n')
    found = only(tmp_path / "list.tsv")
    assert [list(row.values()) for row in found.rows()] == [[A, 'a "dog" runs'], [B, '"two']]
    assert "no header" in found.notes[0]


@pytest.mark.parametrize(
    ("encoding", "notes"), [("utf-8-sig", 0), ("utf-16", 1), ("cp1252", 1), ("utf-8", 0)]
)
def test_other_encodings_are_noticed(tmp_path: Path, encoding: str, notes: int) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(f"url,text\n{A},chaussée\n".encode(encoding))
    assert list(only(path).rows()) == [{"url": A, "text": "chaussée"}]
    assert len(only(path).notes) == notes


def test_plain_lines_are_addresses(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{A},x\n\n{B}\n")
    assert [list(row.values()) for row in only(tmp_path / "list.txt").rows()] == [[f"{A},x"], [B]]


def test_short_and_empty_cells_are_none(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"url,text,more\n{A},,x\n{B}\n")
    assert [row["text"] for row in only(tmp_path / "list.csv").rows()] == [None, None]


def test_what_is_no_list_is_told(tmp_path: Path) -> None:
    with pytest.raises(ListError, match="no list of addresses"):
        find_lists(str(tmp_path / "absent.csv"))
    (tmp_path / "bad.jsonl").write_text('{"url": 1}\n[not json\n')
    with pytest.raises(ListError, match="line 2"):
        list(only(tmp_path / "bad.jsonl").rows())


def test_values_of_tables_become_texts_and_strict_json() -> None:
    assert as_text(["first", "second"]) == as_text([{"text": "first"}]) == "first"
    assert as_text(float("nan")) is None
    assert as_text("half \ud800") == "half ?"
    assert json.loads(as_json({"w": float("nan"), "b": b"\x00\xff", "none": None}) or "") == {
        "w": None,
        "b": "00ff",
    }
