"""The two tables of a download come back as they were written, and damage is told."""

from pathlib import Path

import pytest

from shards.download.tables import LISTED, ROWS, read_rows, write_rows
from shards.errors import DamagedFile
from shards.schema import SchemaError


def row(number: int) -> dict[str, object]:
    return dict.fromkeys(LISTED.names) | {"row": number, "url": f"http://a.org/{number}"}


def test_rows_come_back_in_their_order(tmp_path: Path) -> None:
    rows = [row(number) for number in range(25_000)]  # more than a row group
    write_rows(tmp_path / "t", rows, LISTED)
    with (tmp_path / "t").open("rb") as file:
        assert read_rows(file, LISTED, "t") == rows
    with (tmp_path / "t").open("rb") as file:
        assert read_rows(file, LISTED, "t", ["row"])[7] == {"row": 7}


def test_another_table_and_a_torn_one_are_told(tmp_path: Path) -> None:
    write_rows(tmp_path / "t", [row(1)], LISTED)
    with (tmp_path / "t").open("rb") as file, pytest.raises(SchemaError, match="'status'"):
        read_rows(file, ROWS, "t")
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:-20])
    with (tmp_path / "t").open("rb") as file, pytest.raises(DamagedFile):
        read_rows(file, LISTED, "t")
