"""Excerpts of tars, against what the standard library reads of the whole."""

import io
import random
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.inputs.excerpt import Excerpts, cut_samples, find_header, padding_of
from shards.inputs.listing import list_inputs
from shards.inputs.reader import ShardReader, State
from shards.inputs.shard import InputOptions, InputShard
from tests.support.tars import read_members


def write_tars(folder: Path, tars: int, samples: int, form: int = tarfile.GNU_FORMAT) -> None:
    rng = random.Random(7)
    for number in range(tars):
        with tarfile.open(folder / f"{number:03}.tar", "w", format=form) as tar:
            for sample in range(samples):
                key = f"{number}-{sample:05}" + "-long" * 25 * (sample % 2)
                for ending, size in (("jpg", rng.randint(0, 4000)), ("txt", 20)):
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = size
                    tar.addfile(member, io.BytesIO(rng.randbytes(size)))


def keys(tar: bytes) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name, _ in read_members(tar)))


@pytest.fixture(params=[tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def shards(tmp_path: Path, request: pytest.FixtureRequest) -> list[InputShard]:
    """Three tars of 40 samples, half of them under long names."""
    write_tars(tmp_path, 3, 40, request.param)
    return list_inputs([str(tmp_path)])


def test_an_excerpt_is_a_whole_tar_of_whole_samples(shards: list[InputShard]) -> None:
    whole = {s.url: dict(read_members(s.url)) for s in shards}
    drawn = list(Excerpts(shards, seed=1).draw([4] * 8))
    assert len(drawn) == 8
    for excerpt in drawn:
        members = read_members(excerpt.tar)
        samples = excerpt.samples
        assert samples == len(keys(excerpt.tar))
        assert 1 <= samples <= 4  # fewer at the end of a tar
        assert len(members) == 2 * samples
        assert all(whole[excerpt.shard.url][name] == data for name, data in members)
        data = Path(excerpt.shard.url).read_bytes()
        assert excerpt.tar.startswith(data[excerpt.start : excerpt.end])
        reader = ShardReader(io.BytesIO(excerpt.tar))
        assert [raw.reason for raw in reader] == [None] * samples
        assert reader.state.state == State.COMPLETE


def test_none_is_drawn_twice_and_all_can_be_drawn(shards: list[InputShard]) -> None:
    drawn = [key for e in Excerpts(shards, seed=2).draw([7] * 60) for key in keys(e.tar)]
    everything = {key for s in shards for key in keys(Path(s.url).read_bytes())}
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == everything


def test_every_place_is_drawn_about_as_often(tmp_path: Path) -> None:
    write_tars(tmp_path, 2, 30)
    shards = list_inputs([str(tmp_path)])
    times = Counter[str]()
    for seed in range(300):
        for excerpt in Excerpts(shards, seed).draw([3, 3]):
            times.update(keys(excerpt.tar))
    thirds = [0, 0, 0]
    for key, count in times.items():
        thirds[int(key[2:7]) // 10] += count
    assert 0.85 * 300 * 6 < sum(thirds) <= 300 * 6
    assert max(thirds) < 1.3 * min(thirds)


def test_the_same_seed_draws_the_same(shards: list[InputShard]) -> None:
    drawn = [[(e.shard.url, e.start) for e in Excerpts(shards, 5).draw([2] * 6)] for _ in "ab"]
    assert drawn[0] == drawn[1]


def test_padding_is_what_lies_behind_the_last_sample(tmp_path: Path) -> None:
    write_tars(tmp_path, 1, 5)
    data = (tmp_path / "000.tar").read_bytes()
    with tarfile.open(tmp_path / "000.tar") as tar:
        last = tar.getmembers()[-1]
    content = last.offset_data + 512  # a text of 20 bytes
    assert len(data) - padding_of(io.BytesIO(data), len(data)) == content
    inputs = list_inputs([str(tmp_path)])
    assert Excerpts(inputs, 0).content_bytes(inputs) == [content]


def test_damage_ends_an_excerpt_and_no_tar_gives_none(tmp_path: Path) -> None:
    write_tars(tmp_path, 1, 6)
    data = bytearray((tmp_path / "000.tar").read_bytes())
    with tarfile.open(tmp_path / "000.tar") as tar:
        third = tar.getmembers()[6]
    data[third.offset : third.offset + 10] = b"\xff" * 10
    span = cut_samples(io.BytesIO(data), 0, len(data), 6, begins=True)
    assert span is not None
    assert len(span.starts) == 2  # of three, the third's end is not known
    garbage = io.BytesIO(random.Random(0).randbytes(100_000))
    assert find_header(garbage, 0, 100_000) is None
    assert cut_samples(garbage, 0, 100_000, 3, begins=True) is None
    (tmp_path / "001.tar").write_bytes(garbage.getvalue())
    excerpts = Excerpts(list_inputs([str(tmp_path)]), 0)
    assert {excerpt.shard.shard for excerpt in excerpts.draw([2] * 6)} == {"000"}
    assert [shard.shard for shard in excerpts.barren] == ["001"]


def test_scatter_is_that_of_the_sizes(tmp_path: Path) -> None:
    write_tars(tmp_path, 1, 12)
    (excerpt,) = Excerpts(list_inputs([str(tmp_path)]), 3).draw([12])
    with tarfile.open(tmp_path / "000.tar") as tar:
        members = [member for member in tar.getmembers() if member.name.endswith(".jpg")]
    starts = [member.offset for member in members if member.offset >= excerpt.start]
    sizes = np.diff([*starts, excerpt.end])
    assert excerpt.scatter == pytest.approx(np.var(sizes, ddof=1) / np.mean(sizes) ** 2)


def test_large_samples_make_an_excerpt_of_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.inputs.excerpt.MOST_BYTES", 10_000)
    write_tars(tmp_path, 1, 400)
    drawn = list(Excerpts(list_inputs([str(tmp_path)]), seed=1).draw([40] * 4))
    assert len(drawn) == 4
    for excerpt in drawn:
        assert 1 <= excerpt.samples < 20
        assert len(excerpt.tar) < 10_000 + 12_000  # the one that went beyond it, and an end
        assert len(read_members(excerpt.tar)) == 2 * excerpt.samples


# What cannot be cut out of the middle


def pairs_in(folder: Path, order: str) -> list[InputShard]:
    """Write 200 pairs with a mask and a second sidecar each, in some order."""
    names = [f"{n:03}.{e}" for n in range(200) for e in ("info.json", "jpg", "mask.png", "txt")]
    if order == "apart":
        random.Random(3).shuffle(names)
    with tarfile.open(folder / "00.tar", "w:gz" if order == "gzip" else "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 900
            tar.addfile(member, io.BytesIO(random.Random(name).randbytes(900)))
    return list_inputs([str(folder)])


@pytest.mark.parametrize("order", ["sorted", "apart", "gzip"])
def test_samples_are_counted_whatever_the_order(tmp_path: Path, order: str) -> None:
    shards = pairs_in(tmp_path, order)
    excerpts = Excerpts(shards, seed=4)
    drawn = list(excerpts.draw([8] * 5))
    assert [e.samples for e in drawn] == [8] * 5
    size_bytes = sum(e.size_bytes for e in drawn) / 40
    estimate = excerpts.content_bytes(shards)[0] / size_bytes
    assert estimate == pytest.approx(200, rel=0.03)
    for excerpt in drawn:
        rows = list(ShardReader(io.BytesIO(excerpt.tar)))
        assert len(rows) == 8
        assert all(row.image and row.text and row.reason is None for row in rows)
        for row in rows:
            assert row.image == random.Random(f"{row.key}.jpg").randbytes(900)
            assert row.text == random.Random(f"{row.key}.txt").randbytes(900)
    assert excerpts.streams == (shards if order == "gzip" else [])
    assert excerpts.scattered == (shards if order == "apart" else [])
    assert excerpts.apart == excerpts.doubtful == []


@pytest.mark.parametrize(("taken", "torn"), [(8, "doubtful"), (100, "apart")])
def test_streams_whose_members_stand_apart_are_told(tmp_path: Path, taken: int, torn: str) -> None:
    with tarfile.open(tmp_path / "00.tar.gz", "w:gz") as tar:
        for name in [f"{n:02}.{e}" for e in ("txt", "jpg") for n in range(50)]:
            member = tarfile.TarInfo(name)
            member.size = 9
            tar.addfile(member, io.BytesIO(bytes(9)))
    shards = list_inputs([str(tmp_path)])
    excerpts = Excerpts(shards, seed=4)
    list(excerpts.draw([taken, taken]))
    assert {"apart": excerpts.apart, "doubtful": excerpts.doubtful} == (
        {"apart": [], "doubtful": []} | {torn: shards}
    )


@pytest.mark.parametrize("order", ["apart", "gzip"])
def test_they_are_drawn_once_from_the_beginning_on(tmp_path: Path, order: str) -> None:
    excerpts = Excerpts(pairs_in(tmp_path, order), seed=4)
    drawn = [key for e in excerpts.draw([30] * 10) for key in keys(e.tar)]
    assert len(drawn) == len(set(drawn)) == 200


def test_keys_with_dots_are_samples_each(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for number in range(300):
            for ending in ("jpg", "txt"):
                member = tarfile.TarInfo(f"img.{number:04}.{ending}")
                member.size = 100
                tar.addfile(member, io.BytesIO(bytes(100)))
    drawn = list(Excerpts(list_inputs([str(tmp_path)]), seed=1).draw([5] * 6))
    assert [excerpt.samples for excerpt in drawn] == [5] * 6
    assert [len(keys(excerpt.tar)) for excerpt in drawn] == [5] * 6


@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_excerpts_of_other_kinds_hold_their_samples_once(tmp_path: Path, form: str) -> None:
    names = [f"{number:03}" for number in range(20)]
    if form == "folder":
        for name in names:
            (tmp_path / f"{name}.jpg").write_bytes(name.encode())
            (tmp_path / f"{name}.txt").write_bytes(b"text of " + name.encode())
    else:
        rows = {"image": [name.encode() for name in names], "key": names}
        texts = {"text": [f"text of {name}" for name in names]}
        pq.write_table(pa.table(rows | texts), tmp_path / "a.parquet", row_group_size=5)
    shards = list_inputs([str(tmp_path)], None, InputOptions(samples_per_shard=5))
    assert len(shards) == 4
    excerpts = Excerpts(shards, seed=1)
    drawn = [
        raw for excerpt in excerpts.draw([3] * 8) for raw in ShardReader(io.BytesIO(excerpt.tar))
    ]
    assert sorted(raw.key for raw in drawn) == names
    assert all(raw.text == b"text of " + (raw.image or b"") for raw in drawn)
    assert excerpts.content_bytes(shards) == [float(shard.size_bytes) for shard in shards]
    assert (excerpts.barren, excerpts.streams) == ([], [])
