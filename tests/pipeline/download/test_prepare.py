"""A list is divided once; every row is in one part, and rows of one address are together."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.download.columns import ListError
from pipeline.download.prepare import ListRequest, prepare_download
from shards.download.record import Download, NotADownload
from shards.run.run import RunMismatch
from shards.store import Store

Write = Callable[[str, str], str]


def rows_of(download: Download) -> dict[str, list[dict[str, object]]]:
    return {part.shard: download.listed(part.shard) for part in download.parts}


@pytest.fixture
def many(write_list: Write) -> str:
    """50 rows of 40 addresses, 10 of them twice, and three rows without one."""
    urls = [f"http://a.org/{number % 40}.jpg" for number in range(50)] + ["", "ftp://x", "x"]
    lines = [json.dumps({"url": url, "n": number}) for number, url in enumerate(urls)]
    return write_list("many.jsonl", "\n".join(lines))


def test_every_row_is_in_one_part_and_equal_addresses_are_together(
    many: str, tmp_path: Path
) -> None:
    parts = rows_of(prepare_download(Store(str(tmp_path / "o")), ListRequest(many, part_rows=10)))
    rows = [row for part in parts.values() for row in part]
    assert sorted(row["row"] for row in rows) == list(range(53))  # type: ignore[type-var]
    assert len(parts) == 6
    where = [{(row["address"], name) for row in part} for name, part in parts.items()]
    addresses = [address for pairs in where for address, _ in pairs if address is not None]
    assert len(addresses) == len(set(addresses)) == 40
    assert sorted(row["reason"] for row in rows if row["address"] is None) == [  # type: ignore[type-var]
        *("bad_url", "bad_url", "null_value")
    ]
    assert all(json.loads(str(row["columns"])) == {"n": row["row"]} for row in rows)


def test_the_same_list_is_taken_up_and_another_is_refused(many: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "o"))
    first = prepare_download(store, ListRequest(many, part_rows=10))
    Path(many).touch()  # read again, and the same
    assert prepare_download(store, ListRequest(many)).parts == first.parts
    with pytest.raises(RunMismatch, match="part_rows: 10 -> 20"):
        prepare_download(store, ListRequest(many, part_rows=20))
    Path(many).write_text(Path(many).read_text() + '\n{"url": "http://a.org/new.jpg"}')
    with pytest.raises(RunMismatch, match="list_sha256"):
        prepare_download(store, ListRequest(many))


def test_a_preparation_that_was_killed_is_done_again(many: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "o"))
    (tmp_path / "o" / "record" / "list").mkdir(parents=True)
    (tmp_path / "o" / "record" / "list" / "00000.parquet").write_bytes(b"torn")
    assert len(rows_of(prepare_download(store, ListRequest(many)))["00000"]) == 53


def test_a_folder_with_something_else_is_refused(many: str, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "cat.jpg").touch()
    with pytest.raises(NotADownload, match=r"cat\.jpg"):
        prepare_download(Store(str(tmp_path / "o")), ListRequest(many))


def test_files_of_one_list_must_have_the_same_columns(write_list: Write, tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    write_list("l/a.csv", "url\nhttp://a.org/1\n")
    write_list("l/b.csv", "link\nhttp://a.org/2\n")
    with pytest.raises(ListError, match=r"b\.csv: missing_column: 'url'"):
        prepare_download(Store(str(tmp_path / "o")), ListRequest(str(tmp_path / "l")))
