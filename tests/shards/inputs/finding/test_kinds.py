"""Which kind of input a folder holds; of several none is dropped in silence."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.inputs.listing import list_inputs
from shards.inputs.shard import InputError, InputOptions, Kind
from tests.shards.inputs.finding.test_find import make


def kinds(folder: Path, wanted: Kind | None = None) -> set[str]:
    return {shard.kind for shard in list_inputs([str(folder)], None, InputOptions(wanted))}


def pictures(path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "text": ["t"]}), path)


def test_what_is_of_one_kind_is_that(tmp_path: Path) -> None:
    assert kinds(make(tmp_path / "tars", "a.tar", "a.parquet", "a_stats.json")) == {"tar"}
    assert kinds(make(tmp_path / "files", "0/a.jpg", "0/a.txt", "0.parquet")) == {"folder"}
    assert kinds(make(tmp_path / "foreign", "a.bmp")) == {"folder"}
    make(tmp_path / "tables", "README.md")
    pictures(tmp_path / "tables" / "a.parquet")
    assert kinds(tmp_path / "tables") == {"parquet"}


def test_of_several_kinds_the_user_says_which(tmp_path: Path) -> None:
    make(tmp_path, "a.tar", "b.jpg", "c.png")
    pictures(tmp_path / "d.parquet")
    words = (
        r"1 tar and 2 loose pictures and 1 Parquet file with.*set input\.kind to tar or folder or"
    )
    with pytest.raises(InputError, match=words):
        kinds(tmp_path)
    for kind in ("tar", "folder", "parquet"):
        assert kinds(tmp_path, kind) == {kind}


def test_a_kind_that_is_not_there_is_told(tmp_path: Path) -> None:
    make(tmp_path, "b.jpg")
    with pytest.raises(InputError, match=r"input\.kind is tar; found 1 loose picture"):
        kinds(tmp_path, "tar")


def test_a_table_without_pictures_beside_tars_is_no_input(tmp_path: Path) -> None:
    make(tmp_path, "a.tar")
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "list.parquet")
    assert kinds(tmp_path) == {"tar"}
