"""Every sample is a row: healthy tars as other readers see them, broken ones with nothing lost."""

import hashlib
import io
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.inputs.reader import (
    RawSample,
    ShardReader,
    ShardState,
    State,
    open_shard,
)
from shards.inputs.tars import grouping
from tests.support.remote_file import forwards

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def read(data: bytes) -> tuple[list[RawSample], ShardState]:
    reader = ShardReader(io.BytesIO(data))
    rows = list(reader)
    assert reader.bytes_read == len(data)
    assert reader.sha256 == hashlib.sha256(data).hexdigest()
    assert [row.index for row in rows] == list(range(len(rows)))
    ends = [row.end_offset for row in rows]
    assert ends == sorted(ends)
    assert all(row.image is row.text is row.meta is None for row in rows if row.reason)
    return rows, reader.state


def read_stream(data: bytes) -> tuple[list[RawSample], ShardState]:
    reader = ShardReader(forwards(data))
    rows = list(reader)
    assert reader.bytes_read == len(data)
    assert reader.sha256 == hashlib.sha256(data).hexdigest()
    return rows, reader.state


def outcomes(data: bytes) -> list[tuple[str, str | None]]:
    return [(row.key, row.reason) for row in read(data)[0]]


# Healthy tars, with other readers as judges


def test_real_shards_hold_what_their_table_says(data_dir: Path) -> None:
    table = pq.read_table(data_dir / "pairs" / "pairs.parquet").to_pylist()
    expected = {(row["shard"], row["key"]): (row["sha256"], row["caption"]) for row in table}
    found = {}
    for path in sorted((data_dir / "pairs" / "shards").glob("*.tar")):
        with open_shard(str(path)) as file:
            reader = ShardReader(file)
            for row in reader:
                assert row.reason is None
                assert row.image is not None
                assert row.text is not None
                digest = hashlib.sha256(row.image).hexdigest()
                found[path.name, row.key] = digest, row.text.decode()
        assert reader.state == ShardState(state=State.COMPLETE)
        assert reader.bytes_read == path.stat().st_size
    assert found == expected


def test_webdataset_sees_the_same(data_dir: Path) -> None:
    for path in sorted((data_dir / "pairs" / "shards").glob("*.tar")):
        theirs = list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
        with open_shard(str(path)) as file:
            ours = list(ShardReader(file))
        assert len(ours) == len(theirs) > 0
        for row, sample in zip(ours, theirs, strict=True):
            assert row.key == sample["__key__"]
            assert row.image == sample[row.image_ext]
            assert (row.text, row.meta) == (sample["txt"], sample.get("json"))


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_and_name(tar_bytes: Any, format: int) -> None:
    keys = ["plain", "läger_猫", "a/b/c", "with.dots.v2", 'it\'s "x" 1']
    long = "d" * 90 + "/" + "n" * 80  # USTAR splits it at the slash
    keys.append(long)
    if format != tarfile.USTAR_FORMAT:
        keys += ["k" * 240, "猫" * 120, "e" * 3000]
    members = [(f"{key}.{ext}", key.encode()) for key in keys for ext in ("png", "txt")]
    data = tar_bytes(members, format)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [name for name, _ in members]
    rows, state = read(data)
    assert [(row.key, row.image, row.text) for row in rows] == [
        (key, key.encode(), key.encode()) for key in keys
    ]
    assert state == ShardState(state=State.COMPLETE)


