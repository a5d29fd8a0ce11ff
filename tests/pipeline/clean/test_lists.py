"""Lists of samples and pictures: every form that is read, what is refused, and what is matched."""

import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.clean.lists import (
    BlockList,
    ListError,
    check_skip_list,
    doubt_skip_list,
    is_listed,
    keep_lists,
    read_lists,
    skipped_keys,
    with_lists,
)
from pipeline.views.dedup.groups import DedupConfig, Side, find_groups
from pipeline.views.exclude import ExclusionRequest, exclude
from shards.errors import DamagedFile
from shards.run.exclusion import BLOCK_NAME, SKIP_NAME
from shards.run.run import Run
from shards.run.view import open_view
from shards.store import Store
from tests.support.hashed_run import Picture, altered, hashed_run, stranger

SHA = "ab" * 32


def skip_list(location: object) -> list[tuple[str, str]]:
    table = pq.read_table(io.BytesIO(read_lists(str(location), None)[SKIP_NAME]))
    return list(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))


def test_a_text_names_samples(tmp_path: Path) -> None:
    path = tmp_path / "skip.txt"
    path.write_text("# two of one shard\n001/b\n000/a/c\n\n001/b\n001/a%20b\n")
    assert skip_list(path) == [("000", "a/c"), ("001", "a%20b"), ("001", "b")]


def test_a_table_names_samples(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"key": ["k"], "shard": ["000"], "more": [1]}), tmp_path / "skip.parquet"
    )
    assert skip_list(tmp_path / "skip.parquet") == [("000", "k")]


def test_a_view_names_what_it_leaves_out(tmp_path: Path) -> None:
    pictures = [Picture("a", "1", stranger(0), side=50), Picture("b", "2", altered(stranger(0), 3))]
    run = hashed_run(tmp_path / "run", pictures, screens=True)
    base = open_view(run)
    groups = find_groups(Side(run, base), [], DedupConfig())
    exclude(run, base, ExclusionRequest("unique", {}), groups, lambda _: None)
    assert skip_list(f"{run.store.url()}:unique") == [("000", "a")]


def test_a_view_of_shards_of_the_same_names_is_doubted(tmp_path: Path) -> None:
    pictures = [Picture("a", "1", stranger(0), side=50), Picture("b", "2", altered(stranger(0), 3))]
    run = hashed_run(tmp_path / "run", pictures, screens=True)
    base = open_view(run)
    groups = find_groups(Side(run, base), [], DedupConfig())
    exclude(run, base, ExclusionRequest("unique", {}), groups, lambda _: None)
    location = f"{run.store.url()}:unique"
    data = read_lists(location, None)[SKIP_NAME]
    assert doubt_skip_list(location, data, run.inputs) is None
    others = [replace(shard, size_bytes=shard.size_bytes + 1) for shard in run.inputs]
    assert "its shard '000' has" in (doubt_skip_list(location, data, others) or "")
    renamed = [replace(shard, shard="elsewhere") for shard in others]
    assert doubt_skip_list(location, data, renamed) is None  # `check_skip_list` refuses it
    (tmp_path / "list.txt").write_text("000/a")
    assert doubt_skip_list(str(tmp_path / "list.txt"), data, others) is None  # nothing is known


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no slash\n", "SHARD/KEY"), (b"\xff\xfe", "neither Parquet"), (None, "no such list")],
)
def test_what_is_no_list_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "skip.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ListError, match=said):
        skip_list(path)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pa.table({"shard": [{"a": 1}], "key": ["k"]}), "column 'shard' should hold texts"),
        (pa.table({"shard": ["s"], "key": [b"k"]}), "column 'key' should hold texts"),
        (pa.table({"shard": ["s", None], "key": ["k", "l"]}), "rows without a shard or a key: 1"),
        (pa.table([["s"], ["k"], ["l"]], ["shard", "key", "key"]), "found 2 among shard, key, key"),
    ],
)
def test_a_table_that_names_no_samples_is_refused(
    tmp_path: Path, table: pa.Table, said: str
) -> None:
    pq.write_table(table, tmp_path / "list")
    with pytest.raises(ListError, match=said):
        skip_list(tmp_path / "list")


def test_a_mark_of_byte_order_and_odd_characters_are_no_part_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes("\ufeffs/a\r\ns/b\u2028c\n".encode())
    assert skip_list(tmp_path / "list") == [("s", "a"), ("s", "b\u2028c")]


def test_a_table_without_keys_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"shard": ["000"]}), tmp_path / "skip.parquet")
    with pytest.raises(ListError, match="expected one column 'key', found 0 among shard"):
        skip_list(tmp_path / "skip.parquet")


def test_a_list_of_another_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "skip.txt").write_text("web-7/a\n")
    data = read_lists(str(tmp_path / "skip.txt"), None)[SKIP_NAME]
    check_skip_list(data, ["web-7"])
    with pytest.raises(ListError, match="names 'web-7' and no shard of this input"):
        check_skip_list(data, ["000"])


@pytest.fixture
def run_with_lists(tmp_path: Path) -> Run:
    (tmp_path / "skip.txt").write_text("".join(f"{n:03}/k{n}\n" for n in range(50)))
    (tmp_path / "block.txt").write_text(f"{SHA}  # seen\ndhash:{stranger(0).hex()}\n")
    lists = read_lists(str(tmp_path / "skip.txt"), str(tmp_path / "block.txt"))
    identity = with_lists({"screen": {"block_hashes": "a path", "min_side": 32}}, lists)
    run = Run.create(Store(str(tmp_path / "run")), "", identity, {}, [])
    keep_lists(run, lists)
    return run


def test_a_run_keeps_its_lists_and_knows_them_again(run_with_lists: Run) -> None:
    run = run_with_lists
    assert skipped_keys(run, "007") == {"k7"}
    assert skipped_keys(run, "absent") == frozenset()
    assert run.identity["screen"]["min_side"] == 32
    blocked = BlockList.of_run(run)
    assert blocked.sha256 == {SHA}
    run.store.put(BLOCK_NAME, b"")
    with pytest.raises(DamagedFile):
        BlockList.of_run(run)
    run.store.delete(SKIP_NAME)
    with pytest.raises(DamagedFile, match="it is gone"):
        skipped_keys(run, "007")


def test_without_lists_what_decides_the_output_is_as_before() -> None:
    named = {"screen": {"min_side": 32, "block_hashes": None}, "seed": 0}
    assert with_lists(named, {}) == {"screen": {"min_side": 32}, "seed": 0}


def test_keys_are_found_as_they_are_or_encoded() -> None:
    assert is_listed("a b", frozenset({"a%20b"}))
    assert is_listed("a b", frozenset({"a b"}))
    assert not is_listed("a", frozenset({"b"}))


def test_a_picture_that_looks_like_one_of_the_list_is_known() -> None:
    blocked = BlockList.parse(f"dhash:{stranger(0).hex()}".encode(), "here")
    assert blocked.looks_like_any(altered(stranger(0), 20))
    assert not blocked.looks_like_any(altered(stranger(0), 40))
    assert not BlockList().looks_like_any(stranger(0))


def test_a_line_that_is_no_hash_is_named() -> None:
    with pytest.raises(ListError, match="here, line 2: expected sha256"):
        BlockList.parse(f"{SHA}\nmd5:00\n".encode(), "here")
