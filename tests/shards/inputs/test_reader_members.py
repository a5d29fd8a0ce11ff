"""Samples are the same whatever the order of their members, and whatever stands beside them."""

import gzip
import hashlib
import io
import json
import random
import tarfile
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.inputs.reader import RawSample, ShardReader, ShardState, State, open_shard
from shards.inputs.text import TXT, TextSource
from tests.support.remote_file import forwards, remote

Members = list[tuple[str, bytes]]
PARTS = (["jpg"], ["txt"], ["jpg", "txt"], ["jpg", "json"], ["jpg", "txt", "json"])
BESIDE = ("mask.png", "info.json", "blip.txt", "npy", "z.webp", "cls", "bmp", "small.tiff")


def tar(members: Members, format: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as opened:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read(file: BinaryIO, data: bytes, text: TextSource = TXT) -> tuple[list[RawSample], ShardState]:
    reader = ShardReader(file, text)
    rows = list(reader)
    assert (reader.bytes_read, reader.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert [row.index for row in rows] == list(range(len(rows)))
    ends = [row.end_offset for row in rows]
    assert ends == sorted(ends)
    assert not ends or ends[-1] <= len(data)
    for row in rows:
        if row.image_offset is not None and row.image is not None:
            assert data[row.image_offset :][: len(row.image)] == row.image
    return rows, reader.state


def local(data: bytes, text: TextSource = TXT) -> tuple[list[RawSample], ShardState]:
    return read(io.BytesIO(data), data, text)


def facts(rows: list[RawSample]) -> dict[str, Any]:
    assert len({row.key for row in rows}) == len(rows)
    return {row.key: (row.image, row.image_ext, row.text, row.meta, row.reason) for row in rows}


def outcomes(rows: list[RawSample]) -> list[tuple[str, str | None]]:
    return [(row.key, row.reason) for row in rows]


def pairs(count: int, *extensions: str) -> Members:
    wanted = extensions or ("jpg", "txt")
    return [(f"k{n:03}.{e}", f"{e} of {n}".encode() * 30) for n in range(count) for e in wanted]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Members, Members]:
    """Members of samples, and fields beside them."""
    keys = draw(st.lists(st.sampled_from(["a", "b", "c", "d/a", "d.v2/x"]), unique=True))
    members, beside = [], []
    for key in keys:
        for ext in draw(st.sampled_from(PARTS)):
            ending = draw(st.sampled_from([ext, ext.upper()]))
            members.append((f"{key}.{ending}", f"{key}'s {ext}".encode()))
        for field in draw(st.sets(st.sampled_from(BESIDE))):
            if field != "bmp" or f"{key}.jpg" in dict(members):
                beside.append((f"{key}.{field}", b"beside"))
    return members, beside


@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_members_and_fields_beside_change_nothing(
    world: tuple[Members, Members], order: random.Random
) -> None:
    members, beside = world
    everything = [*members, *beside]
    order.shuffle(everything)
    expected = facts(local(tar(members))[0])
    assert facts(local(tar(everything))[0]) == expected
    shuffled = [f"./{name}" for name, _ in everything]
    named = list(zip(shuffled, [data for _, data in everything], strict=True))
    assert facts(local(tar(named))[0]) == expected
    data = tar(sorted(everything))
    assert facts(read(forwards(data), data)[0]) == expected
    packed = gzip.compress(data)
    assert facts(local(packed)[0]) == expected


@given(st.permutations(pairs(5)))
def test_in_a_remote_shard_too(members: Members) -> None:
    data = tar(members)
    rows, state = read(remote(data), data)
    assert facts(rows) == facts(local(tar(sorted(members)))[0])
    first = list(dict.fromkeys(name[:4] for name, _ in members))
    assert [row.key for row in rows] == first  # the order of the first members
    assert state == ShardState(state=State.COMPLETE)


def test_a_remote_shard_that_is_sorted_is_read_once() -> None:
    data = tar(pairs(60, "jpg", "txt", "json"))
    file: Any = remote(data)
    rows, _ = read(file, data)
    assert len(rows) == 60
    assert file.requests <= len(data) // 5000 + 2
    # one that lacks a text is looked at again, once
    data = tar([member for member in pairs(60) if member[0] not in ("k010.txt", "k030.txt")])
    file = remote(data)
    rows, _ = read(file, data)
    assert [row.key for row in rows if row.text is None] == ["k010", "k030"]
    assert file.requests <= 2 * (len(data) // 5000 + 2) + 2


def test_what_was_given_out_of_a_remote_shard_stays_true() -> None:
    late = [*pairs(3), ("k000.json", b"{}"), ("k001.jpg", b"other"), ("k003.txt", b"t")]
    data = tar([*late, ("k004.txt", b"t"), ("k003.jpg", b"i"), ("k004.jpg", b"i")])
    rows, _ = read(remote(data), data)
    assert outcomes(rows) == [
        ("k000", None),
        ("k001", None),
        ("k002", None),
        ("k000", "not_adjacent"),
        ("k001", "duplicate_key"),
        ("k003", None),
        ("k004", None),
    ]
    whole = facts([row for row in local(data)[0] if row.reason is None])
    assert whole["k000"][3] == b"{}"  # a local one is looked through before


def test_streams_say_what_cannot_be_joined() -> None:
    members = sorted(pairs(3), key=lambda member: member[0][-3:])
    data = tar(members)
    for file, whole in (
        (forwards(data), data),
        (io.BytesIO(packed := gzip.compress(data)), packed),
    ):
        rows, state = read(file, whole)
        expected: list[str | None] = [None] * 3 + ["not_adjacent"] * 3
        assert [row.reason for row in rows] == expected
        assert "unpack it, or sort its members by name" in (rows[-1].detail or "")
        assert state.state is State.COMPLETE


# Fields beside a key


def test_what_is_beside_is_counted() -> None:
    beside = [(f"k{n:03}.{field}", b"x") for n in range(4) for field in ("mask.png", "info.json")]
    for members in (sorted([*pairs(4), *beside]), [*pairs(4), *beside]):
        rows, state = local(tar(members))
        assert len(rows) == 4
        detail = "other fields beside a key, not used: 4 .info.json, 4 .mask.png"
        assert state == ShardState(state=State.COMPLETE, detail=detail)


@pytest.mark.parametrize("count", [1, 64, 65, 300])
def test_keys_with_dots_are_keys(count: int) -> None:
    members = [(f"1.{n:05}.{ext}", b"x") for n in range(count) for ext in ("jpg", "txt")]
    members.append(("2.jpg", b"x"))
    data = tar(members)
    for file in (io.BytesIO(data), forwards(data), remote(data)):
        rows, _ = read(file, data)
        assert [row.key for row in rows] == [*(f"1.{n:05}" for n in range(count)), "2"]
        assert all(row.text == b"x" for row in rows[:-1])


def test_many_keys_with_dots_are_not_lost_for_one_without() -> None:
    members = [(f"1.{n:05}.jpg", b"x") for n in range(100)]
    for last in ([("1.jpg", b"x")], [("0.jpg", b"x"), ("1.jpg", b"x")]):
        data = tar([*members, *last])
        rows = {tuple(outcomes(read(file, data)[0])) for file in (io.BytesIO(data), forwards(data))}
        assert len(rows) == 1
        assert len(rows.pop()) == 100 + len(last)


def test_large_fields_that_are_held_back_take_bounded_memory() -> None:
    members = [(f"1.{n}.jpg", bytes(8 << 20)) for n in range(10)]
    data = tar(members)
    tracemalloc.start()
    count = 0
    for row in ShardReader(forwards(data)):
        count += row.image is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 10
    assert peak < 60 << 20


def test_a_cut_hits_the_sample_that_it_hits() -> None:
    """Whether its fields were held back or not."""
    names = ["0.blip.txt", "0.jpg", "0.txt", "1.blip.txt", "1.jpg", "1.txt"]
    data = tar([(name, b"x" * 600) for name in names])
    for member, keys in ((4, ["0", "1"]), (1, ["0"]), (5, ["0", "1"])):
        rows, state = local(data[: 1536 * member + 1000])
        assert outcomes(rows) == [
            (key, "shard_truncated" if key == keys[-1] else None) for key in keys
        ]
        assert state.state is State.TRUNCATED
    dotted = tar([(f"a.{n}.{ext}", b"x" * 600) for n in range(2) for ext in ("jpg", "txt")])
    rows, _ = local(dotted[: 1536 * 3 + 1000])
    assert outcomes(rows) == [("a.0", None), ("a.1", "shard_truncated")]


# Members that stand apart


def test_members_apart_are_joined_once_each() -> None:
    again = [("k000.jpg", b"2"), ("k000.txt", b"2")]
    rows, _ = local(tar([*sorted(pairs(3), key=lambda m: m[0][::-1]), *again]))
    assert outcomes(rows) == [
        ("k000", None),
        ("k001", None),
        ("k002", None),
        ("k000", "duplicate_key"),
    ]
    assert rows[0].text == dict(pairs(1))["k000.txt"]


def test_an_unsafe_member_apart_makes_its_sample_unsafe() -> None:
    rows, _ = local(tar([("../a.jpg", b"1"), ("b.jpg", b"2"), ("b.txt", b"2"), ("../a.txt", b"1")]))
    assert outcomes(rows) == [("../a", "unsafe_member"), ("b", None)]


def test_a_cut_shard_whose_members_stand_apart_gives_whole_samples_only() -> None:
    members = sorted(pairs(6), key=lambda m: m[0][-3:])  # all pictures, then all texts
    data = tar(members)
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        starts = [member.offset for member in opened]
    for whole in range(7, 12):
        for cut in (starts[whole], starts[whole] + 200, starts[whole] + 520, starts[whole] + 800):
            rows, state = local(data[:cut])
            assert (state.state, state.offset) == (State.TRUNCATED, cut)
            texts = whole - 6
            expected = [None] * texts + ["shard_truncated"] * (6 - texts)
            assert [row.reason for row in rows] == expected
    broken = bytearray(data)
    broken[starts[9] + 130] ^= 1
    rows, state = local(bytes(broken))
    assert (state.state, state.offset) == (State.CORRUPT, starts[9])
    assert Counter(row.reason for row in rows) == {None: 3, "shard_corrupt": 3}


def test_a_lone_sidecar_of_a_cut_shard_may_have_lost_its_picture() -> None:
    names = ("a.json", "b.jpg", "c.json", "b.txt", "c.txt", "c.jpg", "a.jpg", "a.txt")
    data = tar([(name, b"{}") for name in names])
    for whole in (4, 6):
        rows, _ = local(data[: whole * 1024])
        cut = ["a"] if whole == 6 else ["a", "c"]
        assert [row.key for row in rows if row.reason == "shard_truncated"] == cut


@given(st.permutations(pairs(4)), st.data())
def test_a_cut_anywhere_never_mixes_samples(members: Members, draw: st.DataObject) -> None:
    data = tar(members)[: draw.draw(st.integers(600, 8 * 1024 + 1024))]
    rows, _ = local(data)
    contents = dict(members)
    for row in rows:
        if row.reason is None:
            assert row.image in (None, contents[f"{row.key}.jpg"])
            assert row.text in (None, contents[f"{row.key}.txt"])
        else:
            assert row.reason == "shard_truncated"


# Pictures and texts under other endings


@pytest.mark.parametrize("ending", ["bmp", "TIFF", "heic", "svg"])
def test_pictures_that_are_not_read_are_told(ending: str) -> None:
    members = [(f"a.{ending}", b"x" * 900), ("a.txt", b"t"), (f"b.{ending}", b"x"), ("b.jpg", b"i")]
    rows, state = local(tar([*members, (f"c.{ending}", b"x")]))
    assert outcomes(rows) == [
        ("a", "format_not_allowed"),
        ("b", None),
        ("c", "format_not_allowed"),
    ]
    assert rows[0].detail == f".{ending.lower()} is not read; convert it to JPEG, PNG, WebP or GIF"
    assert state.detail == f"other fields beside a key, not used: 1 .{ending.lower()}"


def test_a_large_foreign_picture_spoils_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.inputs.tars.grouping._LARGEST_MEMBER_BYTES", 1000)
    members = [("a.bmp", b"x" * 2000), ("a.jpg", b"i"), ("b.bmp", b"x" * 2000)]
    assert outcomes(local(tar(members))[0]) == [("a", None), ("b", "unsafe_member")]


def test_texts_elsewhere() -> None:
    members = [("a.jpg", b"i"), ("a.json", b'{"caption": "from json"}'), ("a.txt", b"from txt")]
    members += [("b.caption", b"from caption"), ("b.jpg", b"i"), ("b.json", b"{}")]
    data = tar(members)
    texts = {
        source: [row.text for row in local(data, TextSource.parse(source))[0]]
        for source in ("txt", "json:caption", "caption", "none")
    }
    assert texts == {
        "txt": [b"from txt", None],
        "json:caption": [b"from json", None],
        "caption": [None, b"from caption"],
        "none": [None, None],
    }


# Inputs met in the field


@pytest.fixture
def cases(data_dir: Path) -> dict[str, list[RawSample]]:
    """Read every tar of the collection, by name; all of them are whole."""
    folder = data_dir / "field_cases"
    if not folder.is_dir():
        pytest.skip(f"no field cases at {folder}")
    listed = {case["file"] for case in json.loads((folder / "manifest.json").read_text())}
    found = {}
    for name in sorted(listed):
        if name.endswith(".tar"):
            source = TextSource.parse("json:caption" if "json_only" in name else "txt")
            with open_shard(str(folder / name)) as file:
                reader = ShardReader(file, source)
                found[name] = list(reader)
            assert reader.state.state is State.COMPLETE, name
    return found


def test_cases_of_tars(cases: dict[str, list[RawSample]]) -> None:
    beside = cases["tar_multi_ext_sorted.tar"]
    assert outcomes(beside) == [("000", None), ("001", None)]
    assert all(row.image and row.text and row.meta for row in beside)
    assert len({row.text for row in beside}) == 2
    odd = cases["tar_gnu_sparse_label.tar"]
    assert outcomes(odd) == [("a", None), ("b", None)]
    assert all(row.image and row.text for row in odd)
    assert all(row.text for row in cases["tar_text_in_json_only.tar"])


def test_cases_of_names(cases: dict[str, list[RawSample]]) -> None:
    for name, reason in (
        ("img_bmp_own_name.tar", "format_not_allowed"),
        ("img_tiff_own_name.tar", "format_not_allowed"),
        ("img_jfif_name.tar", None),
    ):
        assert outcomes(cases[name]) == [("good1", None), ("odd", reason), ("good2", None)]
    assert {row.image_ext for row in cases["img_only_jfif_names.tar"]} == {"jfif"}
    assert all(row.reason is None and row.meta for row in cases["sidecars.tar"])