def test_pax_size_and_global_headers() -> None:
    buffer = io.BytesIO()
    pax = {"comment": "x" * 700}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers=pax) as tar:
        for name, data in (("a.jpg", b"image"), ("a.txt", b"text")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.pax_headers = {"size": str(len(data)), "mtime": "1.5"}
            tar.addfile(info, io.BytesIO(data))
    rows, state = read(buffer.getvalue())
    assert [(row.image, row.text) for row in rows] == [(b"image", b"text")]
    assert state.state is State.COMPLETE


def test_names_that_are_not_utf8(tar_bytes: Any) -> None:
    data = tar_bytes([("caf\udce9.jpg", b"i"), ("caf\udce9.txt", b"t")])
    assert outcomes(data) == [("caf%E9", None)]
    # another key that looks the same in the tables would meet it in the output
    data = tar_bytes([("caf\udce9.jpg", b"i"), ("caf%E9.jpg", b"i")])
    assert outcomes(data) == [("caf%E9", None), ("caf%E9", "duplicate_key")]


# What makes a row


def test_other_members_are_left_alone(tar_bytes: Any) -> None:
    members = [("d.npy", b"x"), ("a.jpg", b"i"), ("a.cls", b"3"), ("a.txt", b"t"), ("b.pkl", b"x")]
    rows, _ = read(tar_bytes([*members, ("._a.jpg", b"x"), ("README", b"x")]))
    assert [(row.key, row.image, row.text) for row in rows] == [("a", b"i", b"t")]


def test_empty_and_missing_parts_differ(tar_bytes: Any) -> None:
    members = [("a.jpg", b""), ("a.txt", b""), ("b.png", b"i"), ("c.txt", b"t")]
    rows, _ = read(tar_bytes(members))
    assert [(row.image, row.text, row.meta) for row in rows] == [
        (b"", b"", None),
        (b"i", None, None),
        (None, b"t", None),
    ]


def test_a_second_image_is_not_used_but_told(tar_bytes: Any) -> None:
    rows, _ = read(tar_bytes([("a.jpg", b"1"), ("a.png", b"2"), ("a.txt", b"t")]))
    assert [(row.image, row.image_ext, row.text) for row in rows] == [(b"1", "jpg", b"t")]
    assert "png" in (rows[0].detail or "")


def test_sidecars_alone_are_rows_beside_pairs_only(tar_bytes: Any) -> None:
    sidecars = [("a.json", b"{}"), ("b.json", b"{}")]
    rows, state = read(tar_bytes(sidecars))
    assert (rows, state.state) == ([], State.EMPTY)
    assert [key for key, _ in outcomes(tar_bytes([*sidecars, ("c.jpg", b"i")]))] == ["a", "b", "c"]
    data = tar_bytes([*sidecars, ("a.jpg", b"i")])
    assert outcomes(data) == [("a", None), ("b", None)]
    # in a stream their key cannot come back
    rows, _ = read_stream(data)
    assert [(row.key, row.reason) for row in rows] == [
        ("a", None),
        ("b", None),
        ("a", "not_adjacent"),
    ]


def test_keys_that_come_back(tar_bytes: Any) -> None:
    first = [("a.jpg", b"1"), ("a.txt", b"1")]
    again = [("a.jpg", b"2"), ("a.txt", b"2")]
    rows, _ = read(tar_bytes([*first, *again, ("b.jpg", b"i")]))
    assert [(r.key, r.reason, r.image) for r in rows] == [
        ("a", None, b"1"),
        ("a", "duplicate_key", None),
        ("b", None, b"i"),
    ]
    other = [("b.jpg", b"i"), ("b.txt", b"t")]
    assert outcomes(tar_bytes([*first, *other, ("a.JPG", b"2")]))[2] == ("a", "duplicate_key")
    late = tar_bytes([*first, *other, ("a.json", b"{}")])
    assert [row.reason for row in read_stream(late)[0]] == [None, None, "not_adjacent"]
    apart = [("a.jpg", b"1"), *other, ("a.txt", b"t"), ("a.jpg", b"2")]
    assert outcomes(tar_bytes(apart))[2] == ("a", "duplicate_key")


def test_unsafe_comes_before_duplicate(tar_bytes: Any) -> None:
    data = tar_bytes([("../a.jpg", b"1"), ("../a.jpg", b"2"), ("b.jpg", b"i")])
    assert outcomes(data) == [
        ("../a", "unsafe_member"),
        ("../a", "unsafe_member"),
        ("b", None),
    ]


def test_large_members_are_not_read(tar_bytes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "_LARGEST_MEMBER_BYTES", 1000)
    data = tar_bytes([("a.jpg", b"i" * 1001), ("a.txt", b"t"), ("b.jpg", b"i" * 1000)])
    rows, state = read(data)
    assert [(row.key, row.reason) for row in rows] == [("a", "unsafe_member"), ("b", None)]
    assert rows[0].detail == "member of 1001 bytes, limit 1000"
    assert state.state is State.COMPLETE


def test_long_names_are_bounded(tar_bytes: Any) -> None:
    data = tar_bytes([("n" * 5000 + ".jpg", b"i"), ("b.jpg", b"i")], tarfile.PAX_FORMAT)
    rows, _ = read(data)
    assert [(len(row.key), row.reason) for row in rows] == [(4096, "unsafe_member"), (1, None)]


def test_sparse_members_are_unsafe() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("GNUSparseFile.0/a.jpg")
        info.size = 4
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "a.jpg"}
        tar.addfile(info, io.BytesIO(b"data"))
    assert outcomes(buffer.getvalue()) == [("a", "unsafe_member")]


