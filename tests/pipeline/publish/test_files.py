"""The files of an export: each of about a size, handed on once it is whole."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from pipeline.publish.files import ParquetFiles, PictureTables, TarFiles
from pipeline.publish.kept import KeptSample
from shards.schema import JudgedTextRow, SampleRow
from tests.support.tars import read_members

FACTS: SampleRow = {"url": "http://x/1", "sha256": "ab", "width": 3, "height": 2, "meta": "hidden"}
TEXTS: list[JudgedTextRow] = [
    {"text": "a ring", "origin": "web", "itm": 0.5, "itc": 0.25, "keep": True, "reason": "kept"}
]


def sample(number: int, size_bytes: int = 1000) -> KeptSample:
    facts: SampleRow = {**FACTS, "key": f"k {number}"}
    return KeptSample("00000", facts, TEXTS, bytes([number]) * size_bytes, "png")


@pytest.mark.parametrize("files", [TarFiles, PictureTables])
def test_files_are_closed_at_their_size_and_handed_on_once(tmp_path: Path, files: Any) -> None:
    added: list[str] = []
    writer = files(tmp_path, 2_500, lambda path: added.append(path.name))
    for number in range(7):
        writer.add(sample(number), "a ring")
    writer.close()
    assert added == sorted(path.name for path in tmp_path.iterdir())
    assert len(added) >= 3


def test_a_tar_has_the_picture_its_record_and_its_text(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files = TarFiles(tmp_path / name, 10_000, lambda _: None)
        files.add(sample(1), "a ring")
        files.close()
    one, two = (tmp_path / name / "train-00000.tar" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    contents = {name.rpartition(".")[2]: data for name, data in read_members(one)}
    assert (contents["png"], contents["txt"]) == (sample(1).image, b"a ring")
    record = json.loads(contents["json"])
    assert (record["key"], record["shard"], record["sha256"]) == ("k 1", "00000", "ab")
    assert record["texts"] == [{"text": "a ring", "origin": "web", "itm": 0.5, "itc": 0.25}]
    assert "meta" not in record


def test_datasets_reads_tars_whose_later_samples_alone_have_a_url(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    files = TarFiles(tmp_path / "data", 100_000, lambda _: None)
    picture = io.BytesIO()
    Image.new("RGB", (3, 2)).save(picture, "PNG")
    for number in range(8):
        facts: SampleRow = {
            **FACTS,
            "key": str(number),
            "url": "http://x/7" if number > 6 else None,
        }
        files.add(KeptSample("00000", facts, TEXTS, picture.getvalue(), "png"), "a ring")
    files.close()
    rows = load_dataset(str(tmp_path / "data"), split="train", cache_dir=str(tmp_path / "c"))
    assert [row["json"]["url"] for row in rows] == [*[""] * 7, "http://x/7"]


def test_tables_hold_the_pictures_in_order(tmp_path: Path) -> None:
    files = PictureTables(tmp_path, 10_000, lambda _: None)
    for number in range(4):
        files.add(sample(number), f"text {number}")
    files.close()
    rows = pq.read_table(tmp_path).to_pylist()
    assert [row["text"] for row in rows] == [f"text {n}" for n in range(4)]
    assert [row["image"]["bytes"] for row in rows] == [sample(n).image for n in range(4)]
    assert json.loads(pq.read_schema(next(tmp_path.iterdir())).metadata[b"huggingface"])


def test_no_rows_make_no_file(tmp_path: Path) -> None:
    added: list[Path] = []
    files = ParquetFiles(tmp_path, pa.schema([("n", pa.int8())]), 10, added.append)
    files.write([])
    files.close()
    assert not added
    assert not list(tmp_path.iterdir())
