"""What was added is what is read back, by our readers and by others; what failed is not there."""

import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
import webdataset

from shards.naming import encode_name
from shards.run.commit import FileRecord
from shards.schema import DecisionRow, SampleRow, SchemaError, TextRow, read_table
from shards.store import Store
from shards.writer import CleanFile, CleanSample, ShardWriter, WriteCheckError

OK: SampleRow = {"status": "ok", "width": 3, "notes": ["exif_transposed"], "phash": b"p" * 32}
WEB: TextRow = {"text_no": 0, "origin": "web", "text": "a cat", "itm": 0.5}
KEPT: DecisionRow = {"text_no": 0, "keep": True, "reason": "kept"}
BELOW: DecisionRow = {"text_no": 0, "keep": False, "reason": "itm_below_threshold"}


def clean(key: str) -> CleanSample:
    return CleanSample(key, "png", b"image of " + key.encode(), {"key": key}, "a cat")


def fill(writer: ShardWriter, count: int) -> None:
    for index in range(count):
        sample: SampleRow = {"index": index, "key": f"k{index}", **OK}
        writer.add(
            sample, [WEB], [KEPT if index % 2 else BELOW], clean(f"k{index}") if index % 2 else None
        )


def write(url: str, count: int = 10, attempt: str = "a1") -> list[FileRecord]:
    with ShardWriter(Store(url), "s", attempt) as writer:
        fill(writer, count)
        return writer.finish()


def test_files_are_as_recorded(any_url: str) -> None:
    records = write(any_url)
    store = Store(any_url)
    assert [record.table for record in records] == ["samples", "texts", "decisions", "clean"]
    assert store.list() == sorted(record.name for record in records)
    assert {record.name for record in records} == {
        "data/samples/s-a1.parquet",
        "data/texts/s-a1.parquet",
        "data/decisions/s-a1.parquet",
        "data/clean/s-a1.tar",
    }
    for record in records:
        data = store.read(record.name)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (record.size_bytes, record.sha256)
        assert record.rows == (5 if record.table == "clean" else 10)
        if record.table != "clean":
            assert len(read_table(io.BytesIO(data), record.table, record.name)) == record.rows