# Damage


def whole_until(data: bytes) -> list[int]:
    """Give where each member ends, padding included, as tarfile sees it."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [member.offset_data + -(-member.size // 512) * 512 for member in tar]


def check_cut(data: bytes, cut: int) -> None:
    """Cut a tar of samples of three members each, and compare with what tarfile says is whole."""
    rows, state = read(data[:cut])
    ends = whole_until(data)
    whole = sum(end <= cut for end in ends)
    original = read(data)[0]
    if cut == 0:
        assert (rows, state.state) == ([], State.EMPTY)
    elif cut < 262:  # too little to tell that it was to be a tar
        assert (rows, state.state) == ([], State.NOT_A_TAR)
    elif whole == len(ends) or (cut in ends and whole % 3 == 0):
        marked = cut > -(-ends[-1] // 512) * 512  # past the last member's padding
        assert state.state is (State.COMPLETE if marked else State.TRUNCATED)
        assert [r.image for r in rows] == [r.image for r in original[: whole // 3]]
    elif cut == ends[1]:  # nothing shows that the first sample should have a sidecar
        assert state.state is State.TRUNCATED
        assert [(r.image, r.text) for r in rows] == [(original[0].image, original[0].text)]
    elif ends[1] < cut <= data.index(b"\0", ends[1]):  # nor does a header whose name is cut
        assert (state.state, state.offset) == (State.TRUNCATED, cut)
        expected = [(original[0].key, None), ("", "shard_truncated")]
        assert [(row.key, row.reason) for row in rows] == expected
    else:
        assert (state.state, state.offset) == (State.TRUNCATED, cut)
        assert [row.reason for row in rows] == [None] * (whole // 3) + ["shard_truncated"]
        for row, before in zip(rows[:-1], original, strict=False):
            assert (row.key, row.image, row.text, row.meta) == (
                before.key,
                before.image,
                before.text,
                before.meta,
            )
        assert rows[-1].key in ("", original[whole // 3].key)


@pytest.mark.parametrize("format", FORMATS)
def test_cut_at_every_block(tar_bytes: Any, pairs: Any, format: int) -> None:
    data = tar_bytes(pairs(6), format)
    for cut in range(0, len(data) + 1, 512):
        check_cut(data, cut)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_cut_anywhere(data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(5):
            for ext in ("jpg", "txt", "json"):
                payload = bytes([number + 1]) * data.draw(st.integers(0, 1100))
                info = tarfile.TarInfo(f"k{number}.{ext}")
                info.size = len(payload)
                tar.addfile(info, io.BytesIO(payload))
    whole = buffer.getvalue()
    check_cut(whole, data.draw(st.integers(0, len(whole))))


@pytest.mark.parametrize("extra", [1, 7, 8, 100, 300])
def test_a_cut_within_the_third_header_of_the_first_sample(extra: int, tar_bytes: Any) -> None:
    names = [f"{key}.{ext}" for key in ("k0", "k1") for ext in ("jpg", "txt", "json")]
    check_cut(tar_bytes([(name, b"") for name in names]), 1024 + extra)


def test_a_cut_between_members_of_one_sample_is_noticed(tar_bytes: Any, pairs: Any) -> None:
    data = tar_bytes(pairs(3))
    ends = whole_until(data)
    for whole in (4, 5, 7, 8):
        rows, state = read(data[: ends[whole - 1]])
        assert state.state is State.TRUNCATED
        assert [row.reason for row in rows] == [None] * (whole // 3) + ["shard_truncated"]


def test_a_broken_header_ends_the_shard_loudly(tar_bytes: Any, pairs: Any) -> None:
    data = tar_bytes(pairs(6))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        offsets = [member.offset for member in tar]
    for place, offset in enumerate(offsets):
        broken = bytearray(data)
        broken[offset + 130] ^= 1
        rows, state = read(bytes(broken))
        assert (state.state, state.offset) == (State.CORRUPT, offset)
        assert [row.reason for row in rows] == [None] * (place // 3) + ["shard_corrupt"]
        assert rows[-1].key == f"k{place // 3:03}"


def test_joined_tars_are_noticed(tar_bytes: Any, pairs: Any) -> None:
    one, two = tar_bytes(pairs(2)), tar_bytes([("z.jpg", b"i")])
    rows, state = read(one + two)
    assert [row.reason for row in rows] == [None, None]
    assert (state.state, state.offset) == (State.CORRUPT, len(one))
    assert read(one + bytes(70_000))[1] == ShardState(state=State.COMPLETE)


def test_a_claimed_size_takes_no_memory(tar_bytes: Any, tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = 200 << 20
    whole = tar_bytes([("b.jpg", b"i"), ("b.txt", b"t")])[: 4 * 512]
    (tmp_path / "lie.tar").write_bytes(whole + info.tobuf() + b"x" * 5000)
    with open_shard(str(tmp_path / "lie.tar")) as file:
        tracemalloc.start()
        reader = ShardReader(file)
        rows = list(reader)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20
    assert [(row.key, row.reason) for row in rows] == [("b", None), ("a", "shard_truncated")]
    assert reader.state.state is State.TRUNCATED


@pytest.mark.parametrize(
    ("record", "detail"),
    [(b"99 path=x\n", "bad record"), (b"x path=y\n", "bad record"), (b"9 size=x\n", "size")],
)
def test_broken_pax_records(record: bytes, detail: str) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    rows, state = read(info.tobuf() + record.ljust(512, b"\0") + bytes(1024))
    assert state.state is State.CORRUPT
    assert detail in (state.detail or "")
    assert [row.reason for row in rows] == ["shard_corrupt"]


def test_compressed_shards_say_so() -> None:
    for magic, name in ((b"BZh9", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")):
        rows, state = read(magic + b"x" * 2000)
        assert (rows, state.state, state.detail) == (
            [],
            State.COMPRESSED,
            f"compressed with {name}",
        )


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_end_in_a_state(data: bytes) -> None:
    rows, state = read(data)
    assert rows == [] or state.state in (State.CORRUPT, State.TRUNCATED, State.COMPLETE)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=600))
def test_overwritten_bytes_never_raise(at: int, patch: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(3):
            for ext in ("jpg", "txt"):
                info = tarfile.TarInfo(f"{number}é" + "n" * 90 * number + "." + ext)
                info.size = 700
                tar.addfile(info, io.BytesIO(b"d" * 700))
    data = bytearray(buffer.getvalue())
    at %= len(data)
    data[at : at + len(patch)] = patch
    rows, _ = read(bytes(data))
    assert sum(row.reason in ("shard_corrupt", "shard_truncated") for row in rows) <= 1


def test_state_is_not_known_before_the_end(tar_bytes: Any) -> None:
    reader = ShardReader(io.BytesIO(tar_bytes([("a.jpg", b"i")])))
    with pytest.raises(RuntimeError):
        _ = reader.state


def test_a_failing_disk_is_not_bad_data(tar_bytes: Any) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 1000:
                raise OSError("the disk is gone")
            return super().read(size)

    with pytest.raises(OSError, match="the disk is gone"):
        list(ShardReader(Failing(tar_bytes([("a.jpg", b"i" * 9000)]))))
