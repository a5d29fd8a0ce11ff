"""Candidates from outside: found by their sample, and told where they cannot be used."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import DamagedFile
from shards.inputs.candidates import NAME, CandidatesError, open_candidates, read_candidates
from shards.store import Store

MOST = 100


def write(folder: Path, **columns: Any) -> str:
    path = folder / "given.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_those_of_a_sample_in_the_files_order(tmp_path: Path) -> None:
    url = write(
        tmp_path,
        key=["b", "a", "b", "ä", "b", "b", None, "a"],
        text=["one", "two", "three", "four", " ", "x" * (MOST + 1), "lost", "five"],
        author=["human", "human", "gpt", None, "gpt", "gpt", "gpt", "human"],
        shard=["s", "s", None, "s", "s", "s", "s", "t"],
        other=range(8),
    )
    candidates, left_out = read_candidates(url, MOST)
    assert left_out == 3, "no words, too many bytes, no key"
    assert list(candidates.of("s", "b")) == [("human", "one"), ("gpt", "three")]
    assert list(candidates.of("t", "b")) == [("gpt", "three")]
    assert list(candidates.of("s", "a")) == [("human", "two")]
    assert list(candidates.of("s", "ä")) == [("imported", "four")]
    assert [list(candidates.of("s", key)) for key in ("", "c", "ö")] == [[], [], []]
    assert candidates.rows == {"gpt": 1, "human": 3, "imported": 1}


def test_a_run_keeps_them(tmp_path: Path) -> None:
    candidates, _ = read_candidates(write(tmp_path, key=["b", "a"], text=["one", "two"]), MOST)
    store, identity = Store(str(tmp_path / "run")), {"candidates": candidates.identity}
    with pytest.raises(DamagedFile, match="it is gone"):
        open_candidates(store, identity)
    store.create(NAME, candidates.to_parquet())
    kept = open_candidates(store, identity)
    assert kept is not None
    assert kept.identity == candidates.identity
    assert list(kept.of("any", "a")) == [("imported", "two")]
    assert open_candidates(store, {}) is None
    other, _ = read_candidates(write(tmp_path, key=["b", "a"], text=["one", "2"]), MOST)
    assert other.identity != candidates.identity
    with pytest.raises(DamagedFile, match="the candidates that the run began with"):
        open_candidates(store, {"candidates": {"rows": {"imported": 3}}})


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"key": ["a"]}, "has no column text; expected key and text.* found key"),
        ({"key": [1], "text": ["a"]}, "column key is int64; expected strings"),
        ({"key": ["a"], "text": ["b"], "author": ["a b"]}, "author 'a b' cannot name an origin"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    with pytest.raises(CandidatesError, match=said):
        read_candidates(write(tmp_path, **columns), MOST)


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(CandidatesError, match="there are no candidates at"):
        read_candidates(str(tmp_path / "nowhere.parquet"), MOST)
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(CandidatesError, match="cannot be read"):
        read_candidates(str(tmp_path / "torn.parquet"), MOST)