def test_other_tools_read_them(tmp_path: Path) -> None:
    write(str(tmp_path))
    samples = list(webdataset.WebDataset(str(tmp_path / "data/clean/s-a1.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"s/k{n}" for n in (1, 3, 5, 7, 9)]
    assert samples[0]["png"] == b"image of k1"
    assert json.loads(samples[0]["json"]) == {"key": "k1"}
    assert samples[0]["txt"] == b"a cat"
    kept = duckdb.execute(
        f"SELECT count(*), sum(itm) FROM '{tmp_path}/data/texts/s-a1.parquet' JOIN "
        f"'{tmp_path}/data/decisions/s-a1.parquet' USING (shard, index, text_no) WHERE keep"
    ).fetchall()
    assert kept == [(5, 2.5)]


def test_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    one = write(str(tmp_path / "one"), attempt="a1")
    two = write(str(tmp_path / "two"), attempt="b2")
    assert [(r.table, r.sha256) for r in one] == [(r.table, r.sha256) for r in two]


def test_rows_leave_memory_in_groups(tmp_path: Path) -> None:
    write(str(tmp_path), count=3500)
    for table in ("samples", "texts", "decisions"):
        file = pq.ParquetFile(tmp_path / f"data/{table}/s-a1.parquet")
        assert file.num_row_groups == 4
        assert file.metadata.num_rows == 3500
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_no_tar_where_nothing_is_kept(any_url: str) -> None:
    assert [record.table for record in write(any_url, count=1)][-1] == "decisions"
    assert [record.rows for record in write(any_url, count=0, attempt="b2")] == [0, 0, 0]


@pytest.mark.parametrize("key", ["../../up", "/tmp/x", "a/b.c", "k" * 300, "läger_猫", "caf%E9"])
def test_keys_become_plain_names(tmp_path: Path, key: str) -> None:
    with ShardWriter(Store(str(tmp_path)), "sh", "a1") as writer:
        writer.add({"index": 0, "key": key, **OK}, [WEB], [KEPT], clean(key))
        name = writer.finish()[-1].name
    with tarfile.open(tmp_path / name) as tar:
        assert tar.getnames() == [f"sh/{encode_name(key)}.{ext}" for ext in ("png", "json", "txt")]
        assert all(member.mtime == member.uid == 0 for member in tar)


def test_counts_follow_the_rows(tmp_path: Path) -> None:
    writer = ShardWriter(Store(str(tmp_path)), "s", "a1")
    fill(writer, 5)
    late: TextRow = {"text_no": 1, "origin": "synthetic", "text": "", "itm": None}
    bad: DecisionRow = {"text_no": 1, "keep": False, "reason": "score_not_finite"}
    without: SampleRow = {"index": 5, "key": "k5", **OK, "text_reason": "text_empty"}
    writer.add(without, [late], [bad])
    writer.add({"index": 6, "status": "rejected", "reason": "image_empty"}, [], [])
    counts = writer.counts
    writer.abort()
    assert counts.model_dump() == {
        "samples_in": 7,
        "kept": 2,
        "filtered": 4,
        "rejected": 1,
        "rejected_by_reason": {"image_empty": 1},
        "text_reasons": {"text_empty": 1},
        "texts": {"web": {"in": 5, "kept": 2}, "synthetic": {"in": 1, "kept": 0}},
        "not_finite": 1,
    }


def test_rows_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with ShardWriter(Store(str(tmp_path)), "s", "a1") as writer:
        with pytest.raises(ValueError, match="rejected sample"):
            writer.add({"index": 0, "status": "rejected", "reason": "x"}, [WEB], [KEPT])
        with pytest.raises(ValueError, match="rejected sample"):
            writer.add({"index": 0, "status": "rejected"}, [], [])
        with pytest.raises(ValueError, match="zip"):
            writer.add({"index": 0, **OK}, [WEB], [])
    with ShardWriter(Store(str(tmp_path)), "s", "a1") as writer:
        coloured: Any = {"index": 0, **OK, "colour": "red"}
        writer.add(coloured, [], [])
        with pytest.raises(SchemaError, match="colour"):
            writer.finish()
    assert Store(str(tmp_path)).list() == []


def test_abort_removes_its_own_files_alone(any_url: str) -> None:
    write(any_url, attempt="a1")
    before = Store(any_url).list()
    with ShardWriter(Store(any_url), "s", "b2") as writer:
        fill(writer, 2000)
    assert Store(any_url).list() == before


def test_a_picture_hashed_already_is_not_hashed_again(tmp_path: Path) -> None:
    """Whoever gives the hash is believed: only `verify` reads the picture for it again."""
    image, record = b"an image", {"key": "k"}
    given = hashlib.sha256(image).hexdigest()
    hashes = []
    for number, sha256 in enumerate((None, given, "other")):
        file = CleanFile(tmp_path / str(number), "s")
        file.add(CleanSample("k", "png", image, record, "a cat", sha256))
        file.close()
        hashes.append(file.content_sha256)
    assert hashes[0] == hashes[1] != hashes[2]


class Faulty(Store):
    """A store that damages what it is given last."""

    def publish(self, staged: Path, name: str) -> None:
        if "clean" in name:
            data = bytearray(staged.read_bytes())
            data[700] ^= 1
            staged.write_bytes(data)
        super().publish(staged, name)


def test_what_does_not_read_back_is_not_finished(any_url: str) -> None:
    with ShardWriter(Faulty(any_url), "s", "a1") as writer:
        fill(writer, 10)
        with pytest.raises(WriteCheckError, match="does not read back"):
            writer.finish()
    assert Store(any_url).list() == []


def test_nothing_stays_beside_the_data(tmp_path: Path) -> None:
    write(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_files_for_far_stores_are_staged_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store: Any = Store("memory://scratch-test")
    with ShardWriter(store, "s", "a1") as writer:
        fill(writer, 3)
        assert len(list(tmp_path.iterdir())) == 1
        writer.finish()
        assert list(tmp_path.iterdir()) == []
        handles = list(Path("/proc/self/fd").iterdir())
        opened = [str(handle.readlink()) for handle in handles if handle.is_symlink()]
        assert [path for path in opened if path.startswith(str(tmp_path))] == []
