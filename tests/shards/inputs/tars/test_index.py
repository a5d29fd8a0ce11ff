"""An index brings the members of each sample together, and tells what damage may have cost."""

import io
import random
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from shards.inputs.tars.index import Index, IndexedReader, scan
from shards.inputs.tars.tar import TarDamage
from shards.inputs.text import TXT
from tests.support.remote_file import remote


def index_of(data: bytes, start: int = 0) -> Index:
    index = scan(io.BytesIO(data), len(data), TXT, start)
    assert index is not None
    return index


def names(data: bytes, index: Index) -> list[str]:
    reader = IndexedReader(io.BytesIO(data), index)
    found = [member.name.decode() for member in reader]
    assert reader.passed_bytes <= len(data)
    return found


def members(*found: str) -> list[tuple[str, bytes]]:
    return [(name, name.encode()) for name in found]


def test_members_side_by_side_need_no_index(tar_bytes: Any, pairs: Any) -> None:
    for data in (tar_bytes(pairs(5)), tar_bytes([]), b"", b"no tar" * 200):
        assert scan(io.BytesIO(data), len(data), TXT) is None


def test_samples_come_in_the_order_of_their_first_members(tar_bytes: Any) -> None:
    data = tar_bytes(members("b.txt", "a.jpg", "x.npy", "b.jpg", "c.txt", "a.txt"))
    assert names(data, index_of(data)) == ["b.txt", "b.jpg", "a.jpg", "a.txt", "c.txt"]


def test_fields_beside_a_key_are_counted(tar_bytes: Any) -> None:
    data = tar_bytes(members("a.mask.png", "b.jpg", "a.jpg", "b.mask.png", "c.d.jpg", "a.txt"))
    index = index_of(data)
    assert names(data, index) == ["b.jpg", "a.jpg", "a.txt", "c.d.jpg"]
    assert index.ignored == {".mask.png": 2}


def test_what_comes_again_whole_stays_whole(tar_bytes: Any) -> None:
    data = tar_bytes(members("a.jpg", "b.jpg", "a.txt", "b.txt", "a.jpg", "a.txt"))
    assert names(data, index_of(data)) == ["a.jpg", "a.txt", "b.jpg", "b.txt", "a.jpg", "a.txt"]


def test_it_may_begin_in_the_middle(tar_bytes: Any) -> None:
    data = tar_bytes(members("a.jpg", "b.jpg", "c.jpg", "b.txt"))
    assert names(data, index_of(data, 1024)) == ["b.jpg", "b.txt", "c.jpg"]
    known = scan(io.BytesIO(data), len(data), TXT, 1024, has_fields=lambda _: True)
    assert known is not None
    assert len(known.starts) == 3


def test_damage_tells_which_samples_may_lack_a_member(tar_bytes: Any) -> None:
    data = tar_bytes(members("a.jpg", "b.jpg", "c.jpg", "b.txt", "a.txt"))
    cut = index_of(data[: 4 * 1024 + 100])
    assert cut.cut == {hash(b"a"), hash(b"c")}
    assert cut.damage is not None
    assert (cut.damage.state, cut.damage.offset) == ("truncated", 4 * 1024 + 100)
    with pytest.raises(TarDamage):
        names(data[: 4 * 1024 + 100], cut)
    assert index_of(data).cut == frozenset()


def test_a_key_that_comes_back_in_the_cut_member_alone_stands_apart(tar_bytes: Any) -> None:
    data = tar_bytes(members("a.jpg", "b.txt", "a.txt"))
    for end in (2 * 1024 + 600, 2 * 1024 + 1000):
        assert index_of(data[:end]).cut == {hash(b"a"), hash(b"b")}
    assert scan(io.BytesIO(data[:2048]), 2048, TXT) is None


def test_the_cut_member_tells_what_samples_have(tar_bytes: Any) -> None:
    data = tar_bytes(members("a.jpg", "b.jpg", "c.jpg", "a.txt"))
    assert index_of(data[: 3 * 1024 + 600]).cut == {hash(b"a"), hash(b"b"), hash(b"c")}


def test_contents_are_those_of_the_names_in_any_order(tar_bytes: Any, pairs: Any) -> None:
    given = pairs(20)
    random.Random(1).shuffle(given)
    data = tar_bytes(given)
    for file in (io.BytesIO(data), remote(data)):
        reader = IndexedReader(file, index_of(data))
        assert {member.name.decode(): reader.read(member) for member in reader} == dict(given)


def test_a_file_that_is_written_to_meanwhile_is_damage(tar_bytes: Any) -> None:
    data = tar_bytes(members("a.jpg", "b.jpg", "a.txt"))
    for changed in (data[:1024], data[:1024] + bytes(10_240), data[:2048] + b"x" * 512):
        with pytest.raises(TarDamage):
            list(IndexedReader(io.BytesIO(changed), index_of(data)))


READ = """
import resource, sys
from shards.inputs.reader import ShardReader, open_shard
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
with open_shard(sys.argv[1]) as file:
    rows = sum(row.image is not None and row.text is not None for row in ShardReader(file))
print(rows, peak() - before)
"""


@pytest.mark.nightly
def test_a_tar_of_many_members_in_any_order_stays_bounded(tmp_path: Path) -> None:
    names = [f"{n:06}.{e}" for n in range(100_000) for e in ("jpg", "json", "txt")]
    random.Random(1).shuffle(names)
    with tarfile.open(tmp_path / "many.tar", "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 400
            tar.addfile(info, io.BytesIO(bytes(400)))
    command = [sys.executable, "-c", READ, str(tmp_path / "many.tar")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 100_000
    assert megabytes < 120
